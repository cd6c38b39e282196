"""A model that was trained before, under another adaptation setting: scored, not trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables._core.ending import VALIDATION_SEED, allowed, chunks_of, entries, macs
from trainables._core.episodes import Sampler
from trainables._core.evaluate import Setting, interval
from trainables._core.observe import Model, adaptation_of, chosen_of, conclude, in_chunks
from trainables._core.patterns import within
from trainables._core.race import Key, Scored
from trainables._core.scores import Scores, ScoresError
from trainables._core.student import Student

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trainables._core.ending import Outcome
    from trainables._core.episodes import ImageData, TaskShape
    from trainables._core.evaluate import Accuracies
    from trainables._core.observe import Adaptation
    from trainables._core.settings import MethodConfig


class NotScoredError(LookupError):
    """An answer needs a task that was not scored, and nothing is to be computed."""


@dataclass(frozen=True)
class Stored:
    """A choice under epsilon, read from what was scored.

    Attributes:
        pattern: What is updated.
        step: Inner steps.
        accuracy: On all validation tasks, in [0, 1].
        ci95: Half-width of its 95 % interval.
        drop: Accuracy of the reference minus this one.
        adapt_ms: Median time, as measured when it was scored.
        adapt_ms_full: The same of the reference: the pattern of meta-training, all steps.
        adapt_macs: Multiply-accumulates of one adaptation.
        adapt_mib: Peak memory.
        exact: Whether a trial with this epsilon would choose the same. Otherwise it is the
            cheapest of those scored on all tasks, and one that was scored on fewer may do.
        open: Cheaper entries that were not scored on all tasks.
    """

    pattern: str
    step: int
    accuracy: float
    ci95: float
    drop: float
    adapt_ms: float
    adapt_ms_full: float
    adapt_macs: float
    adapt_mib: float
    exact: bool
    open: int


def stored_choice(student: Student, scores: Scores, one: Adaptation, shape: TaskShape) -> Stored:
    """The choice of a setting from the tables alone; nothing is computed.

    Raises:
        NotScoredError: not even the reference was scored with these steps at this rate.
    """
    spec, table = student.spec, scores.accuracies.get(one.rate, {})
    inductive = spec.normalisation == "inductive"
    setting = Setting(one.steps, one.rate, shape.ways, spec.views, inductive)
    keys = entries(allowed(scores.trained, one.patterns), one.steps)
    costs = macs(spec.network(), setting, shape, keys)
    whole = {key for key in keys if len(table.get(key, ())) == scores.tasks}
    reference = (scores.trained, one.steps)
    if reference not in whole:
        msg = f"{scores.trained} was not scored after {one.steps} steps at rate {one.rate:g}."
        raise NotScoredError(msg)
    against = interval(table[reference])[0]
    chunks = in_chunks(table, chunks_of(scores.tasks))

    def score(number: int, wanted: Mapping[str, Sequence[int]]) -> Accuracies:
        asked = [(pattern, step) for pattern, steps in wanted.items() for step in steps]
        if any(key not in chunks[number] for key in asked):
            raise NotScoredError
        return {key: chunks[number][key] for key in asked}

    exact, images = True, shape.ways * shape.queries
    try:
        scored = Scored(score, chunks_of(scores.tasks), keys)
        key = chosen_of(scored, costs, one, scores.trained, images)
    except NotScoredError:
        exact = False
        means = {key: interval(table[key])[0] for key in whole}
        fit = [key for key in whole if within(means[key], against, one.epsilon)]
        key = min(fit, key=lambda k: (costs[k], -means[k], k[1]))
    mean, ci95 = interval(table[key])
    cheaper: list[Key] = [k for k in keys if costs[k] < costs[key] and k not in whole]
    pattern, step = key
    ms, full_ms = (scores.timings[p].ms[t] for p, t in (key, reference))
    return Stored(
        pattern, step, mean, ci95, against - mean, ms, full_ms, costs[key], scores.mib[pattern],
        exact, len(cheaper),
    )  # fmt: skip


@dataclass(frozen=True)
class Again:
    """What a finished trial left of its training."""

    student: Student
    scores: Scores

    @classmethod
    def load(cls, folder: Path, identity: str) -> Again:
        """Reads a trial's directory.

        Raises:
            StudentError: it has no readable student.
            ScoresError: it has no readable scores, or those of another training.
        """
        scores = Scores.load(folder)
        if scores.identity != identity:
            msg = f"{folder} holds the scores of another training."
            raise ScoresError(msg)
        return cls(Student.load(folder / "student"), scores)

    def answer(
        self,
        asked: Sequence[MethodConfig],
        data: ImageData,
        shape: TaskShape,
        *,
        seed: int,
        tasks: int,
        device: str,
    ) -> Outcome:
        """The ending of a trial; what was scored before is not scored again.

        Args:
            asked: The trial's own configuration, then further ones of the same training.
            data: Class-indexed images, the same as in training.
            shape: Ways, shots and queries.
            seed: Of the sweep.
            tasks: Validation tasks.
            device: Where to adapt.
        """
        scores, spec = self.scores, self.student.spec
        model = Model(
            spec.network(),
            {n: p.to(device) for n, p in self.student.params.items()},
            spec,
            scores.trained,
            scores.inner_steps,
            scores.inner_rate,
            Sampler(data.validation, data, shape, device),
            seed + VALIDATION_SEED,
            tasks,
        )
        settings = [adaptation_of(one, scores.inner_steps, scores.inner_rate) for one in asked]
        return conclude(model, settings, scores)
