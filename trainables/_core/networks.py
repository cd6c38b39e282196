"""Networks as lists of named layers: Conv-4 students and teachers, ResNet teachers.

A pattern has one bit per layer, input side first, head last: for Conv-4 each convolution, for a
ResNet its stem and stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from trainables._core.blocks import Lane, alone, lanes, written_out
from trainables._core.heads import Head
from trainables._core.layers import ConvBlock, Layer, Params, Shape, Statistics
from trainables._core.residual import ResidualStage, Stem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KNOWN_LANES = 32  # shapes of tasks whose lanes a network holds
TEACHERS = ("conv4", "resnet12", "resnet18", "resnet50")


@dataclass(frozen=True)
class Network:
    """A body of named layers and a head over its flattened (or averaged) last map."""

    body: tuple[Layer, ...]
    head: Head
    pooled: bool  # the head reads the average over the last map (ResNets), not all of it (Conv-4)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the pattern's bits, input side first."""
        return (*(layer.name for layer in self.body), self.head.name)

    @property
    def into(self) -> Shape:
        """C, H, W of its input images."""
        return self.body[0].into

    @property
    def measures(self) -> bool:
        """Whether its norms use batch statistics, which somebody has to measure."""
        return self.body[0].norm == "batch"

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters theta, drawn from the generator alone."""
        params: Params = {}
        for layer in self.body:
            params |= layer.init(generator)
        return params | self.head.init(generator)

    def parameters(self) -> int:
        """Numbers the network stores before it meets a task."""
        return sum(layer.parameters() for layer in self.body) + self.head.parameters()

    def macs(self, ways: int) -> int:
        """Multiply-accumulates of one image's prediction among ``ways`` classes."""
        return sum(layer.macs() for layer in self.body) + self.head.macs(ways)

    def run(
        self,
        params: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        stats: Statistics | None = None,
        span: slice = slice(None),
        rows: torch.Tensor | None = None,
        *,
        once: bool = False,
    ) -> torch.Tensor:
        """The body's layers in ``span``. ``[B, M, H, W, C] -> [B, M, H', W', C']``.

        With ``once`` nobody asks for second derivatives. ``rows`` are
        ``self.rows(x, start of the span)``, for whoever passes over ``x`` again.
        """
        if x.shape[0] == 1 and not torch.is_grad_enabled() and not (stats and stats.replay):
            through = self.lanes(span, x.shape[1], x.shape[1], x.device)
            if through:
                return alone(through, params, x, stats, rows)
        for index, layer in enumerate(self.body[span]):
            x = layer.forward(params, x, stats, None if index else rows, once=once)
        return x

    def lanes(
        self, span: slice, images: int, together: int, device: torch.device
    ) -> Sequence[Lane]:
        """The layers in ``span`` where all of them can go without autograd, else none.

        Args:
            span: which layers.
            images: of a task.
            together: of all tasks.
            device: where.
        """
        key = (span.start, span.stop, images, together, device)
        found = self._known_lanes.get(key)
        if found is None:
            layers = self.body[span]
            blocks = [layer for layer in layers if isinstance(layer, ConvBlock)]
            blocks = blocks if written_out(layers, images) else []
            found = lanes(blocks, together, device)
            if len(self._known_lanes) >= KNOWN_LANES:
                self._known_lanes.clear()
            self._known_lanes[key] = found
        return found

    @override
    def __getstate__(self) -> dict[str, object]:
        """Without what is made anew where it is missing, and cannot travel."""
        return {name: value for name, value in vars(self).items() if name != "_known_lanes"}

    @cached_property
    def _known_lanes(self) -> dict[tuple[object, ...], Sequence[Lane]]:
        return {}

    def rows(self, x: torch.Tensor, level: int) -> torch.Tensor | None:
        """What the layer at ``level`` gathers from its input, if that is worth keeping."""
        return self.body[level].rows(x) if level < len(self.body) else None

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head reads. ``[B, M, H, W, C] -> [B, M, F]``, or without B."""
        return x.mean((-3, -2)) if self.pooled else x.flatten(-3)


def _check_size(layer: Layer, into: Shape, remedy: str) -> None:
    if min(layer.out[1:]) < 1:
        msg = (
            f"Images of {into[1]}x{into[2]} px are too small: nothing is left of them at "
            f"{layer.name}; {remedy}."
        )
        raise ValueError(msg)


def conv4(
    into: Shape,
    *,
    width: int,
    depth: int = 4,
    norm: str = "batch",
    head: str = "prototype",
    down: str = "stride",
    ways: int = 5,
) -> Network:
    """The Conv-4 family (MAML paper): ``depth`` blocks of ``width`` filters, then the head.

    Raises:
        ValueError: nothing is left of the images before the last block.
    """
    layers: list[Layer] = []
    shape = into
    for index in range(depth):
        layer = ConvBlock(f"conv{index + 1}", shape, width, norm, down)
        _check_size(layer, into, "use fewer blocks (student.depth) or larger images")
        layers.append(layer)
        shape = layer.out
    return Network(tuple(layers), Head(head, shape[0] * shape[1] * shape[2], ways), pooled=False)


def _resnet(
    into: Shape,
    kind: str,
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    stem: int,
    norm: str,
    head: Head,
) -> Network:
    layers: list[Layer] = []
    shape = into
    if stem:
        layers.append(Stem("stem", shape, stem, norm))
        shape = layers[-1].out
    for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        stride = 1 if index == 0 or kind == "triple" else 2
        stage = ResidualStage(f"stage{index + 1}", shape, width, norm, kind, count, stride)
        _check_size(stage, into, "use another teacher (teacher.kind) or larger images")
        layers.append(stage)
        shape = layers[-1].out
    return Network(tuple(layers), head, pooled=True)


def teacher(
    kind: str,
    into: Shape,
    *,
    width: int,
    norm: str = "batch",
    head: str = "prototype",
    ways: int = 5,
) -> Network:
    """A teacher by name. ``width`` is the first stage's; the others keep the family's ratios.

    Published widths: ResNet-12 64 (64-160-320-640), ResNet-18 64, ResNet-50 64 (256 after
    expansion). The stem is 3x3 without pooling, for images of 28-84 px [our default].

    Raises:
        ValueError: the kind is not one of ``TEACHERS``, or the images are too small.
    """
    if kind == "conv4":
        return conv4(into, width=width, norm=norm, head=head, ways=ways)
    if kind == "resnet12":
        widths = (width, width * 5 // 2, width * 5, width * 10)
        return _resnet(into, "triple", widths, (1, 1, 1, 1), 0, norm, Head(head, widths[-1], ways))
    if kind == "resnet18":
        widths = (width, width * 2, width * 4, width * 8)
        blocks = (2, 2, 2, 2)
        return _resnet(into, "basic", widths, blocks, width, norm, Head(head, widths[-1], ways))
    if kind == "resnet50":
        widths = (width * 4, width * 8, width * 16, width * 32)
        blocks = (3, 4, 6, 3)
        return _resnet(
            into, "bottleneck", widths, blocks, width, norm, Head(head, widths[-1], ways)
        )
    msg = f"A teacher is one of {', '.join(TEACHERS)}; found {kind!r}."
    raise ValueError(msg)
