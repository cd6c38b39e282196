"""Batch normalisation of a task's rows: twice differentiable, and written out by hand.

``normalise`` is twice differentiable; ``normed`` and ``normed_back`` are what first derivatives
written out by hand need, without a graph. One task may come to these without the dimension of
tasks, ``[R, C]`` for ``[1, R, C]``.
"""

from __future__ import annotations

from typing import Any

import torch
from typing_extensions import override

EPS = 1e-5


class _Normalise(torch.autograd.Function):
    """y -> (y - mean) rstd over the rows of a task; mean and rstd are outputs too.

    The graph hangs on the outputs alone, so y itself is not kept.
    """

    @staticmethod
    @override
    def forward(ctx: Any, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean = y.mean(1, keepdim=True)
        x = y - mean
        rstd = torch.rsqrt((x * x).mean(1, keepdim=True) + EPS)
        x.mul_(rstd)
        ctx.save_for_backward(x, rstd)
        ctx.set_materialize_grads(False)
        return x, mean, rstd

    @staticmethod
    @override
    def backward(ctx: Any, *grads: torch.Tensor | None) -> torch.Tensor | None:
        x, rstd = ctx.saved_tensors
        g, g_mean, g_rstd = grads
        total = None if g is None else _NormaliseBack.apply(g, x, rstd)
        if g_rstd is not None:  # d rstd / dy = -rstd^2 x / R
            told = x * (g_rstd * rstd.square() / -x.shape[1])
            total = told if total is None else total + told
        if g_mean is not None:
            told = (g_mean / x.shape[1]).expand_as(x)
            total = told if total is None else total + told
        return total


class _NormaliseBack(torch.autograd.Function):
    """g -> rstd P g with P g = g - mean(g) - x mean(g x), a projection; and its own gradient."""

    @staticmethod
    @override
    def forward(ctx: Any, g: torch.Tensor, x: torch.Tensor, rstd: torch.Tensor) -> torch.Tensor:
        along = (g * x).mean(1, keepdim=True)
        projected = torch.addcmul(g - g.mean(1, keepdim=True), x, along, value=-1)
        ctx.save_for_backward(g, x, rstd, along)
        return projected.mul_(rstd)

    @staticmethod
    @override
    def backward(ctx: Any, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        g, x, rstd, along = ctx.saved_tensors
        h_along = (h * x).mean(1, keepdim=True)
        projected = torch.addcmul(h - h.mean(1, keepdim=True), x, h_along, value=-1)
        g_rstd = (projected * g).sum(1, keepdim=True)
        g_x = torch.addcmul(h * along, g, h_along).mul_(-rstd)
        return projected.mul_(rstd), g_x, g_rstd


def normalise(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every task's rows to mean 0 and variance 1 (biased), channel by channel.

    Args:
        y: ``[B, R, C]``.

    Returns:
        The normalised rows, and the mean and 1/std ``[B, 1, C]`` they were measured with.
    """
    x, mean, rstd = _Normalise.apply(y)
    return x, mean, rstd


Kept = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # rows, mean and 1/std of a norm


def normed(y: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, Kept]:
    """Batch norm without a graph, per task, and what the way back needs.

    Args:
        y: ``[B, R, C]``, or one task's ``[R, C]``.
        gain: ``[B, C]``, or ``[C]`` of all tasks.
        bias: the same.
    """
    if y.dim() == 2:  # torch's own norm is one call, and knows one task
        args = (gain, bias, None, None, True, 0.0, EPS)
        out, mean, rstd = torch.native_batch_norm(y, *args)
        return out, (y, mean, rstd)
    channels = y.shape[-1]
    if len(y) == 1 and gain.numel() == channels:
        out, (_, mean, rstd) = normed(y[0], gain.view(-1), bias.view(-1))
        return out[None], (y, mean.view(1, 1, -1), rstd.view(1, 1, -1))
    mean = y.mean(1, keepdim=True)
    x = y - mean
    rstd = torch.rsqrt((x * x).mean(1, keepdim=True) + EPS)
    gain, bias = gain.view(-1, 1, channels), bias.view(-1, 1, channels)
    return torch.addcmul(bias, x.mul_(rstd), gain), (x, mean, rstd)


def normed_back(
    g: torch.Tensor, kept: Kept, gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the rows ``[B, R, C]`` and, per task, of gain and bias ``[B, C]``.

    Without B where ``normed`` was.
    """
    x, mean, rstd = kept
    if g.dim() == 2:
        args = (gain, None, None, mean, rstd, True, EPS, [True] * 3)
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
        found = torch.ops.aten.native_batch_norm_backward(g, x, *args)
        return found
    if len(g) == 1 and gain.numel() == g.shape[-1]:
        one = normed_back(g[0], (x[0], mean.view(-1), rstd.view(-1)), gain.view(-1))
        return one[0][None], one[1][None], one[2][None]
    rows = x.shape[1]
    g_bias, g_gain = g.sum(1, keepdim=True), (g * x).sum(1, keepdim=True)
    centred = torch.addcmul(g - g_bias / rows, x, g_gain, value=-1 / rows)
    return centred.mul_(rstd * gain.view(-1, 1, g.shape[-1])), g_gain[:, 0], g_bias[:, 0]
