"""The cheapest (pattern, step) within epsilon by racing: only what can still win is scored.

The choice to imitate is the one of the complete table over N validation tasks (``patterns``):

    feasible = {e : D_e <= epsilon},   D_e = mean over N of  d_i = A_i(reference) - A_i(e)
    chosen = argmin cost over feasible

The N tasks are a finite population, and the first n of them a sample without replacement. At
every look, each with a quarter more tasks than the last, an entry is held to

    |mean_n d - epsilon| > z s sqrt((1/n)(1 - n/N)),      z = the normal quantile at 1 - error/looks

above epsilon it is out, below it is in, otherwise it meets more tasks; at n = N the margin is
zero and the verdict the table's own. Entries race one after the other, cheapest first, so nothing
dearer than the chosen one is ever run but the reference. What is ``confirm``-ed has then met all
N tasks: an entry taken in too early is caught there, and the single mistake left is to drop the
table's choice, whose chance is at most ``ERROR``, divided evenly among the looks [all ours].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, groupby
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch

from trainables._core.evaluate import interval
from trainables._core.patterns import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from trainables._core.evaluate import Accuracies

    # a chunk's number, pattern -> steps; gives the accuracies of that chunk's tasks
    Scorer = Callable[[int, Mapping[str, Sequence[int]]], Accuracies]

Key = tuple[str, int]  # (pattern, step)

ERROR = 0.05  # chance of dropping the table's choice where it loses exactly epsilon; less elsewhere
LEAST = 16  # tasks before the first look: a normal quantile says little about fewer
GROWTH = 1.25  # tasks of a look over those of the last: closer ones cost certainty, say little new
PRIOR = 2  # tasks' worth of belief in the spread of independent predictions


class Scored:
    """The (pattern, step) table so far, filled chunk by chunk where somebody asks.

    Args:
        score: scores patterns at their steps on one chunk.
        chunks: how many tasks each chunk holds.
        keys: every (pattern, step) of the table, in its order.
    """

    def __init__(self, score: Scorer, chunks: Sequence[int], keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        self.ends = tuple(accumulate(chunks))
        self.looks = _looks(self.ends)
        self._score = score
        self._parts: dict[Key, list[torch.Tensor]] = {key: [] for key in self.keys}

    def extend(self, keys: Iterable[Key], chunks: int) -> None:
        """Scores these on the first ``chunks`` chunks; nothing is scored twice."""
        asked = tuple(dict.fromkeys(keys))
        for number in range(chunks):
            wanted: dict[str, list[int]] = {}
            for key in asked:
                if len(self._parts[key]) == number:
                    wanted.setdefault(key[0], []).append(key[1])
            for key, values in (self._score(number, wanted) if wanted else {}).items():
                self._parts[key].append(values.cpu())  # judged often, and by the CPU

    def values(self, key: Key) -> torch.Tensor:
        """Accuracies ``[n]`` on the first n tasks, those scored so far."""
        return torch.cat(self._parts[key]) if self._parts[key] else torch.empty(0)

    def tasks(self, key: Key) -> int:
        """How many tasks it was scored on."""
        return sum(map(len, self._parts[key]))

    def accuracies(self) -> Accuracies:
        """All that was scored, in the table's order."""
        return {key: self.values(key) for key in self.keys if self._parts[key]}


def _looks(ends: Sequence[int]) -> tuple[int, ...]:
    """After how many chunks entries are judged; the last look is at all tasks.

    >>> _looks([8, 16, 24, 32, 40, 48, 56, 64])
    (2, 3, 4, 5, 7, 8)
    """
    found: list[int] = []
    for chunks, tasks in enumerate(ends[:-1], 1):
        if tasks >= (GROWTH * ends[found[-1] - 1] if found else LEAST):
            found.append(chunks)
    return (*found, len(ends))


def complete(scored: Scored) -> Accuracies:
    """The whole table; what a race has scored is not scored again."""
    scored.extend(scored.keys, len(scored.ends))
    return scored.accuracies()


