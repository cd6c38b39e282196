"""One task alone, its head all that is updated: what a device does most often, call by call.

The same numbers as ``blocks.alone`` and ``head_steps`` leave. On five small images a call of torch
takes as long as what it computes, and so does what Python does between two; here is nothing but
calls. With the features' Gram matrix K = f f^T + 1, E being softmax(z) - Y and s = alpha / M,

    z_(t+1) = z_t - s K E_t,      W_T = W_0 - s (sum_t E_t)^T f,      b_T = b_0 - s sum of its rows
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainables._core.blocks import alone
from trainables._core.heads import HEAD_B, HEAD_W

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainables._core.blocks import Lane
    from trainables._core.heads import Head, Labels
    from trainables._core.layers import Params, Statistics


def lone_head(
    through: Sequence[Lane],
    head: Head,
    meta: Mapping[str, torch.Tensor],
    support: torch.Tensor,
    labels: Labels,
    stats: Statistics,
    steps: int,
    rate: float,
    tick: Callable[[], None],
) -> tuple[torch.Tensor, Params]:
    """Adapts, in torch's inference mode.

    Args:
        through: the body's blocks.
        head: prototypes or one shared vector.
        meta: theta.
        support: ``[1, M, H, W, C]``.
        labels: the images' classes.
        stats: takes what the norms measure.
        steps: T, two or more.
        rate: alpha.
        tick: called once the start is ready and after every step.

    Returns:
        The last map ``[1, M, h, w, C]``, and the classifier after T steps.
    """
    images = support.shape[1]
    last = alone(through, meta, support, stats, None)
    f = last.view(images, -1)
    gram = torch.mm(f, f.t())
    w, times, b = _start(head, meta, f, gram, labels)
    z = torch.addmm(b, f, w.t(), alpha=times)
    gram.add_(1)
    step, target = -rate / images, labels.target
    tick()
    error = torch.softmax(z, 1).sub_(target)
    errors = [error]
    tick()
    for _ in range(steps - 1):
        z = torch.addmm(z, gram, error, alpha=step)
        error = torch.softmax(z, 1).sub_(target)
        errors.append(error)
        tick()
    total = torch.stack(errors).sum(0)
    w = torch.addmm(w, total.t(), f, beta=times, alpha=step)
    b = torch.add(b, total.sum(0), alpha=step)
    return last, {HEAD_W: w.unsqueeze(0), HEAD_B: b.unsqueeze(0)}


def _start(
    head: Head,
    meta: Mapping[str, torch.Tensor],
    f: torch.Tensor,
    gram: torch.Tensor,
    labels: Labels,
) -> tuple[torch.Tensor, float, torch.Tensor]:
    """The weights a task starts with, but for a number that they are to be taken times; biases."""
    if head.kind == "shared":
        ways = labels.target.shape[1]
        return meta["head.weight"].expand(ways, -1), 1.0, meta["head.bias"].expand(ways)
    scale = meta["head.scale"]
    means = f if labels.shots == 1 else labels.means(f)
    squares = gram.diagonal() if labels.shots == 1 else (means * means).sum(1)
    if scale.is_cuda:  # its number would be waited for
        return means * (2 * scale), 1.0, squares * -scale
    number = scale.item()
    return means, 2 * number, squares * -number
