"""The inner loop: a batch of tasks adapted with a pattern, the frozen prefix run once.

    w_l^(t+1) = w_l^(t) - alpha Lambda_l grad_{w_l} loss(w^(t); S)         t = 0..T-1

A layer that is not updated is not computed for: its weight gradient is never asked for, nothing
is propagated below the lowest updated layer, and the layers below that run once, without a graph
when nobody trains them. For the head the gradient is a formula, E being softmax(f W^T + b) - Y:

    G_W = E^T f / M,      G_b = column sums of E / M

and where the head alone is updated (``head_steps``) there is no pass of the network at all.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from trainables._core.backprop import Suffix
from trainables._core.head_steps import HeadSteps
from trainables._core.heads import HEAD_B, HEAD_W, Labels, by_gram
from trainables._core.heads import logits as head_logits
from trainables._core.kernels import added
from trainables._core.layers import Params, Statistics
from trainables._core.lone_head import lone_head
from trainables._core.patterns import check, first_updated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from trainables._core.backprop import Pass
    from trainables._core.networks import Network

    # (logits [B, M, N], features [B, M, F]) -> sum over tasks of a task's mean loss
    InnerLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """How to adapt: which layers, how many steps, how fast."""

    pattern: str
    steps: int
    rate: float
    ways: int


@dataclass
class Adapted:
    """Tasks after adaptation: ``steps[t]`` is what t inner steps leave, t = 0..T, or T alone.

    Each entry holds the updated tensors only, with leading dimension B; ``meta`` are the
    parameters all tasks share. ``prefix`` is the support set's map at l0 ``[B, M, H, W, C]``,
    ``prefix_stats`` the statistics there.
    """

    network: Network
    meta: Mapping[str, torch.Tensor]
    pattern: str
    steps: Sequence[Params]
    prefix: torch.Tensor
    prefix_stats: Statistics

    @property
    def start(self) -> int:
        """l0, the lowest updated layer."""
        return first_updated(self.pattern)

    @cached_property
    def rows(self) -> torch.Tensor | None:
        """What the layer at l0 gathers from the prefix in every pass."""
        return self.network.rows(self.prefix, self.start)

    def settled(self) -> Adapted:
        """The last step alone, without a graph."""
        stats = [(mean.detach(), rstd.detach()) for mean, rstd in self.prefix_stats.values]
        last = {n: p.detach() for n, p in self.steps[-1].items()}
        return replace(
            self, steps=[last], prefix=self.prefix.detach(), prefix_stats=Statistics(values=stats)
        )

    def params(self, step: int) -> dict[str, torch.Tensor]:
        """Every tensor a forward pass needs after ``step`` steps."""
        return {**self.meta, **self.steps[step]}

    def logits(
        self,
        step: int,
        x: torch.Tensor,
        stats: Statistics | None,
        *,
        from_prefix: bool = False,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predictions ``[B, M, N]`` for images, or for their maps at l0, after ``step`` steps.

        ``stats`` are the support set's (inductive), or None: the batch's own (transductive);
        ``rows`` the network's of these maps, for whoever asks at several steps.
        """
        params = self.params(step)
        span = slice(self.start if from_prefix else 0, None)
        if stats is not None:
            stats = stats.replayed(len(self.prefix_stats.values) if from_prefix else 0)
        if torch.is_grad_enabled() and x.is_cpu and rows is None:
            features = self._task_by_task(step, x, stats, span)
        else:
            features = self.network.features(self.network.run(params, x, stats, span, rows))
        return head_logits(features, params[HEAD_W], params[HEAD_B])

    def _task_by_task(
        self, step: int, x: torch.Tensor, stats: Statistics | None, span: slice
    ) -> torch.Tensor:
        """Features ``[B, M, F]`` for one derivative: a task's maps stay in the cache."""
        own = {n: p.unbind() for n, p in self.steps[step].items()}
        pairs = (
            []
            if stats is None
            else [(m.reshape(len(x), -1), r.reshape(len(x), -1)) for m, r in stats.values]
        )  # of a task that was measured alone they come without its dimension
        found = []
        for task, images in enumerate(x.unbind()):
            params = {**self.meta, **{n: p[task].unsqueeze(0) for n, p in own.items()}}
            told = stats and replace(stats, values=[(m[task], r[task]) for m, r in pairs])
            y = self.network.run(params, images.unsqueeze(0), told, span, once=True)
            found.append(self.network.features(y))
        return torch.cat(found)

    def statistics(self, step: int) -> Statistics:
        """The support set's statistics in every norm after ``step`` steps, differentiable."""
        return self.measured(step)[0]

    def measured(self, step: int) -> tuple[Statistics, torch.Tensor | None]:
        """The same and the support set's features ``[B, M, F]``, where that took a pass."""
        stats, features = Statistics(), None
        if self.network.measures and self.start < len(self.network.body):
            span = slice(self.start, None)
            x = self.network.run(self.params(step), self.prefix, stats, span, self.rows)
            features = self.network.features(x)
        return Statistics(values=self.prefix_stats.values + stats.values), features


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
    history: bool = True,
) -> Adapted:
    """Adapts B tasks at once and keeps what every step left.

    Args:
        network: the layers.
        meta: theta, shared by all tasks.
        support: ``[B, M, H, W, C]``, class order the same in every task.
        labels: ``[M]``.
        rule: pattern, steps, rate and ways.
        train: keep the graph to ``meta`` (the outer loop differentiates through all of this).
        second_order: with ``train``, also through the inner gradients (MAML; False: FOMAML).
        loss: the inner loss, cross-entropy on the support labels if left out.
        tick: called once the start is ready and after every step, for whoever holds a clock.
        history: keep what every step left; False: what the last one left, as a device does, in
            tensors that autograd may refuse (torch's inference mode).

    Raises:
        ValueError: the pattern does not fit the network, or the head the number of classes.
    """
    check(rule.pattern, network.layers)
    start, depth, images = first_updated(rule.pattern), len(network.body), support.shape[1]
    tick = tick or _nobody
    if start == depth and loss is None and not (train or history):
        found = _lone_head(network, meta, support, labels, rule, tick)
        if found is not None:
            return found
    fomaml = train and not second_order
    stats = Statistics()
    device_alone = (
        not (train or history)
        and loss is None
        and (
            start == depth
            or bool(
                network.lanes(slice(start, None), images, len(support) * images, support.device)
            )
        )
    )
    with _recorded(train=train, inference=device_alone):
        prefix = network.run(meta, support, stats, slice(start))
        run = Adapted(network, meta, rule.pattern, [], prefix, stats)
        classes = Labels.of(labels, rule.ways, support.dtype)
        if start == depth and loss is None and not fomaml:  # these keep their derivatives
            features = network.features(prefix[0] if support.shape[0] == 1 else prefix)
            steps = HeadSteps(
                network.head, meta, features, classes, steps=rule.steps, rate=rule.rate, tick=tick
            )
            run.steps = steps if history else [steps[-1]]
            return run
        kept: deque[Params] = deque(maxlen=None if history else 1)
        if train and not fomaml:
            for step in _exactly(run, classes, rule, loss or cross_entropy(labels)):
                kept.append(step)
                tick()
            run.steps = list(kept)
        else:
            alone = loss is None
            suffix = Suffix(network, rule.pattern, prefix, run.rows, meta, alone=alone)
            in_place = not (history or train)
            for step in _plainly(run, suffix, classes, rule, loss, train=train, in_place=in_place):
                kept.append(step)
                tick()
            run.steps = [suffix.leave(step) for step in kept]
    return run


