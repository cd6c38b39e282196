"""Lambda patterns: a meta-trained model, and which of its layers adaptation needs to update.

Khabarlak 2022 (arXiv 2206.05930):

    w_l^(t+1) = w_l^(t) - alpha Lambda_l grad_{w_l} loss(w^(t); S),     Lambda in {0,1}^L, not all 0
    feasible = {Lambda : A(full) - A(Lambda) <= epsilon};  fastest = argmin cost over feasible

The model is a ``checkpoint`` (a student's folder: a bundle or a finished trial's) or, without
one, MAML trained here first. Where we differ from the paper: steps are chosen together with the
pattern, cost is exact multiply-accumulates with the time measured beside it, and the layers
below the lowest updated one run once for all steps.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

import torch
from typing_extensions import override

from trainables._core.cost import known_before
from trainables._core.evaluate import adapted
from trainables._core.outer import MetaOptimiser, query_logits, task_loss
from trainables._core.rig import (
    Rig,
    Training,
    build,
    finish,
    maml_update,
    quick_accuracy,
    restore,
    snapshot,
    student_network,
    student_rig,
)
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._core.student import Student, StudentError
from trainables._learner import ConfigError, Learner, parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._core.ending import Outcome
    from trainables._core.episodes import ImageData, TaskShape
    from trainables._learner import RunSettings, Value


class LambdaConfig(MethodConfig):
    """MAML's settings, or a model that needs no training.

    Attributes:
        checkpoint: Folder of a meta-trained student; empty: MAML trains one first.
    """

    checkpoint: str = ""


@final
class LambdaAdaptation(Learner):
    """The patterns of one meta-trained model."""

    Config: ClassVar[type[MethodConfig]] = LambdaConfig

    def __init__(
        self, config: Mapping[str, Value], data: ImageData, shape: TaskShape, run: RunSettings
    ) -> None:
        self.config = cast("LambdaConfig", parse_config(type(self), config))
        self.run = run
        self.given = bool(self.config.checkpoint)
        if self.given:
            self.rig = rig_of_checkpoint(self.config, data, shape, run)
        else:
            self.rig = student_rig(
                self.config, data, shape, seed=run.seed, device=run.device, halvings=run.halvings
            )
        self.outer = MetaOptimiser(self.rig.meta, self.config.outer_rate, run.iterations)

    @override
    def step(self) -> dict[str, float]:
        if self.given:
            return {"loss": self._watched_loss}
        with Training(self.rig):
            return maml_update(self.rig, self.outer, self.rig.episodes())[1]

    @cached_property
    @torch.no_grad()
    def _watched_loss(self) -> float:
        """A given model does not train; its loss on one meta-batch is there to be looked at."""
        rig = self.rig
        episodes = rig.sized(rig.episodes())
        run = adapted(rig.network, rig.meta, episodes, rig.setting, rig.pattern)
        z = query_logits(run, episodes.query, inductive=rig.setting.inductive)
        return float(task_loss(z, episodes.query_labels))

    @override
    def validate(self) -> dict[str, float]:
        return {"accuracy": quick_accuracy(self.rig, self.run.quick_tasks, self.run.seed)}

    @override
    def finish(self, further: Sequence[Mapping[str, Value]] = ()) -> Outcome:
        parsed = [parse_config(type(self), one) for one in further]
        tasks, offset = self.run.validation_tasks, self.run.seed
        return finish(self.rig, tasks=tasks, offset=offset, further=parsed)

    @override
    def state_dict(self) -> dict[str, Any]:
        return snapshot(self.rig, self.outer)

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self.rig, self.outer, state)

    @classmethod
    @override
    def cheap(
        cls, config: Mapping[str, Value], *, channels: int, size: int, ways: int
    ) -> dict[str, float]:
        parsed = cast("LambdaConfig", parse_config(cls, config))
        if parsed.checkpoint:
            given = given_student(parsed.checkpoint, channels=channels, size=size)
            return known_before(given.spec.network(), ways)
        return known_before(
            student_network(parsed.student, channels=channels, size=size, ways=ways), ways
        )


def given_student(folder: str, *, channels: int, size: int) -> Student:
    """The student in a folder.

    Raises:
        ConfigError: there is none, or it reads other images.
    """
    try:
        student = Student.load(Path(folder).expanduser())
    except StudentError as error:
        msg = f"checkpoint: {error}"
        raise ConfigError(msg) from error
    spec = student.spec
    if (spec.channels, spec.size) != (channels, size):
        msg = (
            f"checkpoint: the student in {folder} reads {spec.channels}-channel images of "
            f"{spec.size} px, and the data are {channels}-channel images of {size} px; set "
            f"data.channels and data.size to the student's."
        )
        raise ConfigError(msg)
    return student


def rig_of_checkpoint(
    config: LambdaConfig, data: ImageData, shape: TaskShape, run: RunSettings
) -> Rig:
    """A given student, ready to be adapted.

    Rate, views and normalisation are the student's own unless the configuration sets them.

    Raises:
        ConfigError: the folder holds no student, or one for other images.
    """
    student = given_student(config.checkpoint, channels=data.channels, size=data.size)
    spec = student.spec
    own = StudentSettings(
        width=spec.width,
        depth=spec.depth,
        size=spec.input_size,
        norm=spec.norm,
        head=spec.head,
        down=spec.down,
    )
    kept = {
        name: getattr(spec, name)
        for name in ("views", "normalisation", "inner_rate")
        if name not in config.model_fields_set
    }
    settled = config.model_copy(update={"student": own, **kept})
    rig = build(
        spec.network(),
        spec.kind,
        spec.width,
        settled,
        data,
        shape,
        seed=run.seed,
        device=run.device,
        halvings=run.halvings,
    )
    rig.meta = {n: p.to(run.device) for n, p in student.params.items()}
    return rig


LEARNER = LambdaAdaptation
