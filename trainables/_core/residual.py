"""The layers of a ResNet: a stem at full size, and stages of residual blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch.nn.functional as F
from typing_extensions import override

from trainables._core.layers import Conv, Layer, Shape, Statistics, halved, pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


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
        stats: Statistics | None,
        rows: torch.Tensor | None = None,
        *,
        once: bool = False,
    ) -> torch.Tensor:
        (c,) = self.convs()
        return self.convolved(c, params, x, 1, stats, relu=True, rows=rows, once=once)


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
        return (self.width, h, w) if self.stride == 1 else (self.width, halved(h), halved(w))

    def block(self, index: int) -> tuple[list[Conv], Conv | None]:
        """The convolutions of a block, and the one beside them where the sum needs it."""
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

    def stride_of(self, index: int, number: int | None) -> int:
        """The stride of a block's convolution by its number; None: the one beside them."""
        strided = 1 if self.kind == "bottleneck" else 0  # which of the block's convolutions strides
        return self.stride if index == 0 and number in (None, strided) else 1

    def _inner_map(self) -> tuple[int, int]:
        _, h, w = self.into
        return (h, w) if self.kind == "triple" else (self.out[1], self.out[2])

    @override
    def convs(self) -> list[Conv]:
        found: list[Conv] = []
        for index in range(self.blocks):
            main, short = self.block(index)
            found += main if short is None else [*main, short]
        return found

    @override
    def entries(self) -> list[Conv]:
        main, short = self.block(0)
        return main[:1] if short is None else [main[0], short]

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
        for index in range(self.blocks):
            x = self._summed(index, params, x, stats, once=once)
            if self.kind == "triple" and index + 1 == self.blocks:
                return F.relu(pool(x))  # of a quarter of the numbers the same as in front of it
            x = x.relu_()
        return x

    def _summed(
        self,
        index: int,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        stats: Statistics | None,
        *,
        once: bool,
    ) -> torch.Tensor:
        main, short = self.block(index)
        y = x
        for i, c in enumerate(main):
            last = i + 1 == len(main)
            stride = self.stride_of(index, i)
            y = self.convolved(c, params, y, stride, stats, relu=not last, once=once)
        if short is not None:
            stride = self.stride_of(index, None)
            x = self.convolved(short, params, x, stride, stats, relu=False, once=once)
        return x + y
