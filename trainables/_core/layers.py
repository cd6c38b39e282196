"""Layers as pure functions over parameters that are shared by all tasks or owned by each.

B tasks travel together: an activation is ``[B, M, H, W, C]``, channels last, so that its rows
``[B, M*H*W, C]`` are what a matrix product and a norm per task want. A parameter owned by each
task carries a leading dimension B (an updated layer); a shared one does not (a frozen layer).
Convolution weights are ``[k, k, C, O]``, so that they are a matrix without a copy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from typing_extensions import override

from trainables._core.kernels import Window, patches, product
from trainables._core.norms import EPS, batch_norm, normed

if TYPE_CHECKING:
    from collections.abc import Mapping


Params = dict[str, torch.Tensor]
Shape = tuple[int, ...]
GROUP_CHANNELS = 8  # channels per group of the norm without batch statistics: our default
MANY_ROWS, MANY_PATCHES = 1024, 2**19  # beyond both, torch's convolution is faster: measured
ONCE_ROWS, ONCE_PATCHES = 512, 2**17  # the same where it is differentiated once
ALONE_LOOKS = 2**17  # patches of one task, not differentiated; twice as many at stride 2: measured


@dataclass
class Statistics:
    """Mean and 1/std ``[B, 1, C]`` of every batch norm of one pass, in call order.

    Those of one task may be ``[C]``.

    While ``replay`` is false, a pass appends what it measures, differentiably; with ``replay``
    a pass consumes them instead of measuring its own images (the inductive mode: query images
    are normalised with the statistics of the support set).
    """

    replay: bool = False
    values: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    position: int = 0

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the next norm, while they are replayed."""
        self.position += 1
        return self.values[self.position - 1]

    def replayed(self, position: int = 0) -> Statistics:
        """A reader of these statistics that starts at the norm numbered ``position``."""
        return Statistics(replay=True, values=self.values, position=position)


