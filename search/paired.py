"""Trials compared task by task: the difference in accuracy, its interval, and who is tied.

Every trial of a run is scored on the same seeded validation tasks, so that of two trials

    d_i = A_i(one) - A_i(other),      interval = mean(d) +- 1.96 std(d) / sqrt(tasks)

is much narrower than the two intervals of their own: a task that is hard is hard for both. Trials
are tied where the interval holds 0. It is one comparison's: of twenty pairs of equals, one is
expected to look different. A trial that was chosen as the best of many looks better than it is
(winner's curse), which is what the score on fresh tasks is for (``fresh``).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from search.rundir import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from search.rundir import RunDir

TASKS_FILE = "tasks.json"


@dataclass(frozen=True)
class Difference:
    """Of accuracy, in [-1, 1].

    Attributes:
        mean: The first trial's minus the second's.
        ci95: Half width of the 95 % interval of the mean.
    """

    mean: float
    ci95: float

    @property
    def tied(self) -> bool:
        """Whether the interval holds 0."""
        return abs(self.mean) <= self.ci95


@dataclass(frozen=True)
class Tally:
    """What a trial answered right, task by task.

    Attributes:
        seed: Of the tasks.
        images: Query images of each.
        right: How many of them were classified right, ``[tasks]``.
    """

    seed: int
    images: int
    right: tuple[int, ...]

    def against(self, other: Tally) -> Difference | None:
        """Compare; None where the two did not meet the same tasks."""
        same = (self.seed, self.images) == (other.seed, other.images)
        if not same or len(self.right) != len(other.right) or not self.right:
            return None
        return difference([(a - b) / self.images for a, b in zip(self.right, other.right,
                                                                  strict=True)])  # fmt: skip


def difference(values: Sequence[float]) -> Difference:
    """Return the mean of paired differences with its interval; unknown for a single one.

    Example:
        >>> difference([0.0, 0.0, 0.0]).tied, difference([0.2, 0.2, 0.1]).tied
        (True, False)
    """
    if len(values) < 2:
        return Difference(values[0], math.inf)
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return Difference(statistics.fmean(values), half)


def tally(run: RunDir, number: int) -> Tally | None:
    """Read what a trial answered right; None for trials that did not say so.

    Raises:
        UserError: The file is damaged.
    """
    file = run.trial(number) / TASKS_FILE
    if not file.is_file():
        return None
    known = read_json(file)
    return Tally(int(known["seed"]), int(known["images"]), tuple(known["right"]))


@dataclass(frozen=True)
class Comparison:
    """The trials of a front against the most accurate feasible one, and their neighbours.

    Attributes:
        incumbent: The number of the most accurate feasible trial; None where there is none.
        differences: Of each trial compared, its accuracy minus the incumbent's.
        tied: Pairs that follow each other on the front by accuracy, and are tied in it.
    """

    incumbent: int | None = None
    differences: Mapping[int, Difference] = field(default_factory=dict)
    tied: tuple[tuple[int, int], ...] = ()

    def cell(self, number: int) -> str:
        """Write a trial's difference in points: ``-1.2 ± 0.8``, with ``=`` where it is tied."""
        if number == self.incumbent:
            return "best"
        found = self.differences.get(number)
        if found is None:
            return "-"
        half = f" ± {100 * found.ci95:.1f}" if math.isfinite(found.ci95) else ""
        return f"{100 * found.mean:+.1f}{half}{' =' if found.tied else '  '}"

    def lines(self) -> list[str]:
        """Say what the differences are, and which neighbours are tied."""
        if not self.differences:
            return []
        meaning = (
            f"to_best: accuracy against trial {self.incumbent}, the most accurate feasible one, in "
            "points, with the 95 % interval of the paired difference on the same tasks; = tied"
        )
        said = [meaning]
        if self.tied:
            pairs = ", ".join(f"{a} = {b}" for a, b in self.tied)
            said.append(f"neighbours on the front that are tied in accuracy: {pairs}")
        return said

    def to_json(self) -> dict[str, Any]:
        """Return the part ``paired`` of ``results --json``."""
        return {
            "incumbent": self.incumbent,
            "differences": [
                {"trial": number, "difference": d.mean, "ci95": d.ci95, "tied": d.tied}
                for number, d in self.differences.items()
            ],
            "tied": [list(pair) for pair in self.tied],
        }


def compare(
    run: RunDir, feasible: Iterable[Mapping[str, Any]], front: Iterable[Mapping[str, Any]]
) -> Comparison:
    """Compare the feasible trials of a run with the most accurate of them.

    Args:
        run: Where their answers are kept.
        feasible: The complete trials that keep every constraint.
        front: Those of them that no other dominates.
    """
    order = sorted(feasible, key=lambda t: (-_accuracy(t), int(t["id"])))
    answers = {int(t["id"]): tally(run, int(t["id"])) for t in order}
    best = next(iter(answers), None)
    if best is None:
        return Comparison()
    found = {n: _between(answers, n, best) for n in answers if n != best}
    on_front = {int(t["id"]) for t in front}
    neighbours = pairwise(n for n in answers if n in on_front)
    ties = [(a, b) for a, b in neighbours if (d := _between(answers, a, b)) and d.tied]
    known = {n: d for n, d in found.items() if d is not None}
    return Comparison(best, known, tuple(ties))


def _between(answers: Mapping[int, Tally | None], one: int, other: int) -> Difference | None:
    a, b = answers[one], answers[other]
    return None if a is None or b is None else a.against(b)


def _accuracy(trial: Mapping[str, Any]) -> float:
    value = trial["metrics"].get("accuracy")
    return float(value) if value is not None else -math.inf
