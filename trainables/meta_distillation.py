"""Task-specific meta distillation (TSMD): a large teacher adapts first, then guides the student.

Wu et al., WACV 2023 (arXiv 2210.09922), as told by summaries of the paper where its text is not
available to us (``methods.md``, section 2):

    teacher inner:  psi'   = psi   - alpha_T grad_psi CE(psi; S)
    student inner:  theta' = theta - alpha grad_theta [ CE(theta; S) + w KD(psi', theta; S) ]
    outer:          min_psi sum CE(psi'; Q)    and    min_theta sum CE(theta'; Q)
    KD = tau^2 KL(softmax(zT / tau) || softmax(zS / tau)), or relational (Park et al. 2019)

The teacher is fully adapted before the student's first step, so its logits are detached and its
own trajectory is plain MAML. Weight, tau, steps and rates are our defaults. Where we add to the
paper: ``distillation.outer`` puts w KD on the query images into the student's outer loss too (0:
the paper); ``teacher.pretrain`` lets the teacher learn alone for a share of extra meta-iterations;
``views`` shows every support image a few more times.

A device adapts without its teacher, so the (pattern, step) table is the student's adaptation
alone; ``guided_accuracy`` is the same tasks with the adapted teacher at the student's side.

Baselines as settings: ``student`` (MAML on the student alone), ``fixed_teacher`` (the teacher is
not meta-updated once the student starts, and KD alone drives the inner loop), ``oracle`` (MAML on
the teacher, scored as if it were the student).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, final

from pydantic import Field, model_validator
from typing_extensions import override

from trainables._core.cost import known_before
from trainables._core.ending import VALIDATION_SEED, Outcome
from trainables._core.evaluate import interval
from trainables._core.guidance import (
    Teacher,
    build_teacher,
    guided_accuracies,
    guided_step,
    teacher_step,
)
from trainables._core.networks import teacher as teacher_network
from trainables._core.observe import told_of_training
from trainables._core.outer import MetaOptimiser
from trainables._core.rig import (
    Training,
    finish,
    maml_update,
    quick_accuracy,
    restore,
    snapshot,
    student_network,
    student_rig,
)
from trainables._core.settings import Frozen, MethodConfig
from trainables._learner import Learner, parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._core.episodes import ImageData, TaskShape
    from trainables._learner import RunSettings, Value


class TeacherSettings(Frozen):
    """The large network that guides; the paper's is a ResNet-50, ours starts smaller.

    Attributes:
        kind: Architecture of the teacher.
        width: Filters of the blocks of ``conv4``, of the first stage of a ResNet.
        inner_steps: Inner steps in which the teacher adapts.
        inner_rate: Inner learning rate of the teacher.
        order: Order of the teacher's meta-gradient, as ``order``.
        pretrain: Meta-iterations in which the teacher learns alone, before its student starts, as a
            share of ``budget.iterations`` that comes on top of them.
    """

    kind: Literal["conv4", "resnet12", "resnet18", "resnet50"] = "conv4"
    width: int = Field(default=64, ge=1, le=1024)
    inner_steps: int = Field(default=3, ge=1, le=100)
    inner_rate: float = Field(default=0.1, gt=0, le=10)
    order: Literal["second", "first"] = "first"
    pretrain: float = Field(default=0.25, ge=0, lt=1)


class DistillationSettings(Frozen):
    """What of the teacher the student is told, and how loudly.

    Attributes:
        loss: What the inner loop compares: both networks' softened classes (``kl``), the distances
            between a task's images (``relational``), or nothing.
        weight: Weight of that loss beside the labels' in the inner loop.
        temperature: Softens both networks' classes before they are compared.
        outer: Weight of the teacher's word on query images in the outer loss; 0: the paper, which
            distils on the support set alone.
    """

    loss: Literal["kl", "relational", "none"] = "kl"
    weight: float = Field(default=0.1, ge=0, le=100)
    temperature: float = Field(default=4.0, gt=0, le=100)
    outer: float = Field(default=1.0, ge=0, le=100)


class MetaDistillationConfig(MethodConfig):
    """A student, its teacher and what passes between them.

    Attributes:
        baseline: ``tsmd`` is the method; ``student`` MAML on the student alone, ``fixed_teacher`` a
            teacher that learns in its head start alone and whose word drives the inner loop by
            itself, ``oracle`` MAML on the teacher, scored as if it were the student.
    """

    teacher: TeacherSettings = TeacherSettings()
    distillation: DistillationSettings = DistillationSettings()
    baseline: Literal["tsmd", "student", "fixed_teacher", "oracle"] = "tsmd"

    @model_validator(mode="after")
    def _a_fixed_teacher_teaches(self) -> MetaDistillationConfig:
        """KD alone drives a fixed teacher's student, and nobody trains that teacher later."""
        if self.baseline == "fixed_teacher" and self.distillation.loss == "none":
            msg = (
                "with baseline fixed_teacher distillation alone drives the inner loop, so "
                "distillation.loss must be kl or relational"
            )
            raise ValueError(msg)
        if self.baseline == "fixed_teacher" and self.teacher.pretrain == 0:
            msg = (
                "with baseline fixed_teacher the teacher learns in its head start alone, so "
                "teacher.pretrain must be above 0"
            )
            raise ValueError(msg)
        return self