@dataclass(frozen=True)
class Terms:
    """What an entry is held to."""

    reference: Key
    epsilon: float
    images: int  # query images of a task
    error: float = ERROR


def verdict(scored: Scored, key: Key, terms: Terms) -> bool | None:
    """Whether an entry is within epsilon of the reference; None while that is uncertain.

    Goes through the looks again; the first certainty stands, but all N tasks overrule it.
    """
    if key == terms.reference:
        return True
    against, values = scored.values(terms.reference), scored.values(key)
    met, total = min(len(against), len(values)), scored.ends[-1]
    if met == total:
        return within(interval(values)[0], interval(against)[0], terms.epsilon)
    looks = [scored.ends[chunks - 1] for chunks in scored.looks[:-1]]
    drops = (against[:met] - values[:met]).double()
    for n in (tasks for tasks in looks if tasks <= met):
        z = NormalDist().inv_cdf(1 - terms.error / len(looks))
        margin = z * (_variance(drops[:n], against[:n], terms.images) * (1 / n - 1 / total)) ** 0.5
        beyond = float(drops[:n].mean()) - terms.epsilon
        if abs(beyond) > margin:
            return beyond < 0
    return None


def _variance(drops: torch.Tensor, against: torch.Tensor, images: int) -> float:
    """Variance of ``drops [n]`` over tasks, held above zero where few tasks agree by chance.

    The prior is what predictions independent of the reference's would give, 2 p (1 - p) / images.
    """
    p = (float(against.double().sum()) * images + 1) / (len(against) * images + 2)
    squares = float((drops - drops.mean()).square().sum())
    prior = 2 * p * (1 - p) / images
    return (squares + PRIOR * prior) / (len(drops) - 1 + PRIOR)


def race(scored: Scored, costs: Mapping[Key, float], terms: Terms, *, confirm: bool = True) -> Key:
    """The cheapest (pattern, step) within epsilon.

    Entries of equal cost are decided together: those within epsilon meet all tasks, and the most
    accurate of them wins, then the one of fewer steps, as in the table.

    Args:
        scored: the table, empty or partly filled; it keeps what the race scores.
        costs: what is minimised, for every (pattern, step).
        terms: reference, epsilon and the chance of a mistake.
        confirm: score the winner and the reference on all tasks, and race on should the winner
            turn out to lose more than epsilon. Without it the race ends at the first certainty.
    """
    everything = len(scored.ends)
    for tied in _by_cost(costs):
        left = [key for key in tied if _stays(scored, key, costs, terms)]
        if len(left) == 1 and not confirm:
            return left[0]
        if left:
            scored.extend([terms.reference, *left], everything)
            left = [key for key in left if verdict(scored, key, terms)]
        if left:
            return min(left, key=lambda key: (-interval(scored.values(key))[0], key[1]))
    msg = "The reference is within epsilon of itself"
    raise AssertionError(msg)


def _by_cost(costs: Mapping[Key, float]) -> Iterator[list[Key]]:
    """Groups of equal cost, cheapest first; the reference's own is the last that is asked for."""
    for _, tied in groupby(sorted(costs, key=costs.__getitem__), costs.__getitem__):
        yield list(tied)


def _stays(scored: Scored, key: Key, costs: Mapping[Key, float], terms: Terms) -> bool:
    """Runs an entry from look to look until its verdict.

    One adaptation scores every step: the pattern's other steps that may still win are scored
    along with it for as long as they are open.
    """
    steps = [k for k in costs if k[0] == key[0] and costs[k] <= costs[terms.reference]]
    for chunks in scored.looks:
        found = verdict(scored, key, terms)
        if found is not None:
            return found
        beside = [k for k in steps if verdict(scored, k, terms) is None]
        scored.extend([terms.reference, key, *beside], chunks)
    return bool(verdict(scored, key, terms))