def conv(
    x: torch.Tensor, weight: torch.Tensor, stride: int, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """Convolution without bias, odd kernel, same padding. ``[B, M, H, W, C] -> [B, M*h*w, O]``.

    ``rows`` are the patches of ``x`` where somebody has them already.
    """
    if rows is None:
        window = Window(x.shape[2], x.shape[3], weight.shape[-3], stride)
        if wide(window, x.shape[1], x.shape[-1]):
            return _wide_conv(x, weight, window)
        rows = patches(x, window)
    return product(rows, matrix(weight))


def _fused(
    images: torch.Tensor,
    weight: torch.Tensor,
    gain: torch.Tensor,
    bias: torch.Tensor,
    stride: int,
    measured: tuple[torch.Tensor, torch.Tensor] | None,
    rows: torch.Tensor | None,
    *,
    relu: bool,
) -> torch.Tensor:
    """One task's convolution and batch norm in torch's own calls, of which each is differentiable.

    Where the statistics are known already the norm is a part of the kernel: W diag(s) and
    b - mean s with s = gain / std, so that it costs no pass over the map and none on the way back.
    """
    window = Window(images.shape[1], images.shape[2], weight.shape[0], stride)
    shift, by_torch = None, rows is None and wide(window, len(images), images.shape[-1], once=True)
    if measured is not None:
        mean, rstd = (value.view(-1) for value in measured)
        scale = rstd * gain
        weight, shift = weight * scale, torch.addcmul(bias, mean, scale, value=-1)
    if by_torch:
        kernel = weight.permute(3, 2, 0, 1)
        y = F.conv2d(_channels_second(images), kernel, shift, stride, weight.shape[0] // 2)
    else:
        rows = patches(images.unsqueeze(0), window).squeeze(0) if rows is None else rows
        kernel = weight.flatten(0, 2)
        y = torch.mm(rows, kernel) if shift is None else torch.addmm(shift, rows, kernel)
    if shift is None:
        y = F.batch_norm(y, None, None, gain, bias, training=True, eps=EPS)
    if relu:  # in place while it is nobody's view
        y = y.relu_()
    return y.permute(0, 2, 3, 1) if by_torch else y.view(len(images), *window.out, -1)


def matrix(weight: torch.Tensor) -> torch.Tensor:
    """A kernel as what patches are multiplied with: ``[..., k, k, C, O] -> [..., k*k*C, O]``."""
    return weight.flatten(-4, -2)


def wide(window: Window, images: int, channels: int, *, once: bool = False) -> bool:
    """Whether a task's patches are so many that torch's own convolution is the faster one.

    A kernel of one pixel has its patches for nothing; and torch 2.13's way back from such a
    convolution with a stride, channels last, may never return (oneDNN on AVX2, 2 channels to 4).
    """
    if window.kernel == 1:
        return False
    rows = images * window.out[0] * window.out[1]
    most, most_patches = (ONCE_ROWS, ONCE_PATCHES) if once else (MANY_ROWS, MANY_PATCHES)
    return rows > most and rows * window.kernel**2 * channels > most_patches


def wide_alone(window: Window, images: int, channels: int) -> bool:
    """The same for a CPU and a task that is alone, where nobody differentiates."""
    looks = images * window.looks * channels
    return channels > 1 and looks >= ALONE_LOOKS * window.stride


def convolved(x: torch.Tensor, weight: torch.Tensor, window: Window) -> torch.Tensor:
    """Rows ``[M*h*w, O]`` by torch's own routine, of images and a kernel in whatever shape."""
    channels, out, k = x.shape[-1], weight.shape[-1], window.kernel
    maps = _channels_second(x.reshape(-1, window.height, window.width, channels))
    kernel = weight.view(k, k, channels, out).permute(3, 2, 0, 1)
    y = F.conv2d(maps, kernel, None, window.stride, k // 2)
    return y.permute(0, 2, 3, 1).reshape(-1, out)


def _channels_second(images: torch.Tensor) -> torch.Tensor:
    """``[M, H, W, C] -> [M, C, H, W]``, whose strides tell torch that channels are last.

    A lone channel's stride means nothing and may be whatever a view left there; torch reads it all
    the same, and sends every map behind it through its slower routines for images first.
    """
    if images.shape[-1] == 1:
        images = images.squeeze(-1).unsqueeze(-1)
    return images.permute(0, 3, 1, 2)


def _wide_conv(x: torch.Tensor, weight: torch.Tensor, window: Window) -> torch.Tensor:
    """The same by torch's own routine, one call a task where each has its own weights."""
    if weight.dim() == 5:
        parts = [convolved(*pair, window) for pair in zip(x, weight, strict=True)]
        return torch.stack(parts) if len(parts) > 1 else parts[0][None]
    return convolved(x, weight, window).view(len(x), -1, weight.shape[-1])


def norm(
    y: torch.Tensor,
    params: Mapping[str, torch.Tensor],
    prefix: str,
    kind: str,
    images: int,
    stats: Statistics | None,
    *,
    relu: bool,
) -> torch.Tensor:
    """Batch or group normalisation of the rows ``[B, M*h*w, C]``, per task, and a ReLU in place."""
    out = _norm(y, params, prefix, kind, images, stats)
    return out.relu_() if relu else out


def _norm(
    y: torch.Tensor,
    params: Mapping[str, torch.Tensor],
    prefix: str,
    kind: str,
    images: int,
    stats: Statistics | None,
) -> torch.Tensor:
    gain, bias = params[f"{prefix}.gain"], params[f"{prefix}.bias"]
    gain, bias = gain.view(-1, 1, gain.shape[-1]), bias.view(-1, 1, bias.shape[-1])
    if kind == "group":
        maps = y.reshape(len(y) * images, -1, y.shape[-1]).transpose(1, 2)
        groups = y.shape[-1] // group_size(y.shape[-1])
        x = torch.group_norm(maps, groups, eps=EPS)  # not F's, which refuses a group of one number
        return torch.addcmul(bias, x.transpose(1, 2).reshape(y.shape), gain)
    if stats is not None and stats.replay:
        mean, rstd = stats.next()
        scale = rstd * gain
        return torch.addcmul(bias - mean * scale, y, scale)
    if torch.is_grad_enabled() and (y.requires_grad or gain.requires_grad):
        out, mean, rstd = batch_norm(y, gain, bias)
    else:
        out, (_, mean, rstd) = normed(y, gain, bias)
    if stats is not None:
        stats.values.append((mean, rstd))
    return out


def group_size(channels: int) -> int:
    """Channels per group: the largest divisor of the channels not above GROUP_CHANNELS."""
    return next(size for size in range(GROUP_CHANNELS, 0, -1) if channels % size == 0)


def pool(x: torch.Tensor) -> torch.Tensor:
    """2x2 max-pooling of ``[B, M, H, W, C]``."""
    y = F.max_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), 2)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], *y.shape[2:], -1)


def _conv_init(generator: torch.Generator, out: int, into: int, kernel: int) -> torch.Tensor:
    """He et al. 2015, fan-in: the usual start in front of a ReLU."""
    scale = math.sqrt(2.0 / (into * kernel * kernel))
    drawn = torch.randn(out, into, kernel, kernel, generator=generator) * scale
    return drawn.permute(2, 3, 1, 0).contiguous()


