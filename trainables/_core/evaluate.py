"""Scores of adapted tasks: the (pattern, step) table, accuracies and their intervals.

Every pattern meets the same tasks, so that differences are paired. One adaptation of T steps
scores every t <= T. Patterns with the same lowest updated layer share one pass of the frozen
prefix over the query images.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch

from trainables._core import cost
from trainables._core.adapt import Rule, adapt
from trainables._core.lease import node
from trainables._core.patterns import Score, first_updated
from trainables._core.views import view_labels, with_views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trainables._core.adapt import Adapted
    from trainables._core.episodes import Episodes
    from trainables._core.networks import Network

TIMED_RUNS = 7  # adaptations per pattern whose median is the time: our default
WARM_UP_RUNS = 2
ROOM = 64 * cost.MIB  # our default: 25 Omniglot tasks' maps at all levels of 32 filters


@dataclass(frozen=True)
class Setting:
    """How a student adapts and is judged, wherever it does so."""

    steps: int
    rate: float
    ways: int
    views: int
    inductive: bool

    def rule(self, pattern: str, steps: int | None = None) -> Rule:
        """The rule of one pattern under this setting."""
        return Rule(pattern, self.steps if steps is None else steps, self.rate, self.ways)


Accuracies = dict[tuple[str, int], torch.Tensor]  # (pattern, step) -> [tasks]
Lifted = dict[int, tuple[torch.Tensor, int]]  # l0 -> query maps there, norms they went through


def interval(values: torch.Tensor) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (normal approximation) over tasks."""
    mean = float(values.double().mean())
    if len(values) < 2:
        return mean, float("inf")
    return mean, 1.96 * float(values.double().std()) / len(values) ** 0.5


def adapted(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    pattern: str,
    steps: int | None = None,
) -> Adapted:
    """The tasks adapted as a device would: the support set, its views, plain labels."""
    support = with_views(episodes.support, setting.views)
    labels = view_labels(episodes.support_labels, setting.views)
    return adapt(network, meta, support, labels, setting.rule(pattern, steps))


