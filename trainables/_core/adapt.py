"""The inner loop: a batch of tasks adapted with a pattern, the frozen prefix run once.

    w_l^(t+1) = w_l^(t) - alpha Lambda_l grad_{w_l} loss(w^(t); S)         t = 0..T-1

A layer that is not updated is not computed for: its weight gradient is never asked for, nothing
is propagated below the lowest updated layer, and the layers below that run once, without a graph
when nobody trains them. For the head alone the gradient is a formula:

    G_W = (softmax(f W^T + b) - Y)^T f / M,      G_b = column sums of the same
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from trainables._core.heads import logits as head_logits
from trainables._core.layers import Params, Statistics
from trainables._core.patterns import check, first_updated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainables._core.networks import Network

    # (logits [B, M, N], features [B, M, F]) -> sum over tasks of a task's mean loss
    InnerLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

HEAD_W, HEAD_B = "head.W", "head.b"  # a task's own classifier, [B, N, F] and [B, N]


@dataclass(frozen=True)
class Rule:
    """How to adapt: which layers, how many steps, how fast."""

    pattern: str
    steps: int
    rate: float | torch.Tensor
    ways: int


@dataclass
class Adapted:
    """Tasks after adaptation: ``steps[t]`` is what t inner steps leave, t = 0..T.

    Each entry holds the updated tensors only, with leading dimension B; ``meta`` are the
    parameters all tasks share. ``prefix`` is the support set's map at l0 ``[M, B*C, H, W]`` (its
    features ``[B, M, F]`` if the head alone is updated), ``prefix_stats`` the statistics there.
    """

    network: Network
    meta: Mapping[str, torch.Tensor]
    pattern: str
    tasks: int
    steps: list[Params]
    prefix: torch.Tensor
    prefix_stats: Statistics

    @property
    def start(self) -> int:
        """l0, the lowest updated layer."""
        return first_updated(self.pattern)

    def params(self, step: int) -> dict[str, torch.Tensor]:
        """Every tensor a forward pass needs after ``step`` steps."""
        return {**self.meta, **self.steps[step]}

    def logits(
        self, step: int, x: torch.Tensor, stats: Statistics | None, *, from_prefix: bool = False
    ) -> torch.Tensor:
        """Predictions ``[B, M, N]`` for images, or for their maps at l0, after ``step`` steps.

        ``stats`` are the support set's (inductive), or None: the batch's own (transductive).
        """
        params = self.params(step)
        span = slice(self.start if from_prefix else 0, None)
        if stats is not None:
            stats = stats.replayed(len(self.prefix_stats.values) if from_prefix else 0)
        x = self.network.run(params, x, self.tasks, stats, span)
        return head_logits(self.network.features(x, self.tasks), params[HEAD_W], params[HEAD_B])

    def statistics(self, step: int) -> Statistics:
        """The support set's statistics in every norm after ``step`` steps, differentiable."""
        stats = Statistics()
        if self.network.measures and self.start < len(self.network.body):
            span = slice(self.start, None)
            self.network.run(self.params(step), self.prefix, self.tasks, stats, span)
        return Statistics(values=self.prefix_stats.values + stats.values)