@final
class MetaDistillation(Learner):
    """A student meta-trained beside a teacher, or one of the paper's baselines."""

    Config: ClassVar[type[MethodConfig]] = MetaDistillationConfig

    def __init__(
        self, config: Mapping[str, Value], data: ImageData, shape: TaskShape, run: RunSettings
    ) -> None:
        self.config = settings = parse(config)
        self.run = run
        self.ahead = 0
        if settings.baseline != "student":
            self.teacher: Teacher | None = build_teacher(
                settings.teacher,
                settings,
                data,
                shape,
                seed=run.seed,
                device=run.device,
                halvings=run.halvings,
                iterations=teacher_iterations(settings, run),
            )
        else:
            self.teacher = None
        if settings.baseline == "oracle" and self.teacher is not None:
            self.rig, self.outer = self.teacher.rig, self.teacher.outer
        else:
            self.rig = student_rig(
                settings, data, shape, seed=run.seed, device=run.device, halvings=run.halvings
            )
            self.outer = MetaOptimiser(self.rig.meta, settings.outer_rate, run.iterations)
            self.ahead = head_start(settings, run)

    @property
    def guide(self) -> Teacher | None:
        """The teacher, where there is a student for it to guide."""
        return None if self.config.baseline in ("student", "oracle") else self.teacher

    @override
    def step(self) -> dict[str, float]:
        guide = self.guide
        while guide is not None and self.ahead:  # its head start before the student's first step
            with Training(self.rig):
                teacher_step(guide, guide.rig.episodes())
            self.ahead -= 1
        with Training(self.rig):
            if guide is None:
                return maml_update(self.rig, self.outer, self.rig.episodes())[1]
            return guided_step(
                self.rig,
                self.outer,
                guide,
                self.config.distillation,
                teacher_learns=self.config.baseline == "tsmd",
            )

    @override
    def validate(self) -> dict[str, float]:
        tasks, seed = self.run.quick_tasks, self.run.seed
        found = {"accuracy": quick_accuracy(self.rig, tasks, seed)}
        if self.teacher is not None:
            found["teacher_accuracy"] = quick_accuracy(self.teacher.rig, tasks, seed)
        return found

    @override
    def finish(self, further: Sequence[Mapping[str, Value]] = ()) -> Outcome:
        tasks, seed = self.run.validation_tasks, self.run.seed
        parsed = [parse(one) for one in further]
        outcome = finish(self.rig, tasks=tasks, offset=seed, further=parsed)
        known: dict[str, float] = {}
        if self.teacher is not None:
            known["teacher_accuracy"] = quick_accuracy(self.teacher.rig, tasks, seed)
        if self.guide is not None:
            values = guided_accuracies(
                self.rig,
                self.guide,
                self.config.distillation,
                self.rig.validation,
                seed=seed + VALIDATION_SEED,
                tasks=tasks,
                with_labels=self.config.baseline == "tsmd",
            )
            known["guided_accuracy"] = interval(values)[0]
        return told_of_training(outcome, known)

    @override
    def state_dict(self) -> dict[str, Any]:
        state = {"student": snapshot(self.rig, self.outer), "ahead": self.ahead}
        if self.guide is not None:
            state["teacher"] = snapshot(self.guide.rig, self.guide.outer)
        return state

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self.rig, self.outer, state["student"])
        self.ahead = state["ahead"]
        if self.guide is not None:
            restore(self.guide.rig, self.guide.outer, state["teacher"])

    @classmethod
    @override
    def cheap(
        cls, config: Mapping[str, Value], *, channels: int, size: int, ways: int
    ) -> dict[str, float]:
        parsed = parse(config)
        student = parsed.student
        network = student_network(student, channels=channels, size=size, ways=ways)
        if parsed.baseline != "student":  # a teacher that does not fit the images is said here too
            guide = teacher_network(
                parsed.teacher.kind,
                (channels, size, size),
                width=parsed.teacher.width,
                norm=student.norm,
                head=student.head,
                ways=ways,
            )
            network = guide if parsed.baseline == "oracle" else network
        return known_before(network, ways)


def head_start(config: MetaDistillationConfig, run: RunSettings) -> int:
    """Meta-iterations of the teacher alone, before and on top of the student's."""
    if config.baseline in ("student", "oracle"):
        return 0
    return math.ceil(config.teacher.pretrain * run.iterations)


def teacher_iterations(config: MetaDistillationConfig, run: RunSettings) -> int:
    """How many meta-iterations the teacher's outer rate falls over."""
    ahead = head_start(config, run)
    return ahead if config.baseline == "fixed_teacher" else run.iterations + ahead


def parse(config: Mapping[str, Value]) -> MetaDistillationConfig:
    """The typed configuration.

    Raises:
        ConfigError: a parameter is unknown or has an impossible value.
    """
    return cast("MetaDistillationConfig", parse_config(MetaDistillation, config))


LEARNER = MetaDistillation