def correct(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Accuracy of every task ``[B]`` from logits ``[B, M, N]`` and labels ``[M]``."""
    return (z.argmax(-1) == labels).float().mean(1)


def score(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    tasks: Iterable[Episodes],
    setting: Setting,
    wanted: Mapping[str, Sequence[int]],
) -> Accuracies:
    """Accuracies of patterns on the same tasks.

    Args:
        network: the student.
        meta: its meta-parameters.
        tasks: batches of episodes.
        setting: steps, rate, ways, views and mode.
        wanted: pattern -> the steps t at which it is scored.

    Returns:
        ``[tasks]`` accuracies for every pattern and step.
    """
    found: dict[tuple[str, int], list[torch.Tensor]] = {}
    for episodes in tasks:
        for key, values in score_batch(network, meta, episodes, setting, wanted, {}).items():
            found.setdefault(key, []).append(values)
    return {key: torch.cat(parts) for key, parts in found.items()}


@torch.no_grad()
def score_batch(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    wanted: Mapping[str, Sequence[int]],
    lifted: Lifted,
) -> Accuracies:
    """``score`` for one batch; query maps are taken from ``lifted``, and new ones put there."""
    with node().shared():
        return _score_batch(network, meta, episodes, setting, wanted, lifted)


def _score_batch(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    wanted: Mapping[str, Sequence[int]],
    lifted: Lifted,
) -> Accuracies:
    found: Accuracies = {}
    level, rows = -1, None
    for pattern in sorted(wanted, key=first_updated):
        run = adapted(network, meta, episodes, setting, pattern, max(wanted[pattern]))
        if run.start not in lifted:
            lifted[run.start] = _lift(run, episodes.query, setting, lifted)
        query, _ = lifted[run.start]
        if run.start != level:
            level, rows = run.start, network.rows(query, run.start)
        for step in wanted[pattern]:
            stats = run.statistics(step) if setting.inductive else None
            z = run.logits(step, query, stats, from_prefix=True, rows=rows)
            found[pattern, step] = correct(z, episodes.query_labels)
    return found


def _lift(
    run: Adapted, images: torch.Tensor, setting: Setting, lifted: Lifted
) -> tuple[torch.Tensor, int]:
    """Query maps at this adaptation's l0, from the highest level below it that is there."""
    level = max((x for x in lifted if x < run.start), default=0)
    query, known = lifted.get(level, (images, 0))
    stats = run.prefix_stats.replayed(known) if setting.inductive else None
    maps = run.network.run(run.meta, query, stats, slice(level, run.start))
    return maps, len(run.prefix_stats.values)


class Batches:
    """Fixed tasks in numbered batches, any of them again, with query maps kept while there is room.

    Args:
        draw: the batch of a number.
        room: bytes that lifted query maps may hold between calls.
    """

    def __init__(self, draw: Callable[[int], Episodes], room: int = ROOM) -> None:
        self._draw, self._room = draw, room
        self._kept: dict[int, Lifted] = {}

    def score(
        self,
        network: Network,
        meta: Mapping[str, torch.Tensor],
        setting: Setting,
        number: int,
        wanted: Mapping[str, Sequence[int]],
    ) -> Accuracies:
        """``score`` for one batch by its number."""
        kept = self._kept.setdefault(number, {})
        lifted = dict(kept)
        found = score_batch(network, meta, self._draw(number), setting, wanted, lifted)
        for level in sorted(lifted.keys() - kept.keys() - {0}, reverse=True):  # small maps first
            size = lifted[level][0].nbytes
            if size <= self._room:
                kept[level] = lifted[level]
                self._room -= size
        return found


def milliseconds(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    pattern: str,
    runs: int = TIMED_RUNS,
) -> list[float]:
    """Median milliseconds from a task's support images to the student after t = 0..T steps.

    One task at a time, as a device adapts; the passes that prepare prediction (the statistics of
    the support set) are included.

    Args:
        network: the student.
        meta: its meta-parameters.
        episodes: one task.
        setting: steps, rate, ways, views and mode.
        pattern: what is updated.
        runs: timed repetitions, after a warm-up.
    """
    laps = total_laps(network, meta, episodes, setting, pattern, runs)
    return [statistics.median(column) for column in zip(*laps, strict=True)]


def total_laps(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    pattern: str,
    runs: int = TIMED_RUNS,
) -> list[list[float]]:
    """Milliseconds ``[runs][T + 1]`` as in ``milliseconds``, lap by lap, after a warm-up."""
    laps = [lap(network, meta, episodes, setting, pattern) for _ in range(WARM_UP_RUNS + runs)]
    return [in_total(one) for one in laps[WARM_UP_RUNS:]]


def lap(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    pattern: str,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Milliseconds of one adaptation by its parts: the start, each step, what comes behind."""
    cuda = episodes.support.is_cuda
    marks: list[float] = []

    def tick() -> None:
        if cuda:
            torch.cuda.synchronize(episodes.support.device)
        marks.append(clock())

    tick()
    on_a_device(network, meta, episodes, setting, pattern, tick)
    tick()
    return [(after - before) * 1e3 for before, after in pairwise(marks)]


def in_total(parts: Sequence[float]) -> list[float]:
    """The parts of an adaptation -> milliseconds of one with t = 0..T steps."""
    return [so_far + parts[-1] for so_far in accumulate(parts[:-1])]


def on_a_device(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    pattern: str,
    tick: Callable[[], None] | None = None,
) -> None:
    """All that lies between a task's support images and a student ready to predict.

    Views, an adaptation that keeps its last step alone, and the support set's statistics where
    query images are normalised with them. What takes time and memory here takes it on a device.
    """
    support = with_views(episodes.support, setting.views)
    labels = view_labels(episodes.support_labels, setting.views)
    rule = setting.rule(pattern)
    run = adapt(network, meta, support, labels, rule, tick=tick, history=False)
    if setting.inductive and run.start < len(network.body):  # else the prefix has them
        with torch.inference_mode():
            run.statistics(-1)


def table(
    network: Network,
    accuracies: Accuracies,
    times: Mapping[str, Sequence[float]],
    mib: Mapping[str, float],
    predicted: Callable[[str, int], float],
    setting: Setting,
    images: int,
) -> list[Score]:
    """Rows of accuracy and price.

    Args:
        network: the student.
        accuracies: of every pattern and step.
        times: pattern -> milliseconds after t = 0..T steps.
        mib: pattern -> peak memory.
        predicted: milliseconds of a pattern and step, without measuring them.
        setting: steps, rate, ways, views and mode.
        images: of a task, with views.
    """
    rows = []
    for (pattern, step), values in accuracies.items():
        accuracy, ci95 = interval(values)
        macs = cost.adapt_macs(
            network,
            pattern,
            steps=step,
            ways=setting.ways,
            images=images,
            inductive=setting.inductive,
        )
        took, guess = times[pattern][step], predicted(pattern, step)
        rows.append(
            Score(pattern, step, accuracy, ci95, took, guess, macs, mib[pattern], len(values))
        )
    return rows