def _nobody() -> None:
    """Holds no clock."""


def _lone_head(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    support: torch.Tensor,
    labels: torch.Tensor,
    rule: Rule,
    tick: Callable[[], None],
) -> Adapted | None:
    """One task alone, its head all that is updated; None where that is not written out."""
    tasks, images, head = support.shape[0], support.shape[1], network.head
    if tasks > 1 or rule.steps < 2 or not by_gram(images, head.features) or head.kind == "linear":
        return None
    through = network.lanes(slice(None), images, images, support.device)
    if not through:
        return None
    stats = Statistics()
    with torch.inference_mode():
        classes = Labels.of(labels, rule.ways, support.dtype)
        prefix, classifier = lone_head(
            through, head, meta, support, classes, stats, rule.steps, rule.rate, tick
        )
        return Adapted(network, meta, rule.pattern, [classifier], prefix, stats)


def _recorded(*, train: bool, inference: bool) -> AbstractContextManager[object]:
    """What torch keeps: a graph, or none, or with ``inference`` not even what one would need."""
    if train:
        return nullcontext()
    return torch.inference_mode() if inference else torch.no_grad()


def _start(run: Adapted, params: Mapping[str, torch.Tensor], labels: Labels) -> Params:
    """The classifier a task starts with; only prototypes need a pass of the suffix for it."""
    head = run.network.head
    features = run.prefix.new_empty(len(run.prefix), 1, 1)
    if head.kind == "prototype":
        span = slice(run.start, None)  # the outer loop alone differentiates this
        x = run.network.run(params, run.prefix, None, span, run.rows, once=True)
        features = run.network.features(x)
    weight, bias = head.start(run.meta, features, labels)
    return {HEAD_W: weight, HEAD_B: bias}


