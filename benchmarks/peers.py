"""Peers on the conventional networks: the same work as the project's, as anyone would write it.

    by hand    torch.autograd.grad in a loop; functional_call where the outer loop goes through it
    higher     innerloop_ctx
    TorchOpt   MetaSGD

Each takes one task after the other, as their own examples do; tests hold their results to the
project's. ``higher`` and ``torchopt`` come with the extra ``bench``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import higher
import torch
import torch.nn.functional as F
import torchopt
from torch import nn
from torch.func import functional_call

from benchmarks.conventional import Measured, images_first
from benchmarks.timing import Contender, threads_said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainables._core.episodes import Episodes

    # the query loss of a task after adaptation, its graph reaching the model's parameters
    TaskLoss = Callable[[nn.Module, "Task", "Inner"], torch.Tensor]
    Fast = dict[str, torch.Tensor]
    # (support [M, C, H, W], labels [M]) -> adapted tensors, the support set's statistics
    Adapter = Callable[[torch.Tensor, torch.Tensor], tuple[list[torch.Tensor], Measured | None]]

CLIP_NORM = 10.0
LAYOUTS = {"images first": torch.contiguous_format, "channels last": torch.channels_last}
THREADS = (1, 2)


@dataclass(frozen=True)
class Inner:
    """The inner loop: steps, rate, and whose statistics normalise query images."""

    steps: int
    rate: float
    inductive: bool
    second_order: bool = True


@dataclass(frozen=True)
class Task:
    """One task, images first."""

    support: torch.Tensor  # [M, C, H, W]
    labels: torch.Tensor  # [M]
    query: torch.Tensor
    query_labels: torch.Tensor


def tasks_of(episodes: Episodes, layout: torch.memory_format) -> list[Task]:
    """The tasks of a meta-batch, each in the memory layout a peer likes best."""

    def images(x: torch.Tensor) -> Iterator[torch.Tensor]:
        return (one.contiguous(memory_format=layout) for one in images_first(x))

    pairs = zip(images(episodes.support), images(episodes.query), strict=True)
    return [Task(s, episodes.support_labels, q, episodes.query_labels) for s, q in pairs]


def forms(
    run_in: Callable[[torch.memory_format], Callable[[], object]], device: str = "cpu"
) -> list[Contender]:
    """A peer in every memory layout and, on a processor, under every number of threads."""
    counts = THREADS if device == "cpu" else (1,)
    runs = {word: run_in(layout) for word, layout in LAYOUTS.items()}
    return [
        Contender(f"{word}, {threads_said(n)}", run, n)
        for word, run in runs.items()
        for n in counts
    ]


# ---------------------------------------------------------------- adaptation, first derivatives


def by_hand(model: nn.Module, inner: Inner) -> Adapter:
    """A copy of the model, moved in place by the gradients of torch.autograd.grad."""
    own = copy.deepcopy(model)
    start, params = list(model.parameters()), list(own.parameters())

    def adapt(
        support: torch.Tensor, labels: torch.Tensor
    ) -> tuple[list[torch.Tensor], Measured | None]:
        with torch.no_grad():
            for p, first in zip(params, start, strict=True):
                p.copy_(first)
        for _ in range(inner.steps):
            grads = torch.autograd.grad(F.cross_entropy(own(support), labels), params)
            with torch.no_grad():
                for p, g in zip(params, grads, strict=True):
                    p.sub_(g, alpha=inner.rate)
        return list(params), _statistics(own, support, inner)

    return adapt


def by_higher(model: nn.Module, inner: Inner) -> Adapter:
    """``innerloop_ctx`` without higher gradients, as its documentation says for test time."""
    sgd = torch.optim.SGD(model.parameters(), lr=inner.rate)

    def adapt(
        support: torch.Tensor, labels: torch.Tensor
    ) -> tuple[list[torch.Tensor], Measured | None]:
        with higher.innerloop_ctx(model, sgd, track_higher_grads=False) as (own, steps):
            for _ in range(inner.steps):
                steps.step(F.cross_entropy(own(support), labels))
            return list(own.parameters()), _statistics(own, support, inner)

    return adapt


@torch.no_grad()
def _statistics(model: nn.Module, support: torch.Tensor, inner: Inner) -> Measured | None:
    if not inner.inductive:
        return None
    measured = Measured()
    model(support, measured)
    return measured


# ---------------------------------------------------------------- meta-training


def _called(model: nn.Module, fast: Fast, *args: object) -> torch.Tensor:
    out: torch.Tensor = functional_call(model, fast, args)
    return out


def _judged(run: Callable[..., torch.Tensor], task: Task, inner: Inner) -> torch.Tensor:
    """The query loss of an adapted model."""
    if not inner.inductive:
        return F.cross_entropy(run(task.query), task.query_labels)
    measured = Measured()
    run(task.support, measured)
    return F.cross_entropy(run(task.query, measured.replayed()), task.query_labels)


def _moved(
    model: nn.Module,
    support: torch.Tensor,
    loss: Callable[[torch.Tensor], torch.Tensor],
    inner: Inner,
) -> Fast:
    fast: Fast = dict(model.named_parameters())
    for _ in range(inner.steps):
        value = loss(_called(model, fast, support))
        grads = torch.autograd.grad(value, list(fast.values()), create_graph=inner.second_order)
        moves = zip(fast.items(), grads, strict=True)
        fast = {n: torch.sub(p, g, alpha=inner.rate) for (n, p), g in moves}
    return fast


def hand_written(model: nn.Module, task: Task, inner: Inner) -> torch.Tensor:
    """functional_call and torch.autograd.grad with create_graph."""
    fast = _moved(model, task.support, lambda z: F.cross_entropy(z, task.labels), inner)
    return _judged(lambda *args: _called(model, fast, *args), task, inner)


def with_higher(model: nn.Module, task: Task, inner: Inner) -> torch.Tensor:
    """``innerloop_ctx`` on the model's own weights."""
    sgd = torch.optim.SGD(model.parameters(), lr=inner.rate)
    with higher.innerloop_ctx(model, sgd, copy_initial_weights=False) as (own, steps):
        for _ in range(inner.steps):
            steps.step(F.cross_entropy(own(task.support), task.labels))
        return _judged(own, task, inner)


