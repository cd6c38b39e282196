"""A teacher beside the student: built, meta-trained, adapted, listened to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from trainables._core import distill, evaluate, networks
from trainables._core.adapt import adapt, cross_entropy
from trainables._core.ending import CHUNK
from trainables._core.heads import HEAD_B, HEAD_W
from trainables._core.heads import logits as head_logits
from trainables._core.lease import node
from trainables._core.outer import MetaOptimiser, Objective, learn, query_logits, task_loss
from trainables._core.parallel import side_by_side
from trainables._core.rig import Rig, build, maml_update
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._core.views import view_labels, with_views

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def of(self, tasks: slice) -> Words:
        """Of some of the tasks."""
        return Words(self.logits[tasks], self.features[tasks])

    @staticmethod
    def joined(parts: Sequence[Words]) -> Words:
        """Of all tasks, from what was said of some after the others."""
        return Words(torch.cat([w.logits for w in parts]), torch.cat([w.features for w in parts]))


def build_teacher(
    settings: TeacherSettings,
    config: MethodConfig,
    data: ImageData,
    shape: TaskShape,
    *,
    seed: int,
    device: str,
    halvings: int = 0,
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
        test=config.test,
        choice=config.choice,
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
        network,
        settings.kind,
        settings.width,
        own,
        data,
        shape,
        seed=seed + 2,
        device=device,
        halvings=halvings,
    )
    return Teacher(rig, MetaOptimiser(rig.meta, own.outer_rate, iterations))


@dataclass(frozen=True)
class Adviser:
    """The teacher adapted to a meta-batch, chunk by chunk."""

    teacher: Teacher
    runs: list[Adapted]
    query_logits: torch.Tensor | None = None  # [B, Q, N], where learning has asked for them
    support: Words | None = None  # on the support images, where learning has measured them

    def on_support(self, episodes: Episodes, views: int) -> Words:
        """What it says of the support images of these episodes and so many views of each."""
        if self.support is not None and views == 0:
            return self.support
        return self.words(with_views(episodes.support, views))

    def on_query(self, episodes: Episodes) -> torch.Tensor:
        """Its logits ``[B, Q, N]`` of the query images of these episodes."""
        if self.query_logits is not None:
            return self.query_logits
        return self.words(episodes.query).logits

    @torch.no_grad()
    def words(self, images: torch.Tensor) -> Words:
        """What it says of images ``[B, M, H, W, C]`` of the data's own size."""
        parts = images.split([len(run.prefix) for run in self.runs])
        return Words.joined(side_by_side(self._say, list(zip(self.runs, parts, strict=True))))

    def _say(self, pair: tuple[Adapted, torch.Tensor]) -> Words:
        run, images = pair
        rig, last = self.teacher.rig, len(run.steps) - 1
        stats = run.statistics(last).replayed() if rig.setting.inductive else None
        params = run.params(last)
        return _words(run, rig.network.features(rig.network.run(params, images, stats)))


def _words(run: Adapted, features: torch.Tensor) -> Words:
    """What the classifier after the last step says of these features."""
    params = run.params(len(run.steps) - 1)
    return Words(head_logits(features, params[HEAD_W], params[HEAD_B]), features)


def teacher_step(teacher: Teacher, episodes: Episodes) -> tuple[Adviser, dict[str, float]]:
    """One meta-iteration of the teacher; the adapted one is what the student will hear."""
    met, said = maml_update(teacher.rig, teacher.outer, episodes)
    runs, logits = [m.run for m in met], torch.cat([m.logits for m in met])
    seen = [_words(m.run, m.features) for m in met if m.features is not None]
    support = Words.joined(seen) if len(seen) == len(met) else None
    return Adviser(teacher, runs, logits, support), said


def adapted_teacher(teacher: Teacher, episodes: Episodes) -> Adviser:
    """The teacher adapted without learning from it."""
    rig = teacher.rig
    rule = rig.setting.rule(rig.pattern)

    def one(part: Episodes) -> Adapted:
        return adapt(rig.network, rig.meta, part.support, part.support_labels, rule)

    return Adviser(teacher, rig.chunks.over(one, rig.sized(episodes)))


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
    said: Words,
    episodes: Episodes,
    distillation: Distillation,
    *,
    with_labels: bool,
    train: bool,
) -> Adapted:
    """The student's inner loop with what the teacher ``said`` of the support set and its views."""
    setting = rig.setting
    labels = view_labels(episodes.support_labels, setting.views)
    return adapt(
        rig.network,
        rig.meta,
        with_views(rig.sized(episodes).support, setting.views),
        labels,
        setting.rule(rig.pattern),
        train=train,
        second_order=rig.config.order == "second",
        loss=inner_loss(labels, said, distillation, with_labels=with_labels),
    )


def student_step(
    rig: Rig,
    outer: MetaOptimiser,
    adviser: Adviser,
    episodes: Episodes,
    distillation: Distillation,
    *,
    with_labels: bool = True,
) -> dict[str, float]:
    """The student's half of a meta-iteration: it adapts under guidance, then learns.

    Args:
        rig: the student.
        outer: its meta-optimiser.
        adviser: the teacher, fully adapted to these episodes.
        episodes: the meta-batch, at the data's own size.
        distillation: losses and weights.
        with_labels: False drops CE from the inner loss (Fixed Teacher).
    """
    on_support = adviser.on_support(episodes, rig.setting.views)
    on_query = adviser.on_query(episodes) if distillation.outer > 0 else None

    def objective(part: Episodes) -> Objective[None]:
        here = slice(part.first, part.first + part.tasks)
        said = on_support.of(here)
        run = guided(rig, said, part, distillation, with_labels=with_labels, train=True)
        z = query_logits(run, rig.sized(part).query, inductive=rig.setting.inductive)
        loss = total = task_loss(z, part.query_labels)
        if on_query is not None:
            told = distill.kl(z, on_query[here], distillation.temperature)
            total = total + distillation.outer * told / part.tasks
        return Objective(total, loss, z, lambda: None)

    return learn(outer, rig.chunks, episodes, objective)[1]


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
        adviser = adapted_teacher(teacher, episodes)
        return student_step(rig, outer, adviser, episodes, distillation, with_labels=False)
    adviser, seen = teacher_step(teacher, episodes)
    metrics = student_step(rig, outer, adviser, episodes, distillation)
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
        with node().shared():
            adviser = adapted_teacher(teacher, episodes)
            said = adviser.words(with_views(episodes.support, rig.setting.views))
            run = guided(rig, said, episodes, distillation, with_labels=with_labels, train=False)
            with torch.no_grad():
                z = query_logits(run, rig.sized(episodes).query, inductive=rig.setting.inductive)
        found.append(evaluate.correct(z, episodes.query_labels))
    return torch.cat(found)
