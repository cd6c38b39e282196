"""The outer loop: a meta-batch adapted, its query loss, one step of the meta-optimiser."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainables._core.adapt import Adapted
    from trainables._core.episodes import Episodes
    from trainables._core.layers import Params
    from trainables._core.parallel import Chunks

CLIP_NORM = 10.0  # of the whole meta-gradient: our default
LAST_RATE = 0.05  # the cosine ends at this share of the outer rate: our default


def query_logits(adapted: Adapted, query: torch.Tensor, *, inductive: bool) -> torch.Tensor:
    """Predictions ``[B, M, N]`` after the last step, query ``[B, M, H, W, C]``.

    Inductive: normalised with the support set's statistics; otherwise with the query batch's.
    """
    return judged(adapted, query, inductive=inductive)[0]


def judged(
    adapted: Adapted, query: torch.Tensor, *, inductive: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same, and the support set's features ``[B, M, F]`` where its pass was needed for it."""
    last = len(adapted.steps) - 1
    stats, features = adapted.measured(last) if inductive else (None, None)
    return adapted.logits(last, query, stats), features


def task_loss(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """CE over ``[B, M, N]`` against ``[M]``, mean over images and tasks."""
    target = labels.expand(z.shape[0], -1).reshape(-1)
    return F.cross_entropy(z.reshape(-1, z.shape[-1]), target)


class DivergedError(ArithmeticError):
    """The loss of meta-training, or its gradient, is no finite number any more."""

    kind = "diverged"


class MetaOptimiser:
    """Adam over a set of meta-parameters, its rate falling as a half cosine over the run.

    Adam and its rate of 1e-3 are the MAML paper's; clipping and the cosine are our defaults.
    """

    def __init__(self, params: Params, rate: float, iterations: int) -> None:
        self.params = {name: p.requires_grad_() for name, p in params.items()}
        self._adam = torch.optim.Adam(self.params.values(), lr=rate)
        self._rate = rate
        self._iterations = max(1, iterations)
        self._done = 0

    @property
    def rate(self) -> float:
        """The outer rate of the next step."""
        share = min(1.0, self._done / self._iterations)
        return self._rate * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2)

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """The meta-gradient of ``loss``, zero where a parameter has no part in it."""
        params = list(self.params.values())
        return list(torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True))

    def step(self, loss: float, grads: Sequence[torch.Tensor]) -> float:
        """One descent step.

        Args:
            loss: what the gradients belong to; looked at, not differentiated.
            grads: one for each parameter.

        Returns:
            The norm of the meta-gradient before clipping.

        Raises:
            DivergedError: loss or gradient is not finite; the parameters are left as they were.
        """
        for group in self._adam.param_groups:
            group["lr"] = self.rate
        for p, g in zip(self.params.values(), grads, strict=True):
            p.grad = g.contiguous()  # clipping writes into it
        norm = float(torch.nn.utils.clip_grad_norm_(self.params.values(), CLIP_NORM))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "meta-gradient" if math.isfinite(loss) else "loss"
            raise DivergedError(f"the {what} is no finite number at meta-step {self._done + 1}")
        self._adam.step()
        self._done += 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        """A snapshot that shares no tensor with the optimiser."""
        return {
            "params": {n: p.detach().clone() for n, p in self.params.items()},
            "adam": copy.deepcopy(self._adam.state_dict()),
            "done": self._done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues exactly where the snapshot was taken."""
        with torch.no_grad():
            for name, p in self.params.items():
                p.copy_(state["params"][name])
        self._adam.load_state_dict(copy.deepcopy(state["adam"]))
        self._done = state["done"]


Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Objective(Generic[Kept]):
    """What a chunk of tasks says, as means over its tasks."""

    total: torch.Tensor  # what is descended
    loss: torch.Tensor  # what is reported
    logits: torch.Tensor  # of the query images, [B, M, N]
    kept: Callable[[], Kept]  # made once the gradients are known, so without their graph


def learn(
    outer: MetaOptimiser,
    chunks: Chunks,
    episodes: Episodes,
    objective: Callable[[Episodes], Objective[Kept]],
) -> tuple[list[Kept], dict[str, float]]:
    """One meta-iteration: gradients chunk by chunk, their sum, one step.

    Returns:
        What each chunk kept, and ``loss``, ``train_accuracy``, ``gradient_norm``, ``tasks``,
        ``outer_rate``.
    """
    found = chunks.over(partial(_part, outer, objective, episodes.tasks), episodes)
    grads = [sum(column[1:], column[0]) for column in zip(*(p.grads for p in found), strict=True)]
    loss, hits = sum(p.loss for p in found), sum(p.hits for p in found)
    rate, norm = outer.rate, outer.step(loss, grads)
    said = {"loss": loss, "train_accuracy": hits, "gradient_norm": norm, "tasks": episodes.tasks}
    return [p.kept for p in found], {**said, "outer_rate": rate}


@dataclass(frozen=True)
class _Part(Generic[Kept]):
    grads: list[torch.Tensor]
    loss: float
    hits: float
    kept: Kept


def _part(
    outer: MetaOptimiser,
    objective: Callable[[Episodes], Objective[Kept]],
    tasks: int,
    episodes: Episodes,
) -> _Part[Kept]:
    """A chunk's share of a meta-batch of so many ``tasks``."""
    said = objective(episodes)
    share = episodes.tasks / tasks
    grads = outer.gradients(said.total * share)
    hits = (said.logits.detach().argmax(-1) == episodes.query_labels).float().mean()
    return _Part(grads, said.loss.item() * share, hits.item() * share, said.kept())
