"""A teacher beside the student: built, meta-trained, adapted, listened to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from trainables._core import distill, evaluate, networks
from trainables._core.adapt import HEAD_B, HEAD_W, adapt, cross_entropy
from trainables._core.ending import CHUNK
from trainables._core.heads import logits as head_logits
from trainables._core.outer import MetaOptimiser, query_logits, task_loss
from trainables._core.rig import Rig, build, maml_update, said_of
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._core.views import view_labels, with_views

if TYPE_CHECKING:
    from trainables._core.adapt import Adapted, InnerLoss
    from trainables._core.episodes import Episodes, ImageData, Sampler, TaskShape


class TeacherSettings(Protocol):
    """What building a teacher reads."""

    @property
    def kind(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def inner_steps(self) -> int: ...
    @property
    def inner_rate(self) -> float: ...
    @property
    def order(self) -> str: ...


class Distillation(Protocol):
    """What passes between teacher and student."""

    @property
    def loss(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def outer(self) -> float: ...


@dataclass
class Teacher:
    """A large network meta-trained by plain MAML on the student's own episodes."""

    rig: Rig
    outer: MetaOptimiser


@dataclass(frozen=True)
class Words:
    """What the adapted teacher says, detached: logits ``[B, M, N]`` and features ``[B, M, F]``."""

    logits: torch.Tensor
    features: torch.Tensor


def build_teacher(
    settings: TeacherSettings,
    config: MethodConfig,
    data: ImageData,
    shape: TaskShape,
    *,
    seed: int,
    device: str,
    iterations: int,
) -> Teacher:
    """A fresh teacher; it reads the data's own size and shares norm, head and outer rate.

    Raises:
        ValueError: the images are too small for it.
    """
    own = MethodConfig(
        student=StudentSettings(
            width=settings.width, norm=config.student.norm, head=config.student.head
        ),
        inner_steps=settings.inner_steps,
        inner_rate=settings.inner_rate,
        order="first" if settings.order == "first" else "second",
        outer_rate=config.outer_rate,
        meta_batch=config.meta_batch,
        normalisation=config.normalisation,
        epsilon=config.epsilon,
        patterns=config.patterns,
    )
    network = networks.teacher(
        settings.kind,
        (data.channels, data.size, data.size),
        width=settings.width,
        norm=own.student.norm,
        head=own.student.head,
        ways=shape.ways,
    )
    rig = build(
        network, settings.kind, settings.width, own, data, shape, seed=seed + 2, device=device
    )
    return Teacher(rig, MetaOptimiser(rig.meta, own.outer_rate, iterations))


def teacher_step(teacher: Teacher, episodes: Episodes) -> tuple[Adapted, dict[str, float]]:
    """One meta-iteration of the teacher; the adapted one is what the student will hear."""
    return maml_update(teacher.rig, teacher.outer, episodes)


def adapted_teacher(teacher: Teacher, episodes: Episodes) -> Adapted:
    """The teacher adapted without learning from it."""
    rig = teacher.rig
    sized = rig.sized(episodes)
    return adapt(
        rig.network, rig.meta, sized.support, sized.support_labels, rig.setting.rule(rig.pattern)
    )


@torch.no_grad()
def words(teacher: Teacher, run: Adapted, images: torch.Tensor) -> Words:
    """What the adapted teacher says of images ``[B, M, H, W, C]`` of the data's own size."""
    rig = teacher.rig
    last = len(run.steps) - 1
    stats = run.statistics(last).replayed() if rig.setting.inductive else None
    params = run.params(last)
    features = rig.network.features(rig.network.run(params, images, stats))
    return Words(head_logits(features, params[HEAD_W], params[HEAD_B]), features)


def inner_loss(
    labels: torch.Tensor, said: Words, distillation: Distillation, *, with_labels: bool
) -> InnerLoss:
    """CE(theta; S) + w KD(psi', theta; S), or the second term alone."""
    plain = cross_entropy(labels)

    def loss(z: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        total = plain(z, features) if with_labels else z.new_zeros(())
        if distillation.loss == "kl":
            told = distill.kl(z, said.logits, distillation.temperature)
            total = total + distillation.weight * told
        elif distillation.loss == "relational":
            total = total + distillation.weight * distill.relational(features, said.features)
        return total

    return loss


def guided(
    rig: Rig,
    teacher: Teacher,
    run: Adapted,
    episodes: Episodes,
    distillation: Distillation,
    *,
    with_labels: bool,
    train: bool,
) -> Adapted:
    """The student's inner loop with the adapted teacher at its side."""
    setting = rig.setting
    labels = view_labels(episodes.support_labels, setting.views)
    said = words(teacher, run, with_views(episodes.support, setting.views))
    support = with_views(rig.sized(episodes).support, setting.views)
    return adapt(
        rig.network,
        rig.meta,
        support,
        labels,
        setting.rule(rig.pattern),
        train=train,
        second_order=rig.config.order == "second",
        loss=inner_loss(labels, said, distillation, with_labels=with_labels),
    )


def student_step(
    rig: Rig,
    outer: MetaOptimiser,
    teacher: Teacher,
    run: Adapted,
    episodes: Episodes,
    distillation: Distillation,
    *,
    with_labels: bool = True,
) -> dict[str, float]:
    """The student's half of a meta-iteration: it adapts under guidance, then learns.

    Args:
        rig: the student.
        outer: its meta-optimiser.
        teacher: whose words it hears.
        run: the teacher, fully adapted to these episodes.
        episodes: the meta-batch, at the data's own size.
        distillation: losses and weights.
        with_labels: False drops CE from the inner loss (Fixed Teacher).
    """
    student = guided(rig, teacher, run, episodes, distillation, with_labels=with_labels, train=True)
    sized = rig.sized(episodes)
    z = query_logits(student, sized.query, inductive=rig.setting.inductive)
    loss = task_loss(z, episodes.query_labels)
    total = loss
    if distillation.outer > 0:
        said = words(teacher, run, episodes.query)
        told = distill.kl(z, said.logits, distillation.temperature) / episodes.tasks
        total = total + distillation.outer * told
    return said_of(z, episodes, loss, outer.step(total))


def guided_step(
    rig: Rig,
    outer: MetaOptimiser,
    teacher: Teacher,
    distillation: Distillation,
    *,
    teacher_learns: bool,
) -> dict[str, float]:
    """One meta-iteration: the teacher adapts (and learns), then the student under its guidance."""
    episodes = rig.episodes()
    if not teacher_learns:
        run = adapted_teacher(teacher, episodes)
        return student_step(rig, outer, teacher, run, episodes, distillation, with_labels=False)
    run, seen = teacher_step(teacher, episodes)
    metrics = student_step(rig, outer, teacher, run, episodes, distillation)
    return metrics | {"teacher_loss": seen["loss"]}


def guided_accuracies(
    rig: Rig,
    teacher: Teacher,
    distillation: Distillation,
    sampler: Sampler,
    *,
    seed: int,
    tasks: int,
    with_labels: bool,
) -> torch.Tensor:
    """Accuracy of every task of the sampler ``[tasks]``, full pattern, teacher at the side."""
    found = []
    for episodes in sampler.fixed(seed, tasks, CHUNK):
        run = adapted_teacher(teacher, episodes)
        student = guided(
            rig, teacher, run, episodes, distillation, with_labels=with_labels, train=False
        )
        with torch.no_grad():
            z = query_logits(student, rig.sized(episodes).query, inductive=rig.setting.inductive)
        found.append(evaluate.correct(z, episodes.query_labels))
    return torch.cat(found)
