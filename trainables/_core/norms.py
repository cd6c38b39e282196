"""Batch normalisation of a task's rows: twice differentiable, and written out by hand.

``batch_norm`` is twice differentiable; ``normed`` and ``normed_back`` are what first derivatives
written out by hand need, without a graph. One task may come to these without the dimension of
tasks, ``[R, C]`` for ``[1, R, C]``.
"""

from __future__ import annotations

from typing import Any

import torch
from typing_extensions import override

EPS = 1e-5


Grad = torch.Tensor | None


class _Norm(torch.autograd.Function):
    """y -> x gain + bias with x = (y - mean) rstd over the rows of a task.

    x, mean and rstd are outputs too: the graph hangs on the outputs alone, so y is not kept.
    """

    @staticmethod
    @override
    def forward(
        ctx: Any, y: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        mean = y.mean(1, keepdim=True)
        x = y - mean
        rstd = torch.rsqrt((x * x).mean(1, keepdim=True) + EPS)
        x.mul_(rstd)
        ctx.save_for_backward(x, rstd, gain)
        ctx.set_materialize_grads(False)
        return torch.addcmul(bias, x, gain), x, mean, rstd

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Grad) -> tuple[Grad, Grad, Grad]:
        x, rstd, gain = ctx.saved_tensors
        g, g_x, g_mean, g_rstd = grads
        total = g_gain = g_bias = None
        if g is not None:
            total, g_gain, g_bias = _NormBack.apply(g, x, rstd, gain)
        if g_x is not None:
            told = _projected(g_x, x).mul_(rstd)
            total = told if total is None else total + told
        if g_rstd is not None:  # d rstd / dy = -rstd^2 x / R
            told = x * (g_rstd * rstd.square() / -x.shape[1])
            total = told if total is None else total + told
        if g_mean is not None:
            told = (g_mean / x.shape[1]).expand_as(x)
            total = told if total is None else total + told
        return total, g_gain, g_bias


class _NormBack(torch.autograd.Function):
    """g -> s P g with s = rstd gain and P g = g - mean(g) - x mean(g x), and the sums of g x and g.

    P is a projection and symmetric, so the way back applies it once more.
    """

    @staticmethod
    @override
    def forward(
        ctx: Any, g: torch.Tensor, x: torch.Tensor, rstd: torch.Tensor, gain: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        along, total = (g * x).sum(1, keepdim=True), g.sum(1, keepdim=True)
        ctx.save_for_backward(g, x, rstd, gain, along)
        rows = x.shape[1]
        projected = torch.addcmul(g - total / rows, x, along, value=-1 / rows)
        return projected.mul_(rstd * gain), along, total

    @staticmethod
    @override
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        g, x, rstd, gain, along = ctx.saved_tensors
        h, h_along, h_total = grads
        rows, scale = x.shape[1], rstd * gain
        h_x = (h * x).sum(1, keepdim=True)
        projected = torch.addcmul(h - h.sum(1, keepdim=True) / rows, x, h_x, value=-1 / rows)
        inner = (projected * g).sum(1, keepdim=True)  # h P g as well as g P h
        to_x = (g * (h_along - scale * h_x / rows)).addcmul_(h, scale * along / rows, value=-1)
        to_g = projected.mul_(scale).add_(h_total).addcmul_(x, h_along)
        return to_g, to_x, inner * gain, inner * rstd


def _projected(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    along = (g * x).mean(1, keepdim=True)
    return torch.addcmul(g - g.mean(1, keepdim=True), x, along, value=-1)


def batch_norm(
    y: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch norm of every task's rows, twice differentiable.

    Args:
        y: ``[B, R, C]``.
        gain: ``[B, 1, C]``, or ``[1, 1, C]`` of all tasks.
        bias: the same.

    Returns:
        Its output, and the mean and 1/std ``[B, 1, C]`` that the rows were measured with, of which
        either can be differentiated.
    """
    size = (y.shape[0], 1, y.shape[2])
    out, _, mean, rstd = _Norm.apply(y, gain.expand(size), bias.expand(size))
    return out, mean, rstd


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
