"""Layers as pure functions over parameters that are shared by all tasks or owned by each.

B tasks travel side by side in the channels: an activation is ``[M, B*C, H, W]``, image m of
every task in row m. The same memory viewed as ``[M*B, C, H, W]`` is an ordinary batch, so a
layer whose weights all tasks share (a frozen one) is one ordinary convolution, and a layer
whose weights each task owns (an updated one) is one grouped convolution. Normalisation by
batch statistics is per task in both, because a task's channels stay its own.

A parameter owned by each task carries a leading dimension B; a shared one does not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

Params = dict[str, torch.Tensor]
Shape = tuple[int, ...]
EPS = 1e-5
GROUP_CHANNELS = 8  # channels per group of the norm without batch statistics: our default


@dataclass
class Statistics:
    """Batch-norm statistics of one pass, in call order.

    While ``replay`` is false, a pass appends what it measures, differentiably; with ``replay``
    a pass consumes them instead of measuring its own images (the inductive mode: query images
    are normalised with the statistics of the support set).
    """

    replay: bool = False
    values: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    position: int = 0

    def replayed(self, position: int = 0) -> Statistics:
        """A reader of these statistics that starts at the norm numbered ``position``."""
        return Statistics(replay=True, values=self.values, position=position)


def per_task(parameter: torch.Tensor, tasks: int, ndim: int) -> torch.Tensor:
    """The parameter with its leading dimension B, expanded if all tasks share it."""
    return parameter if parameter.dim() == ndim + 1 else parameter.expand(tasks, *parameter.shape)


def conv(x: torch.Tensor, weight: torch.Tensor, tasks: int, stride: int) -> torch.Tensor:
    """Convolution without bias, odd kernel, same padding. ``[M, B*C, H, W] -> [M, B*O, h, w]``."""
    padding = weight.shape[-1] // 2
    if weight.dim() == 5:
        flat = weight.reshape(-1, *weight.shape[2:])
        return F.conv2d(x, flat, None, stride, padding, groups=tasks)
    images = x.shape[0]
    y = F.conv2d(x.reshape(images * tasks, -1, *x.shape[2:]), weight, None, stride, padding)
    return y.view(images, -1, *y.shape[2:])


def norm(
    x: torch.Tensor,
    params: Mapping[str, torch.Tensor],
    prefix: str,
    tasks: int,
    kind: str,
    stats: Statistics | None,
) -> torch.Tensor:
    """Batch or group normalisation of ``[M, B*C, H, W]``, per task."""
    gain = per_task(params[f"{prefix}.gain"], tasks, 1).reshape(-1)
    bias = per_task(params[f"{prefix}.bias"], tasks, 1).reshape(-1)
    if kind == "group":
        groups = x.shape[1] // tasks // group_size(x.shape[1] // tasks)
        return F.group_norm(x, tasks * groups, gain, bias, EPS)
    if stats is None:
        return F.batch_norm(x, None, None, gain, bias, training=True, eps=EPS)
    if stats.replay:
        mean, var = stats.values[stats.position]
        stats.position += 1
    else:
        var, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
        stats.values.append((mean, var))
    scale = torch.rsqrt(var + EPS) * gain
    return x * scale.view(1, -1, 1, 1) + (bias - mean * scale).view(1, -1, 1, 1)


def group_size(channels: int) -> int:
    """Channels per group: the largest divisor of the channels not above GROUP_CHANNELS."""
    return next(size for size in range(GROUP_CHANNELS, 0, -1) if channels % size == 0)


def _conv_init(generator: torch.Generator, out: int, into: int, kernel: int) -> torch.Tensor:
    """He et al. 2015, fan-in: the usual start in front of a ReLU."""
    scale = math.sqrt(2.0 / (into * kernel * kernel))
    return torch.randn(out, into, kernel, kernel, generator=generator) * scale


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

    @abstractmethod
    def forward(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        tasks: int,
        stats: Statistics | None,
    ) -> torch.Tensor:
        """``[M, B*C, H, W] -> [M, B*C', H', W']``."""

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


def _halved(side: int) -> int:
    return (side + 1) // 2


@final
@dataclass(frozen=True)
class ConvBlock(Layer):
    """conv3x3, norm, ReLU, and a halving by stride 2 or by 2x2 max-pooling (MAML paper)."""

    down: str  # "stride" | "pool" | "none"

    @property
    @override
    def out(self) -> Shape:
        _, h, w = self.into
        if self.down == "stride":
            return self.width, _halved(h), _halved(w)
        return (self.width, h // 2, w // 2) if self.down == "pool" else (self.width, h, w)

    @override
    def convs(self) -> list[Conv]:
        c, h, w = self.into
        if self.down == "stride":
            h, w = _halved(h), _halved(w)
        return [Conv("conv", c, self.width, 3, h, w)]

    @override
    def forward(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        tasks: int,
        stats: Statistics | None,
    ) -> torch.Tensor:
        prefix = f"{self.name}.conv"
        x = conv(x, params[f"{prefix}.weight"], tasks, 2 if self.down == "stride" else 1)
        x = F.relu(norm(x, params, prefix, tasks, self.norm, stats))
        return F.max_pool2d(x, 2) if self.down == "pool" else x


@final
@dataclass(frozen=True)
class Stem(Layer):
    """conv3x3, norm, ReLU at full size: the start of a ResNet for small images."""

    @property
    @override
    def out(self) -> Shape:
        return (self.width, *self.into[1:])

    @override
    def convs(self) -> list[Conv]:
        return [Conv("conv", self.into[0], self.width, 3, *self.into[1:])]

    @override
    def forward(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        tasks: int,
        stats: Statistics | None,
    ) -> torch.Tensor:
        prefix = f"{self.name}.conv"
        x = conv(x, params[f"{prefix}.weight"], tasks, 1)
        return F.relu(norm(x, params, prefix, tasks, self.norm, stats))


@final
@dataclass(frozen=True)
class ResidualStage(Layer):
    """Residual blocks of one resolution; the first of them halves the map.

    ``kind`` is "basic" (two 3x3), "triple" (three 3x3 and a 2x2 max-pool behind the sum:
    ResNet-12 of the few-shot literature) or "bottleneck" (1x1, 3x3, 1x1 at a quarter width).
    """

    kind: str
    blocks: int
    stride: int

    @property
    @override
    def out(self) -> Shape:
        _, h, w = self.into
        if self.kind == "triple":
            return self.width, h // 2, w // 2
        return (self.width, h, w) if self.stride == 1 else (self.width, _halved(h), _halved(w))

    def _block(self, index: int) -> tuple[list[Conv], Conv | None]:
        c, h, w = self.into if index == 0 else (self.width, *self._inner_map())
        oh, ow = self._inner_map()
        n = f"block{index}"
        if self.kind == "bottleneck":
            mid = self.width // 4
            main = [
                Conv(f"{n}.conv1", c, mid, 1, h, w),
                Conv(f"{n}.conv2", mid, mid, 3, oh, ow),
                Conv(f"{n}.conv3", mid, self.width, 1, oh, ow),
            ]
        else:
            count = 3 if self.kind == "triple" else 2
            main = [
                Conv(f"{n}.conv{i + 1}", c if i == 0 else self.width, self.width, 3, oh, ow)
                for i in range(count)
            ]
        changes = index == 0 and (c != self.width or (h, w) != (oh, ow))
        return main, Conv(f"{n}.short", c, self.width, 1, oh, ow) if changes else None

    def _inner_map(self) -> tuple[int, int]:
        _, h, w = self.into
        return (h, w) if self.kind == "triple" else (self.out[1], self.out[2])

    @override
    def convs(self) -> list[Conv]:
        found: list[Conv] = []
        for index in range(self.blocks):
            main, short = self._block(index)
            found += main if short is None else [*main, short]
        return found

    @override
    def forward(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        tasks: int,
        stats: Statistics | None,
    ) -> torch.Tensor:
        for index in range(self.blocks):
            x = self._forward_block(index, params, x, tasks, stats)
        return F.max_pool2d(x, 2) if self.kind == "triple" else x

    def _forward_block(
        self,
        index: int,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        tasks: int,
        stats: Statistics | None,
    ) -> torch.Tensor:
        main, short = self._block(index)
        stride = self.stride if index == 0 else 1
        strided = 1 if self.kind == "bottleneck" else 0  # which of the block's convolutions strides
        y = x
        for i, c in enumerate(main):
            prefix = f"{self.name}.{c.name}"
            y = conv(y, params[f"{prefix}.weight"], tasks, stride if i == strided else 1)
            y = norm(y, params, prefix, tasks, self.norm, stats)
            y = F.relu(y) if i + 1 < len(main) else y
        if short is not None:
            prefix = f"{self.name}.{short.name}"
            x = conv(x, params[f"{prefix}.weight"], tasks, stride)
            x = norm(x, params, prefix, tasks, self.norm, stats)
        return F.relu(x + y)