def with_torchopt(model: nn.Module, task: Task, inner: Inner) -> torch.Tensor:
    """``MetaSGD`` moves the model itself; its weights are put back behind the task."""
    sgd = torchopt.MetaSGD(model, lr=inner.rate)
    start = torchopt.extract_state_dict(model, by="reference")
    for _ in range(inner.steps):
        sgd.step(F.cross_entropy(model(task.support), task.labels))
    loss = _judged(model, task, inner)
    torchopt.recover_state_dict(model, start)
    return loss


class MetaTrainer:
    """Adam over a model's weights, task by task: one backward pass each, one step a meta-batch."""

    def __init__(self, model: nn.Module, inner: Inner, rate: float) -> None:
        self.model, self.inner = model, inner
        self.adam = torch.optim.Adam(model.parameters(), lr=rate)

    def step(self, tasks: list[Task], loss: TaskLoss) -> float:
        """A meta-iteration; the mean query loss before it."""
        self.adam.zero_grad(set_to_none=True)
        total = 0.0
        for task in tasks:
            value = loss(self.model, task, self.inner) / len(tasks)
            value.backward()
            total += value.item()
        self.update()
        return total

    def update(self) -> None:
        """Clips what the tasks have added up and moves the weights."""
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.adam.step()


# ---------------------------------------------------------------- a teacher beside the student


@dataclass(frozen=True)
class Told:
    """What the student is told: weights of KL in the inner and in the outer loss."""

    weight: float
    outer: float
    temperature: float


def _kl(z: torch.Tensor, said: torch.Tensor, temperature: float) -> torch.Tensor:
    guess, target = F.log_softmax(z / temperature, -1), F.log_softmax(said / temperature, -1)
    told = F.kl_div(guess, target, reduction="batchmean", log_target=True)
    return temperature**2 * told


def tsmd_step(teacher: MetaTrainer, student: MetaTrainer, tasks: list[Task], told: Told) -> None:
    """A meta-iteration of both: the adapted teacher's passes serve its own loss and its word."""
    for trainer in (teacher, student):
        trainer.adam.zero_grad(set_to_none=True)
    for task in tasks:
        said, said_of_query = _teacher_task(teacher, task, len(tasks))
        inner_loss = _guided_loss(task, said, told)
        fast = _moved(student.model, task.support, inner_loss, student.inner)
        z = _query_logits(student, fast, task)[1]
        loss = F.cross_entropy(z, task.query_labels)
        loss = loss + told.outer * _kl(z, said_of_query, told.temperature)
        (loss / len(tasks)).backward()
    for trainer in (teacher, student):
        trainer.update()


def _guided_loss(
    task: Task, said: torch.Tensor, told: Told
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda z: F.cross_entropy(z, task.labels) + told.weight * _kl(z, said, told.temperature)


def _teacher_task(
    teacher: MetaTrainer, task: Task, tasks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's half; its logits of support and query images, detached."""
    inner = teacher.inner
    fast = _moved(teacher.model, task.support, lambda z: F.cross_entropy(z, task.labels), inner)
    said, z = _query_logits(teacher, fast, task)
    (F.cross_entropy(z, task.query_labels) / tasks).backward()
    return said.detach(), z.detach()


def _query_logits(
    trainer: MetaTrainer, fast: Fast, task: Task
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the support images and of the query images after adaptation."""
    if trainer.inner.inductive:
        measured = Measured()
        said = _called(trainer.model, fast, task.support, measured)
        return said, _called(trainer.model, fast, task.query, measured.replayed())
    with torch.no_grad():
        said = _called(trainer.model, fast, task.support)
    return said, _called(trainer.model, fast, task.query)