def _fast(run: Adapted) -> Params:
    """The updated body tensors, one copy a task."""
    fast: Params = {}
    for layer, bit in zip(run.network.body, run.pattern, strict=False):
        if bit == "1":
            for name in layer.names:
                fast[name] = run.meta[name].expand(len(run.prefix), *run.meta[name].shape)
    return fast


def _exactly(run: Adapted, labels: Labels, rule: Rule, loss: InnerLoss) -> Iterator[Params]:
    """Steps whose gradients keep their own graph, so that the outer loop goes through them."""
    step = _fast(run) | _start(run, run.meta, labels)
    updated = [n for n in step if n not in (HEAD_W, HEAD_B) or run.pattern[-1] == "1"]
    yield step
    for _ in range(rule.steps):
        params = {**run.meta, **step}
        x = run.network.run(params, run.prefix, None, slice(run.start, None), run.rows)
        features = run.network.features(x)
        value = loss(head_logits(features, params[HEAD_W], params[HEAD_B]), features)
        grads = torch.autograd.grad(
            value, [step[n] for n in updated], create_graph=True, materialize_grads=True
        )  # a loss on features alone leaves the head where it is
        moved = zip(updated, grads, strict=True)
        step = step | {n: torch.add(step[n], g, alpha=-rule.rate) for n, g in moved}
        yield step


def _plainly(
    run: Adapted,
    suffix: Suffix,
    labels: Labels,
    rule: Rule,
    loss: InnerLoss | None,
    *,
    train: bool,
    in_place: bool,
) -> Iterator[Params]:
    """Steps by first derivatives alone; with ``train`` only the start hangs on theta (FOMAML).

    They are as the suffix wants them until somebody takes leave of it. With ``in_place`` a step
    is gone when the next one is asked for.
    """
    step, passed = _entered(run, suffix, labels, train=train)
    yield step
    for t in range(rule.steps):
        passed = passed or suffix.forward(step)
        g, head = _head_step(passed.features, step, labels.target, rule, loss)
        # what the first step moves is not the task's own: all tasks share it
        body = passed.moved(step, g, rule.rate, in_place=in_place and t > 0)
        step, passed = step | head | body, None  # its maps go before the next pass makes its own
        yield step


def _entered(
    run: Adapted, suffix: Suffix, labels: Labels, *, train: bool
) -> tuple[Params, Pass | None]:
    """What tasks start with, and the first step's pass where prototypes needed one already."""
    step = suffix.enter(_fast(run))
    if run.network.head.kind != "prototype" or train:
        step |= suffix.enter(_start(run, run.meta, labels))
        return step if train else {n: p.detach() for n, p in step.items()}, None
    passed = suffix.forward(step)
    features = passed.features[None] if suffix.alone else passed.features
    found = run.network.head.start(run.meta, features, labels)
    step |= suffix.enter(dict(zip((HEAD_W, HEAD_B), found, strict=True)))
    return {n: p.detach() for n, p in step.items()}, passed


def _head_step(
    features: torch.Tensor,
    step: Params,
    target: torch.Tensor,
    rule: Rule,
    loss: InnerLoss | None,
) -> tuple[torch.Tensor, Params]:
    """The gradient of the inner loss at the features, and the classifier one step on."""
    weight, bias = step[HEAD_W], step[HEAD_B]
    leaves = [x.detach() for x in (features, weight, bias)]
    if loss is None:
        error = torch.softmax(head_logits(*leaves), -1).sub_(target).mul_(1 / target.shape[0])
        g = error @ leaves[1]
        if rule.pattern[-1] == "0":
            return g, {}
        moved = added(weight, error.mT, leaves[0], -rule.rate)
        return g, {HEAD_W: moved, HEAD_B: torch.sub(bias, error.sum(-2), alpha=rule.rate)}
    leaves = [x.requires_grad_() for x in leaves]
    with torch.enable_grad():
        value = loss(head_logits(*leaves), leaves[0])
        g, *own = torch.autograd.grad(value, leaves, materialize_grads=True)
    moves = zip((HEAD_W, HEAD_B), own if rule.pattern[-1] == "1" else [], strict=False)
    return g, {name: torch.sub(step[name], own_g, alpha=rule.rate) for name, own_g in moves}