def cross_entropy(labels: torch.Tensor) -> InnerLoss:
    """CE(f; S), mean over a task's images, summed over tasks. ``labels`` are ``[M]``."""

    def loss(z: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        target = labels.expand(z.shape[0], -1).reshape(-1)
        return F.cross_entropy(z.reshape(-1, z.shape[-1]), target, reduction="sum") / z.shape[1]

    return loss


def adapt(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    support: torch.Tensor,
    labels: torch.Tensor,
    rule: Rule,
    *,
    train: bool = False,
    second_order: bool = True,
    loss: InnerLoss | None = None,
    tick: Callable[[], None] | None = None,
) -> Adapted:
    """Adapts B tasks at once and keeps what every step left.

    Args:
        network: the layers.
        meta: theta, shared by all tasks.
        support: ``[M, B*C, H, W]``, class order the same in every task.
        labels: ``[M]``.
        rule: pattern, steps, rate and ways.
        train: keep the graph to ``meta`` (the outer loop differentiates through all of this).
        second_order: with ``train``, also through the inner gradients (MAML; False: FOMAML).
        loss: the inner loss, cross-entropy on the support labels if left out.
        tick: called once the start is ready and after every step, for whoever holds a clock.

    Raises:
        ValueError: the pattern does not fit the network, or the head the number of classes.
    """
    check(rule.pattern, network.layers)
    start, depth = first_updated(rule.pattern), len(network.body)
    tasks = support.shape[1] // network.into[0]
    stats = Statistics()
    with nullcontext() if train else torch.no_grad():
        prefix = network.run(meta, support, tasks, stats, slice(start))
        run = Adapted(network, meta, rule.pattern, tasks, [], prefix, stats)
        reads = network.head.kind == "prototype" or start == depth  # else any features will do
        features = _features(run, meta) if reads else support.new_empty(tasks, 1, 1)
        weight, bias = network.head.start(meta, features, labels, rule.ways)
    fast = _fast(run, train=train) | {HEAD_W: weight, HEAD_B: bias}
    run.steps.append(fast)
    if tick is not None:
        tick()
    with nullcontext() if train and second_order else torch.enable_grad():
        create = train and second_order
        if start == depth and loss is None:
            moves = _head_steps(run, features, labels, rule, create=create)
        else:
            moves = _steps(run, loss or cross_entropy(labels), rule, create=create)
        for _ in moves:
            if tick is not None:
                tick()
    return run


def _features(run: Adapted, params: Mapping[str, torch.Tensor]) -> torch.Tensor:
    x = run.network.run(params, run.prefix, run.tasks, None, slice(run.start, None))
    return run.network.features(x, run.tasks)


def _fast(run: Adapted, *, train: bool) -> Params:
    """The updated body tensors, one copy a task; the graph to meta is kept while training."""
    fast: Params = {}
    for layer, bit in zip(run.network.body, run.pattern, strict=False):
        if bit == "1":
            for name in run.network.names(layer.name):
                shared = run.meta[name]
                fast[name] = (shared if train else shared.detach()).expand(run.tasks, *shared.shape)
    return fast


def _head_steps(
    run: Adapted, features: torch.Tensor, labels: torch.Tensor, rule: Rule, *, create: bool
) -> Iterator[None]:
    """Softmax regression on fixed features, its gradient in closed form."""
    one_hot = F.one_hot(labels, rule.ways).to(features.dtype)
    scale = rule.rate / features.shape[1]
    for _ in range(rule.steps):
        weight, bias = run.steps[-1][HEAD_W], run.steps[-1][HEAD_B]
        with nullcontext() if create else torch.no_grad():
            error = torch.softmax(head_logits(features, weight, bias), -1) - one_hot
            grad_weight, grad_bias = error.transpose(1, 2) @ features, error.sum(1)
        run.steps.append({HEAD_W: weight - scale * grad_weight, HEAD_B: bias - scale * grad_bias})
        yield


def _steps(run: Adapted, loss: InnerLoss, rule: Rule, *, create: bool) -> Iterator[None]:
    updated = [n for n in run.steps[0] if n not in (HEAD_W, HEAD_B) or run.pattern[-1] == "1"]
    for _ in range(rule.steps):
        fast = dict(run.steps[-1])
        if not create:  # leaves of their own: the graph ends at this step
            for name in updated:
                fast[name] = fast[name].detach().requires_grad_()
        params = {**run.meta, **fast}
        if not create:
            params = {k: v if k in fast else v.detach() for k, v in params.items()}
        prefix = run.prefix if create else run.prefix.detach()
        x = run.network.run(params, prefix, run.tasks, None, slice(run.start, None))
        features = run.network.features(x, run.tasks)
        value = loss(head_logits(features, params[HEAD_W], params[HEAD_B]), features)
        grads = torch.autograd.grad(
            value, [fast[n] for n in updated], create_graph=create, materialize_grads=True
        )  # a loss on features alone leaves the head where it is
        before = run.steps[-1]
        moved = {n: before[n] - rule.rate * g for n, g in zip(updated, grads, strict=True)}
        run.steps.append({**before, **moved})
        yield
