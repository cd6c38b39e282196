"""One trained model, many adaptation settings: each gets the numbers it would get alone.

A setting is (T, alpha at test, epsilon, set of patterns). Each runs the choice of ``race`` on a
table of its own, but what a table asks for is computed once: accuracies are kept by (rate, chunk
of tasks, pattern, step), and a run of T steps scores the references of all shorter settings of
that rate along. So neither the order of the settings nor what was stored changes any of them.

Maps below the lowest updated layer depend on no rate and are shared among rates; times and memory
are a pattern's own and measured once. Settings that choose the same (pattern, step, rate) are one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from trainables._core.device import relative_error
from trainables._core.drops import drop_in_hardest, right_answers
from trainables._core.ending import (
    Further,
    Outcome,
    Prices,
    allowed,
    as_rows,
    chunks_of,
    entries,
    fixed_batches,
    macs,
    measure,
    metrics_of,
)
from trainables._core.evaluate import Setting
from trainables._core.race import Key, Scored, Terms, complete, race
from trainables._core.scores import Scores
from trainables._core.student import Student

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trainables._core.ending import Metric
    from trainables._core.episodes import Sampler, TaskShape
    from trainables._core.evaluate import Accuracies
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._core.patterns import Score
    from trainables._core.settings import MethodConfig
    from trainables._core.student import StudentSpec

    Price = Callable[[Network, Setting, TaskShape, Iterable[Key]], dict[Key, float]]


@dataclass(frozen=True)
class Adaptation:
    """What may still change after training."""

    steps: int  # T at test
    rate: float  # alpha at test
    epsilon: float
    patterns: str
    choice: str = "race"


def adaptation_of(config: MethodConfig, steps: int, rate: float) -> Adaptation:
    """A configuration's; ``steps`` and ``rate`` of meta-training where it names none at test."""
    test = config.test
    return Adaptation(
        test.steps or steps, test.rate or rate, config.epsilon, config.patterns, config.choice
    )


@dataclass(frozen=True)
class Model:
    """A trained model and the tasks it is judged on."""

    network: Network
    meta: Params
    spec: StudentSpec  # pattern, steps and rate aside
    trained: str  # the pattern of meta-training
    inner_steps: int
    inner_rate: float
    sampler: Sampler
    seed: int
    tasks: int

    def setting(self, steps: int, rate: float) -> Setting:
        """How it adapts with so many steps at this rate."""
        spec = self.spec
        inductive = spec.normalisation == "inductive"
        return Setting(steps, rate, self.sampler.shape.ways, spec.views, inductive)


class Shared:
    """Accuracies of one model by rate and chunk of tasks; each is computed once.

    Args:
        model: What is scored.
        references: Rate -> the steps at which the pattern of meta-training will be asked for.
        known: What was scored before.
    """

    def __init__(
        self, model: Model, references: Mapping[float, Iterable[int]], known: Scores | None = None
    ) -> None:
        self.model = model
        self._references = {rate: set(steps) for rate, steps in references.items()}
        self._sizes = chunks_of(model.tasks)
        self._kept: dict[float, list[Accuracies]] = {}
        for rate, table in (known.accuracies if known else {}).items():
            self._kept[rate] = in_chunks(table, self._sizes)
        self._batches = fixed_batches(model.network, model.sampler, model.seed, model.tasks)

    def table(self, rate: float, keys: Iterable[Key]) -> Scored:
        """An empty table of these entries, filled from what is kept or computed."""
        kept = self._kept.setdefault(rate, [{} for _ in self._sizes])

        def score(number: int, wanted: Mapping[str, Sequence[int]]) -> Accuracies:
            asked = [(pattern, step) for pattern, steps in wanted.items() for step in steps]
            missing = [key for key in asked if key not in kept[number]]
            if missing:
                kept[number] |= self._compute(rate, number, missing, kept[number])
            return {key: kept[number][key] for key in asked}

        return Scored(score, self._sizes, keys)

    def accuracies(self) -> dict[float, dict[Key, torch.Tensor]]:
        """All there is, as far as it goes without a gap from the first task on."""
        return {rate: joined(chunks) for rate, chunks in self._kept.items()}

    def _compute(
        self, rate: float, number: int, missing: Iterable[Key], kept: Accuracies
    ) -> Accuracies:
        model = self.model
        wanted: dict[str, set[int]] = {}
        for pattern, step in missing:
            wanted.setdefault(pattern, set()).add(step)
        if model.trained in wanted:  # all tasks will be asked for: one run of the longest
            references = self._references.get(rate, set())
            wanted[model.trained] |= {t for t in references if (model.trained, t) not in kept}
        asked = {pattern: sorted(steps) for pattern, steps in wanted.items()}
        setting = model.setting(max(map(max, asked.values())), rate)
        found = self._batches.score(model.network, model.meta, setting, number, asked)
        return {key: values.cpu() for key, values in found.items()}


def in_chunks(table: Mapping[Key, torch.Tensor], sizes: Sequence[int]) -> list[Accuracies]:
    """Accuracies ``[n]`` as chunks of tasks; a last chunk that is not whole is left out."""
    chunks: list[Accuracies] = [{} for _ in sizes]
    for key, values in table.items():
        first = 0
        for number, size in enumerate(sizes):
            if first + size <= len(values):
                chunks[number][key] = values[first : first + size]
            first += size
    return chunks


def joined(chunks: Sequence[Accuracies]) -> dict[Key, torch.Tensor]:
    """What ``in_chunks`` took apart."""
    found = {}
    for key in chunks[0] if chunks else ():
        parts: list[torch.Tensor] = []
        for chunk in chunks:
            if key not in chunk:
                break
            parts.append(chunk[key])
        found[key] = torch.cat(parts)
    return found