@dataclass(frozen=True)
class Layer(ABC):
    """One bit of a pattern: a named part of the body, with its parameters' names under it."""

    name: str
    into: Shape  # C, H, W of its input
    width: int  # channels of its output
    norm: str

    @property
    @abstractmethod
    def out(self) -> Shape:
        """C, H, W of its output."""

    @abstractmethod
    def convs(self) -> list[Conv]:
        """Its convolutions with the sizes they work on, from which cost and weights follow."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of its parameters, in the order of its convolutions."""
        suffixes = ("weight", "gain", "bias")
        return tuple(f"{self.name}.{c.name}.{suffix}" for c in self.convs() for suffix in suffixes)

    def entries(self) -> list[Conv]:
        """Those of its convolutions that read the layer's own input."""
        return self.convs()[:1]

    @abstractmethod
    def forward(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        stats: Statistics | None,
        rows: torch.Tensor | None = None,
        *,
        once: bool = False,
    ) -> torch.Tensor:
        """``[B, M, H, W, C] -> [B, M, H', W', C']``; ``rows`` as ``self.rows(x)`` gave them.

        With ``once`` nobody asks for second derivatives, which is used where B is 1.
        """

    def rows(self, _x: torch.Tensor) -> torch.Tensor | None:
        """What every pass over the same ``x`` would gather again; None where that is nothing."""
        return None

    @final
    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, drawn from the generator alone."""
        params: Params = {}
        for c in self.convs():
            params[f"{self.name}.{c.name}.weight"] = _conv_init(generator, c.out, c.into, c.kernel)
            params[f"{self.name}.{c.name}.gain"] = torch.ones(c.out)
            params[f"{self.name}.{c.name}.bias"] = torch.zeros(c.out)
        return params

    @final
    def convolved(
        self,
        c: Conv,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        stride: int,
        stats: Statistics | None,
        *,
        relu: bool,
        rows: torch.Tensor | None = None,
        once: bool = False,
    ) -> torch.Tensor:
        """A convolution of its and the norm behind it. ``[B, M, H, W, C] -> [B, M, h, w, O]``."""
        prefix = f"{self.name}.{c.name}"
        if once and x.shape[0] == 1 and self.norm == "batch" and (stats is None or stats.replay):
            named = [params[f"{prefix}.{name}"] for name in ("weight", "gain", "bias")]
            weight, gain, bias = (p.squeeze(0) if p.dim() in (2, 5) else p for p in named)
            measured = None if stats is None else stats.next()
            own = None if rows is None else rows.squeeze(0)
            return _fused(
                x.squeeze(0), weight, gain, bias, stride, measured, own, relu=relu
            ).unsqueeze(0)
        y = conv(x, params[f"{prefix}.weight"], stride, rows)
        y = norm(y, params, prefix, self.norm, x.shape[1], stats, relu=relu)
        return y.view(*x.shape[:2], c.height, c.width, c.out)

    @final
    def macs(self) -> int:
        """Multiply-accumulates of its convolutions for one image; norms are not counted."""
        return sum(c.macs() for c in self.convs())

    @final
    def parameters(self) -> int:
        """Numbers it stores: weights, gains and biases."""
        return sum(c.out * c.into * c.kernel**2 + 2 * c.out for c in self.convs())


@dataclass(frozen=True)
class Conv:
    """A convolution with its norm: ``out`` x ``into`` kernels over ``height`` x ``width``."""

    name: str
    into: int
    out: int
    kernel: int
    height: int
    width: int  # of its output map

    def macs(self) -> int:
        """Out * height * width * into * kernel^2."""
        return self.out * self.height * self.width * self.into * self.kernel**2


def halved(side: int) -> int:
    """A side after a stride of 2 with same padding."""
    return (side + 1) // 2


@final
@dataclass(frozen=True)
class ConvBlock(Layer):
    """conv3x3, norm, ReLU, and a halving by stride 2 or by 2x2 max-pooling (MAML paper)."""

    down: str  # "stride" | "pool"

    @cached_property
    @override
    def out(self) -> Shape:
        _, h, w = self.into
        if self.down == "stride":
            return self.width, halved(h), halved(w)
        return self.width, h // 2, w // 2

    @override
    def convs(self) -> list[Conv]:
        return [Conv("conv", self.into[0], self.width, 3, *self.window.out)]

    @cached_property
    def window(self) -> Window:
        """Where its kernel looks."""
        return Window(self.into[1], self.into[2], 3, 2 if self.down == "stride" else 1)

    @override
    def rows(self, x: torch.Tensor) -> torch.Tensor | None:
        return None if wide(self.window, x.shape[1], x.shape[-1]) else patches(x, self.window)

    @override
    def forward(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        stats: Statistics | None,
        rows: torch.Tensor | None = None,
        *,
        once: bool = False,
    ) -> torch.Tensor:
        (c,) = self.convs()
        stride = self.window.stride
        pooled = self.down == "pool"  # a ReLU behind it is the same, of a quarter of the numbers
        x = self.convolved(c, params, x, stride, stats, relu=not pooled, rows=rows, once=once)
        return F.relu(pool(x)) if pooled else x
