"""What every method's end is made of: the (pattern, step) table, its prices, the test score."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from trainables._core import evaluate
from trainables._core.cost import adapt_macs, known_before
from trainables._core.device import fingerprint, predict, profile_here
from trainables._core.episodes import Episodes, Sampler, resized
from trainables._core.evaluate import Batches
from trainables._core.lease import node
from trainables._core.memory import adapt_mib
from trainables._core.patterns import candidates, first_updated
from trainables._core.race import Scored
from trainables._core.timing import repeated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from trainables._core.episodes import ImageData, TaskShape
    from trainables._core.evaluate import Accuracies, Setting
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._core.patterns import Score
    from trainables._core.race import Key
    from trainables._core.scores import Scores
    from trainables._core.student import Student, StudentSpec
    from trainables._core.timing import Timed

CHUNK = 8  # tasks scored at once: beyond, caches overflow; measured
VALIDATION_SEED, TEST_SEED, FRESH_SEED = 1_000_003, 2_000_003, 3_000_003

Metric = float | int | str | None


@dataclass(frozen=True)
class Further:
    """The same trained model under another adaptation setting."""

    number: int  # of the setting, in the order asked
    metrics: dict[str, Metric]
    table: list[dict[str, Metric]]
    spec: StudentSpec
    cost_s: float  # what it took beside the others
    tasks: dict[str, object] = field(default_factory=dict)  # right answers, see ``drops``


@dataclass(frozen=True)
class Outcome:
    """What a finished trial hands over."""

    metrics: dict[str, Metric]
    table: list[dict[str, Metric]]
    student: Student
    further: tuple[Further, ...] = ()
    scores: Scores | None = None
    tasks: dict[str, object] = field(default_factory=dict)  # right answers, see ``drops``


def at_size(tasks: Iterator[Episodes], size: int) -> Iterator[Episodes]:
    """The same episodes with images of ``size`` px."""
    for e in tasks:
        yield replace(e, support=resized(e.support, size), query=resized(e.query, size))


def trained_pattern(network: Network, adapts: str) -> str:
    """The pattern of meta-training: all layers, the head (ANIL) or the body (BOIL)."""
    depth = len(network.body)
    return {"all": "1" * (depth + 1), "head": "0" * depth + "1", "body": "1" * depth + "0"}[adapts]


def allowed(trained: str, which: str) -> list[str]:
    """The patterns a model may be adapted with, the one it was trained with among them.

    Layers that meta-training never adapted (ANIL's body, BOIL's head) stay as they are.

    >>> allowed("110", "all")
    ['010', '100', '110']
    """
    within = [
        p
        for p in candidates(len(trained), which)
        if all(t == "1" for bit, t in zip(p, trained, strict=True) if bit == "1")
    ]
    return within if trained in within else [*within, trained]


def scored_tasks(
    network: Network,
    meta: Params,
    sampler: Sampler,
    setting: Setting,
    *,
    seed: int,
    tasks: int,
    patterns: Iterable[str],
) -> Scored:
    """An empty table of ``patterns`` and steps over ``tasks`` fixed tasks, to be filled."""
    batches = fixed_batches(network, sampler, seed, tasks)
    return Scored(
        lambda number, wanted: batches.score(network, meta, setting, number, wanted),
        chunks_of(tasks),
        entries(patterns, setting.steps),
    )


def fixed_batches(network: Network, sampler: Sampler, seed: int, tasks: int) -> Batches:
    """The tasks of a seed, in numbered batches at the network's size."""
    size, parts = network.into[-1], sampler.parts(seed, tasks, CHUNK)
    return Batches(lambda number: next(at_size(iter([sampler.episodes(parts[number])]), size)))


def chunks_of(tasks: int) -> list[int]:
    """How many tasks each batch holds.

    >>> chunks_of(20)
    [8, 8, 4]
    """
    return [min(CHUNK, tasks - first) for first in range(0, tasks, CHUNK)]


def entries(patterns: Iterable[str], steps: int) -> list[Key]:
    """Every (pattern, step) of a table, patterns with the same frozen prefix side by side."""
    return [(p, t) for p in sorted(patterns, key=first_updated) for t in range(1, steps + 1)]


def macs(
    network: Network, setting: Setting, shape: TaskShape, keys: Iterable[Key]
) -> dict[Key, float]:
    """The cost that a pattern is chosen by: exact multiply-accumulates of one adaptation."""
    images = shape.ways * shape.shots * (1 + setting.views)
    return {
        (pattern, step): adapt_macs(
            network,
            pattern,
            steps=step,
            ways=setting.ways,
            images=images,
            inductive=setting.inductive,
        )
        for pattern, step in keys
    }


@dataclass(frozen=True)
class Prices:
    """What patterns take, whatever their rate: measured once each, on the first task."""

    timings: dict[str, Timed] = field(default_factory=dict)  # by pattern
    mib: dict[str, float] = field(default_factory=dict)

    @property
    def times(self) -> dict[str, tuple[float, ...]]:
        """Pattern -> milliseconds after t = 0..T steps."""
        return {pattern: time.ms for pattern, time in self.timings.items()}

    def include(
        self, network: Network, meta: Params, one: Episodes, setting: Setting, pattern: str
    ) -> None:
        """Measures a pattern, unless it has been with as many steps."""
        known = self.timings.get(pattern)
        if known is None or len(known.ms) <= setting.steps:
            laps = partial(evaluate.total_laps, network, meta, one, setting, pattern)
            with node().exclusive() as alone:
                found = repeated(laps, alone=alone)
            where = fingerprint(one.support.device).text()
            self.timings[pattern] = replace(found, device=where)
        if pattern not in self.mib:
            with node().shared():
                self.mib[pattern] = adapt_mib(network, meta, one, setting, pattern)

    def with_spread(self, row: Score) -> Score:
        """A row with the spread of its time."""
        time = self.timings[row.pattern]
        return replace(row, adapt_ms_p95=time.p95[row.step], adapt_ms_spread=time.spread)

    def told(self, row: Score) -> dict[str, Metric]:
        """What is known of how a time was taken."""
        time = self.timings[row.pattern]
        return {
            "adapt_ms_p95": row.adapt_ms_p95,
            "adapt_ms_spread": row.adapt_ms_spread,
            "adapt_timing": time.verdict,
            "timed_on": time.device,
        }