class Observed(NamedTuple):
    """A setting's choice."""

    number: int
    chosen: Score
    metrics: dict[str, Metric]
    rows: list[Score]
    cost_s: float
    tasks: dict[str, object]


def observe(
    model: Model,
    adaptations: Sequence[Adaptation],
    known: Scores | None = None,
    *,
    price: Price = macs,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[Observed], Scores]:
    """What each setting chooses, and what that means.

    Args:
        model: The trained model.
        adaptations: The settings, none twice; the first is the trial's own.
        known: What was scored of it before, on the same tasks.
        price: What a pattern is chosen by.
        clock: Seconds, for the cost of each.

    Returns:
        One entry for each different choice, in the order of the settings, and all scores.
    """
    references: dict[float, set[int]] = {}
    for one in adaptations:
        references.setdefault(one.rate, set()).add(one.steps)
    shared = Shared(model, references, known)
    prices = Prices(dict(known.timings), dict(known.mib)) if known else Prices()
    longest = max(one.steps for one in adaptations)
    found: dict[tuple[Key, float], Observed] = {}
    raced: dict[int, tuple[Scored, Key, float]] = {}
    # the longest run first, so that shorter settings find their steps scored
    for number in sorted(range(len(adaptations)), key=lambda n: (-adaptations[n].steps, n)):
        began = clock()
        scored, key = decide(shared, adaptations[number], price)
        raced[number] = scored, key, clock() - began
    for number, one in enumerate(adaptations):
        scored, key, spent = raced[number]
        if (key, one.rate) in found:
            continue
        began = clock()
        measuring = model.setting(longest, one.rate)
        args = (model.network, model.meta, model.sampler)
        rows = measure(*args, measuring, model.seed, scored.accuracies(), prices)
        by_key = {(row.pattern, row.step): row for row in rows}
        chosen, full = by_key[key], by_key[model.trained, one.steps]
        metrics = metrics_of(*args, model.setting(one.steps, one.rate), model.seed, chosen, full)
        predicted, measured = zip(*((r.predicted_ms, r.adapt_ms) for r in rows), strict=True)
        metrics["prediction_error"] = relative_error(predicted, measured)
        metrics["normalisation"] = model.spec.normalisation
        accuracies, full_key = scored.accuracies(), (model.trained, one.steps)
        metrics["quality_drop_worst"] = drop_in_hardest(accuracies[full_key], accuracies[key])
        metrics |= prices.told(chosen)
        shape = model.sampler.shape
        images = shape.ways * shape.queries
        answers = right_answers(accuracies, key, full_key, images=images, seed=model.seed)
        spent += clock() - began
        found[key, one.rate] = Observed(number, chosen, metrics, rows, spent, answers)
    scores = Scores(
        model.trained,
        model.inner_steps,
        model.inner_rate,
        model.tasks,
        shared.accuracies(),
        prices.timings,
        prices.mib,
        dict(known.training) if known else {},
    )
    return list(found.values()), scores


def decide(shared: Shared, one: Adaptation, price: Price) -> tuple[Scored, Key]:
    """The choice of one setting, on a table of its own."""
    model = shared.model
    keys = entries(allowed(model.trained, one.patterns), one.steps)
    scored = shared.table(one.rate, keys)
    shape = model.sampler.shape
    costs = price(model.network, model.setting(one.steps, one.rate), shape, keys)
    return scored, chosen_of(scored, costs, one, model.trained, shape.ways * shape.queries)


def chosen_of(
    scored: Scored, costs: Mapping[Key, float], one: Adaptation, trained: str, images: int
) -> Key:
    """The cheapest entry within epsilon, by race or from the whole table.

    Args:
        scored: The table.
        costs: Of each of its entries.
        one: The setting.
        trained: The pattern of meta-training, which accuracy lost is measured against.
        images: Query images of a task.
    """
    if one.choice == "table":
        complete(scored)  # a race on it decides as the table does
    return race(scored, costs, Terms((trained, one.steps), one.epsilon, images))


def conclude(
    model: Model,
    adaptations: Sequence[Adaptation],
    known: Scores | None = None,
    *,
    price: Price = macs,
) -> Outcome:
    """The ending of every method: the student under its own setting, and further ones."""
    observed, scores = observe(model, adaptations, known, price=price)

    def spec(one: Observed) -> StudentSpec:
        return model.spec.model_copy(
            update={
                "pattern": one.chosen.pattern,
                "inner_steps": one.chosen.step,
                "inner_rate": adaptations[one.number].rate,
            }
        )

    first, *rest = observed
    cpu = {n: p.cpu().clone() for n, p in model.meta.items()}
    outcome = Outcome(
        first.metrics,
        as_rows(first.rows),
        Student(spec(first), cpu),
        tuple(
            Further(
                one.number - 1, one.metrics, as_rows(one.rows), spec(one), one.cost_s, one.tasks
            )
            for one in rest
        ),
        scores,
        first.tasks,
    )
    return told_of_training(outcome, scores.training)


def told_of_training(outcome: Outcome, metrics: Mapping[str, float]) -> Outcome:
    """Adds what holds of the training, whatever the adaptation at test; kept with the scores."""
    for known in (outcome.metrics, *(one.metrics for one in outcome.further)):
        known.update(metrics)
        if "teacher_accuracy" in metrics:  # the teacher met the same tasks
            own = cast("float", known["accuracy"])
            known["quality_drop_teacher"] = metrics["teacher_accuracy"] - own
    if outcome.scores is not None:
        outcome.scores.training.update(metrics)
    return outcome
