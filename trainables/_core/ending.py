"""How every method ends: the (pattern, step) table, the choice under epsilon, the test score."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from trainables._core import evaluate
from trainables._core.cost import adapt_macs, known_before
from trainables._core.device import fingerprint, predict, profile_here, relative_error
from trainables._core.drops import drop_in_hardest, right_answers
from trainables._core.episodes import Episodes, Sampler, resized
from trainables._core.evaluate import Batches
from trainables._core.lease import node
from trainables._core.memory import adapt_mib
from trainables._core.patterns import candidates, choose, first_updated
from trainables._core.race import Scored, Terms, complete, race
from trainables._core.timing import repeated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainables._core.episodes import ImageData, TaskShape
    from trainables._core.evaluate import Accuracies, Setting
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._core.patterns import Score
    from trainables._core.race import Key
    from trainables._core.student import Student
    from trainables._core.timing import Timed

CHUNK = 8  # tasks scored at once: beyond, caches overflow; measured
VALIDATION_SEED, TEST_SEED, FRESH_SEED = 1_000_003, 2_000_003, 3_000_003

Metric = float | int | str | None
Price = Callable[["Network", "Setting", "TaskShape", Iterable["Key"]], dict["Key", float]]


@dataclass(frozen=True)
class Outcome:
    """What a finished trial hands over."""

    metrics: dict[str, Metric]
    table: list[dict[str, Metric]]
    student: Student
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
    size = network.into[-1]
    parts = sampler.parts(seed, tasks, CHUNK)
    batches = Batches(lambda number: next(at_size(iter([sampler.episodes(parts[number])]), size)))
    return Scored(
        lambda number, wanted: batches.score(network, meta, setting, number, wanted),
        [len(part) for part in parts],
        [(p, t) for p in sorted(patterns, key=first_updated) for t in range(1, setting.steps + 1)],
    )


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


def measure(
    network: Network,
    meta: Params,
    sampler: Sampler,
    setting: Setting,
    seed: int,
    accuracies: Accuracies,
) -> tuple[list[Score], dict[str, Timed]]:
    """The rows of what was scored, each pattern's time and memory measured on the first task.

    Returns:
        The rows, and what is known of each pattern's time; taken with the node's lease held.
    """
    one = next(at_size(sampler.fixed(seed, 1, 1), network.into[-1]))
    patterns = dict.fromkeys(pattern for pattern, _ in accuracies)
    laps = lambda p: evaluate.total_laps(network, meta, one, setting, p)  # noqa: E731
    with node().shared():
        mib = {p: adapt_mib(network, meta, one, setting, p) for p in patterns}
    with node().exclusive() as alone:
        times = {p: repeated(partial(laps, p), alone=alone) for p in patterns}
        profile = profile_here(one.support.device)
    images = one.support.shape[1] * (1 + setting.views)

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

    medians = {p: time.ms for p, time in times.items()}
    rows = evaluate.table(network, accuracies, medians, mib, predicted, setting, images)
    return [_with_spread(row, times[row.pattern]) for row in rows], times


def _with_spread(row: Score, time: Timed) -> Score:
    return replace(row, adapt_ms_p95=time.p95[row.step], adapt_ms_spread=time.spread)


def conclude(
    network: Network,
    meta: Params,
    sampler: Sampler,
    setting: Setting,
    *,
    seed: int,
    tasks: int,
    epsilon: float,
    which: str,
    trained: str,
    by: str = "race",
    price: Price = macs,
) -> tuple[dict[str, Metric], list[Score], dict[str, object]]:
    """The metrics every method reports, the table as far as the choice needed it, right answers.

    Times are one task at a time on this device; a pattern is chosen by its ``price``, which is
    multiply-accumulates here. Whether found by a ``race`` or from the whole ``table``, the chosen
    pattern and the reference are scored on all tasks.
    """
    patterns = allowed(trained, which)
    scored = scored_tasks(
        network, meta, sampler, setting, seed=seed, tasks=tasks, patterns=patterns
    )
    costs = price(network, setting, sampler.shape, scored.keys)
    if by == "race":
        images = sampler.shape.ways * sampler.shape.queries
        terms = Terms((trained, setting.steps), epsilon, images)
        race(scored, costs, terms)
    else:
        complete(scored)
    accuracies = scored.accuracies()
    rows, times = measure(network, meta, sampler, setting, seed, accuracies)
    cost = lambda row: costs[row.pattern, row.step]  # noqa: E731
    chosen, full = choose(rows, epsilon, reference=trained, cost=cost)
    metrics = metrics_of(network, meta, sampler, setting, seed, chosen, full)
    best, reference = (chosen.pattern, chosen.step), (full.pattern, full.step)
    metrics["quality_drop_worst"] = drop_in_hardest(accuracies[reference], accuracies[best])
    images = sampler.shape.ways * sampler.shape.queries
    answers = right_answers(accuracies, best, reference, images=images, seed=seed)
    metrics["adapt_timing"] = times[chosen.pattern].verdict
    metrics["timed_on"] = fingerprint(torch.device(sampler.device)).text()
    predicted, measured = zip(*((row.predicted_ms, row.adapt_ms) for row in rows), strict=True)
    return metrics | {"prediction_error": relative_error(predicted, measured)}, rows, answers


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
        "adapt_ms_p95": chosen.adapt_ms_p95,
        "adapt_ms_spread": chosen.adapt_ms_spread,
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