def measure(
    network: Network,
    meta: Params,
    sampler: Sampler,
    setting: Setting,
    seed: int,
    accuracies: Accuracies,
    prices: Prices | None = None,
) -> list[Score]:
    """The rows of what was scored, each pattern's time and memory measured on the first task.

    What ``prices`` holds already is not measured again, and what is measured is put there.
    """
    one = next(at_size(sampler.fixed(seed, 1, 1), network.into[-1]))
    prices = Prices() if prices is None else prices
    for pattern in dict.fromkeys(pattern for pattern, _ in accuracies):
        prices.include(network, meta, one, setting, pattern)
    images = one.support.shape[1] * (1 + setting.views)
    profile = profile_here(one.support.device)

    def predicted(pattern: str, step: int) -> float:
        return predict(
            profile,
            network,
            pattern,
            steps=step,
            ways=setting.ways,
            images=images,
            inductive=setting.inductive,
        )

    rows = evaluate.table(network, accuracies, prices.times, prices.mib, predicted, setting, images)
    return [prices.with_spread(row) for row in rows]


def metrics_of(
    network: Network,
    meta: Params,
    sampler: Sampler,
    setting: Setting,
    seed: int,
    chosen: Score,
    full: Score,
) -> dict[str, Metric]:
    """What a choice means; the chosen pattern is also scored in the other normalisation mode."""
    other = replace(setting, inductive=not setting.inductive)
    beside = evaluate.score(
        network,
        meta,
        at_size(sampler.fixed(seed, chosen.tasks, CHUNK), network.into[-1]),
        other,
        {chosen.pattern: [chosen.step]},
    )
    name = "accuracy_transductive" if setting.inductive else "accuracy_inductive"
    return {
        "accuracy": chosen.accuracy,
        "accuracy_ci95": chosen.ci95,
        "accuracy_full": full.accuracy,
        "quality_drop": full.accuracy - chosen.accuracy,
        "pattern": chosen.pattern,
        "inner_steps": chosen.step,
        "adapt_ms": chosen.adapt_ms,
        "adapt_speedup": full.adapt_ms / chosen.adapt_ms,
        "adapt_macs": chosen.adapt_macs,
        "adapt_mib": chosen.adapt_mib,
        **known_before(network, setting.ways),
        name: evaluate.interval(beside[chosen.pattern, chosen.step])[0],
    }


def as_rows(table: list[Score]) -> list[dict[str, Metric]]:
    """The table as plain rows for JSON."""
    return [asdict(row) for row in table]


def score_on_test_classes(
    student: Student,
    data: ImageData,
    shape: TaskShape,
    *,
    tasks: int,
    seed: int,
    device: str = "cpu",
) -> dict[str, Metric]:
    """The chosen pattern on classes nobody has selected on; called once, at the very end.

    Args:
        student: the finished student.
        data: the data set whose test classes are drawn from.
        shape: ways, shots and queries.
        tasks: number of test tasks.
        seed: of the sweep; the tasks are the same for every student of it.
        device: where to adapt.

    Returns:
        ``test_accuracy`` and ``test_accuracy_ci95`` (half-width).
    """
    sampler = Sampler(data.test, data, shape, device)
    values = student_accuracies(student, sampler, seed + TEST_SEED, tasks)
    mean, ci95 = evaluate.interval(values)
    return {"test_accuracy": mean, "test_accuracy_ci95": ci95}


def score_on_fresh_tasks(
    student: Student,
    data: ImageData,
    shape: TaskShape,
    *,
    tasks: int,
    seed: int,
    device: str = "cpu",
) -> dict[str, Metric]:
    """The chosen pattern on validation tasks that nothing was chosen by.

    Args:
        student: the finished student.
        data: the data set whose validation classes are drawn from.
        shape: ways, shots and queries.
        tasks: number of tasks.
        seed: of the sweep; the tasks are the same for every student of it.
        device: where to adapt.

    Returns:
        ``fresh_accuracy`` and ``fresh_accuracy_ci95`` (half-width).
    """
    sampler = Sampler(data.validation, data, shape, device)
    mean, ci95 = evaluate.interval(student_accuracies(student, sampler, seed + FRESH_SEED, tasks))
    return {"fresh_accuracy": mean, "fresh_accuracy_ci95": ci95}


def student_accuracies(student: Student, sampler: Sampler, seed: int, tasks: int) -> torch.Tensor:
    """Accuracy of every task ``[tasks]`` with the student's own pattern and steps."""
    spec = student.spec
    network, meta = spec.network(), {n: p.to(sampler.device) for n, p in student.params.items()}
    episodes = at_size(sampler.fixed(seed, tasks, CHUNK), spec.input_size)
    setting = spec.setting(sampler.shape.ways)
    found = evaluate.score(network, meta, episodes, setting, {spec.pattern: [spec.inner_steps]})
    return next(iter(found.values()))
