"""Layers of one task with their way back written out, in operations that can be exported.

The engine of ``adapt`` gathers with index lists made for a number of images, and leaves what it
has not written out to autograd; an exported program has neither. Here every list is one image's,
so that a task may have any number of images, and every gradient is a handful of plain operations.
A convolution gathers patches and multiplies, its adjoint gathers once more and adds up.

``plain`` writes norms and pooling out too, for formats that know no call for their gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from trainables._core.kernels import Window, looks_at, seen_by, sums
from trainables._core.layers import ConvBlock, convolved, group_size, wide
from trainables._core.norms import EPS
from trainables._core.residual import ResidualStage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trainables._core.layers import Conv, Layer, Params

    # the gradient behind an operation -> the one before it; None where nobody asks for it
    Back = Callable[[torch.Tensor], torch.Tensor | None]


class Maps(NamedTuple):
    """Activations ``[M, height * width, C]``."""

    x: torch.Tensor
    height: int
    width: int


def windows(layers: Iterable[Layer]) -> set[Window]:
    """Everything that convolutions of these layers look through."""
    found: set[Window] = set()
    for layer in layers:
        side = layer.into[1], layer.into[2]
        if isinstance(layer, ResidualStage):
            for index in range(layer.blocks):
                main, short = layer.block(index)
                inner = side
                for number, c in enumerate(main):
                    found.add(Window(*inner, c.kernel, layer.stride_of(index, number)))
                    inner = c.height, c.width
                if short is not None:
                    found.add(Window(*side, short.kernel, layer.stride_of(index, None)))
                side = inner
        else:
            (c,) = layer.convs()
            found.add(Window(*side, c.kernel, _stride(layer)))
    return {w for w in found if not _looks_at_itself(w)}


def _stride(layer: Layer) -> int:
    return layer.window.stride if isinstance(layer, ConvBlock) else 1


def _looks_at_itself(window: Window) -> bool:
    return window.kernel == 1 and window.stride == 1


Lists = dict[Window, tuple[torch.Tensor, torch.Tensor]]  # to gather and to scatter, of one image
Bag = tuple[torch.Tensor, torch.Tensor]  # rows one after the other, and where each sum starts
Bags = dict[Window, tuple[Bag, Bag]]  # the same for all images of a task


def lists_of(window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """Index lists of one image, int32: its pixels seen by every look, and its looks by pixel."""
    return looks_at(window).int(), seen_by(window).int()


def repeated(bag: Bag, images: torch.Tensor, rows: int) -> Bag:
    """One image's bag for all, whose numbers are ``images``; each has so many rows."""
    ids, starts = bag
    return (
        (ids + (images * rows).unsqueeze(1)).view(-1),
        (starts + (images * len(ids)).unsqueeze(1)).view(-1),
    )


class Tape:
    """A pass over layers, which can be gone back once.

    Args:
        lists: of every window of these layers.
        bags: the same of all images, for a call that adds up rows: faster where passes share them.
        params: kernels as matrices ``[k*k*C, O]``, gains and biases ``[O]``.
        norm: batch or group.
        images: that a task usually has; chooses between two ways of the same convolution.
        updated: names of those that ``moved`` is to hold, each less its gradient.
        entry: what the first layer reads, gathered once for all passes over it.
        plain: no calls for the gradients of norms and pooling.
    """

    def __init__(
        self,
        lists: Lists,
        params: Mapping[str, torch.Tensor],
        norm: str,
        images: int,
        *,
        bags: Bags,
        updated: frozenset[str] = frozenset(),
        entry: Entry | None = None,
        plain: bool = False,
    ) -> None:
        self._bags = bags
        self._lists, self._params, self._kind, self._images = lists, params, norm, images
        self._updated, self._entry, self._plain = updated, entry, plain
        self.moved: Params = {}
        self.measured: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # mean and 1/std

    def through(self, layers: Iterable[Layer], maps: Maps) -> tuple[Maps, Back]:
        """All layers one after the other."""
        backs: list[Back] = []
        for layer in layers:
            maps, back = self._layer(layer, maps)
            backs.append(back)
        return maps, lambda g: _chained(backs, g)

    def _layer(self, layer: Layer, maps: Maps) -> tuple[Maps, Back]:
        if isinstance(layer, ResidualStage):
            backs = []
            for index in range(layer.blocks):
                maps, back = self._block(layer, index, maps)
                backs.append(back)
        else:
            (c,) = layer.convs()
            maps, back = self._convolved(layer, c, maps, _stride(layer), relu=True)
            backs = [back]
        if getattr(layer, "down", "") == "pool" or getattr(layer, "kind", "") == "triple":
            maps, back = self._pooled(maps)
            backs.append(back)
        return maps, lambda g: _chained(backs, g)

    def _block(self, stage: ResidualStage, index: int, maps: Maps) -> tuple[Maps, Back]:
        main, short = stage.block(index)
        y, backs = maps, []
        for number, c in enumerate(main):
            last = number + 1 == len(main)
            stride = stage.stride_of(index, number)
            y, one = self._convolved(stage, c, y, stride, relu=not last)
            backs.append(one)
        beside, past = maps, None
        if short is not None:
            stride = stage.stride_of(index, None)
            beside, past = self._convolved(stage, short, maps, stride, relu=False)
        out = torch.relu(y.x + beside.x)

        def back(g: torch.Tensor) -> torch.Tensor | None:
            g = _behind_relu(g, out)
            through = _chained(backs, g)
            around = g if past is None else past(g)
            return None if through is None or around is None else through + around

        return y._replace(x=out), back

    def _convolved(
        self, layer: Layer, c: Conv, maps: Maps, stride: int, *, relu: bool
    ) -> tuple[Maps, Back]:
        prefix = f"{layer.name}.{c.name}"
        window = Window(maps.height, maps.width, c.kernel, stride)
        y, before = self._conv(prefix, window, maps.x)
        z, between = self._norm(prefix, y, c.height * c.width)
        out = torch.relu(z) if relu else z

        def back(g: torch.Tensor) -> torch.Tensor | None:
            g = _behind_relu(g, out) if relu else g.reshape(-1, c.out)
            return before(between(g))

        return Maps(out.view(-1, c.height * c.width, c.out), c.height, c.width), back

    def _conv(self, prefix: str, window: Window, x: torch.Tensor) -> tuple[torch.Tensor, Back]:
        name = f"{prefix}.weight"
        weight = self._params[name]
        if not self._updated and wide(window, self._images, x.shape[-1]):
            return convolved(x, weight, window), _nobody
        at_entry = self._entry is not None and x is self._entry.x
        rows = self._entry.rows(window, self._gather) if at_entry and self._entry else None
        rows = self._gather(x, window) if rows is None else rows

        def back(g: torch.Tensor) -> torch.Tensor | None:
            if name in self._updated:
                self.moved[name] = torch.addmm(weight, rows.t(), g, alpha=-1)
            if at_entry:
                return None
            return self._scatter(torch.mm(g, weight.t()), window, x.shape[-1])

        return torch.mm(rows, weight), back

    def _gather(self, x: torch.Tensor, window: Window) -> torch.Tensor:
        if window not in self._bags:
            return _gather(x, window, self._lists)
        rows = sums(x.reshape(-1, x.shape[-1]), self._bags[window][0])
        return rows.view(-1, window.kernel**2 * x.shape[-1])

    def _scatter(self, g: torch.Tensor, window: Window, channels: int) -> torch.Tensor:
        if window not in self._bags:
            return _scatter(g, window, channels, self._lists)
        pixels = sums(g.view(-1, channels), self._bags[window][1])
        return pixels.view(-1, window.height * window.width, channels)

    def _norm(
        self, prefix: str, y: torch.Tensor, positions: int
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        gain, bias = self._params[f"{prefix}.gain"], self._params[f"{prefix}.bias"]
        if self._kind == "batch" and not self._plain:
            z, mean, rstd, undo = _batch_norm(y, gain, bias)
        else:
            z, mean, rstd, undo = _any_norm(y, gain, bias, _shape(self._kind, positions, len(gain)))
        if self._kind == "batch":
            flat = (mean, rstd) if mean.dim() == 1 else (mean.view(-1), rstd.view(-1))
            self.measured[prefix] = flat

        def back(g: torch.Tensor) -> torch.Tensor:
            g, g_gain, g_bias = undo(g)
            for name, value, own in (("gain", gain, g_gain), ("bias", bias, g_bias)):
                if f"{prefix}.{name}" in self._updated:
                    self.moved[f"{prefix}.{name}"] = value - own
            return g

        return z, back

    def _pooled(self, maps: Maps) -> tuple[Maps, Back]:
        h, w = maps.height // 2, maps.width // 2
        x = maps.x.view(-1, maps.height, maps.width, maps.x.shape[-1])
        out, back = (_pool_by_hand if self._plain else _pool)(x, h, w)
        return Maps(out.reshape(-1, h * w, x.shape[-1]), h, w), back


class Entry:
    """The map that every pass of a suffix reads, and what was gathered from it."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        self._rows: dict[Window, torch.Tensor] = {}

    def rows(
        self, window: Window, gather: Callable[[torch.Tensor, Window], torch.Tensor]
    ) -> torch.Tensor:
        """Its patches, gathered when they are first asked for."""
        if window not in self._rows:
            self._rows[window] = gather(self.x, window)
        return self._rows[window]


def _chained(backs: list[Back], g: torch.Tensor) -> torch.Tensor | None:
    """Back through all of them, the last one first."""
    told: torch.Tensor | None = g
    for back in reversed(backs):
        told = None if told is None else back(told)
    return told


def _nobody(_: torch.Tensor) -> torch.Tensor | None:
    return None


def _behind_relu(g: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    g = g.reshape(-1, *out.shape[1:])
    found: torch.Tensor = torch.ops.aten.threshold_backward(g, out, 0)
    return found


def _gather(x: torch.Tensor, window: Window, lists: Lists) -> torch.Tensor:
    """``[M, H*W, C] -> [M*h*w, k*k*C]``."""
    if _looks_at_itself(window):
        return x.reshape(-1, x.shape[-1])
    framed = F.pad(x, (0, 0, 1, 0))  # what lies outside an image is its row 0
    return framed.index_select(1, lists[window][0]).view(-1, window.kernel**2 * x.shape[-1])


def _scatter(g: torch.Tensor, window: Window, channels: int, lists: Lists) -> torch.Tensor:
    """The adjoint, ``[M*h*w, k*k*C] -> [M, H*W, C]``."""
    pixels = window.height * window.width
    if _looks_at_itself(window):
        return g.view(-1, pixels, channels)
    framed = F.pad(g.view(-1, window.looks, channels), (0, 0, 1, 0))
    seen = framed.index_select(1, lists[window][1])
    return seen.view(-1, pixels, len(lists[window][1]) // pixels, channels).sum(2)


Undone = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # gradients of rows, gain and bias
Normed = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, "Callable[[torch.Tensor], Undone]"
]  # rows, mean, 1/std, and the way back


def _batch_norm(y: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> Normed:
    norm = torch.ops.aten._native_batch_norm_legit.no_stats  # noqa: SLF001 - torch's word for it
    z, mean, rstd = norm(y, gain, bias, True, 0.0, EPS)  # noqa: FBT003 - torch's order

    def undo(g: torch.Tensor) -> Undone:
        args = (g, y, gain, None, None, mean, rstd, True, EPS, [True] * 3)
        found: Undone = torch.ops.aten.native_batch_norm_backward(*args)
        return found

    return z, mean, rstd, undo


def _shape(kind: str, positions: int, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How rows ``[R, C]`` are seen by a norm, and what it takes the mean over."""
    if kind == "batch":
        return (-1, channels), (0,)
    size = group_size(channels)
    return (-1, positions, channels // size, size), (1, 3)


def _any_norm(
    y: torch.Tensor,
    gain: torch.Tensor,
    bias: torch.Tensor,
    seen_as: tuple[tuple[int, ...], tuple[int, ...]],
) -> Normed:
    """``(y - mean) rstd gain + bias``, and g -> rstd P g with P g = g - mean(g) - x mean(g x)."""
    shape, dims = seen_as
    seen = y.view(shape)
    mean = seen.mean(dims, keepdim=True)
    x = seen - mean
    rstd = torch.rsqrt((x * x).mean(dims, keepdim=True) + EPS)
    x = x * rstd
    rows = x.view(-1, len(gain))

    def undo(g: torch.Tensor) -> Undone:
        h = (g * gain).view(shape)
        h = (h - h.mean(dims, keepdim=True) - x * (h * x).mean(dims, keepdim=True)) * rstd
        return h.view(-1, len(gain)), (g * rows).sum(0), g.sum(0)

    return rows * gain + bias, mean, rstd, undo


def _pool(x: torch.Tensor, h: int, w: int) -> tuple[torch.Tensor, Back]:
    """2x2 max-pooling of ``[M, H, W, C]``."""
    first = x.permute(0, 3, 1, 2)
    out, taken = torch.ops.aten.max_pool2d_with_indices(first, [2, 2], [2, 2])

    def back(g: torch.Tensor) -> torch.Tensor:
        g = g.reshape(-1, h, w, x.shape[-1]).permute(0, 3, 1, 2)
        how = ([2, 2], [2, 2], [0, 0], [1, 1], False, taken)
        found: torch.Tensor = torch.ops.aten.max_pool2d_with_indices_backward(g, first, *how)
        return found.permute(0, 2, 3, 1).reshape(-1, x.shape[-1])

    return out.permute(0, 2, 3, 1), back


def _pool_by_hand(x: torch.Tensor, h: int, w: int) -> tuple[torch.Tensor, Back]:
    """The same; of equal maxima the first counts, as torch has it."""
    channels, rest = x.shape[-1], (x.shape[1] - 2 * h, x.shape[2] - 2 * w)
    tiles = x[:, : 2 * h, : 2 * w].reshape(-1, h, 2, w, 2, channels)
    four = tiles.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, 4, channels)
    out, taken = four.max(3)

    def back(g: torch.Tensor) -> torch.Tensor:
        places = torch.arange(4, device=x.device).view(1, 1, 1, 4, 1)
        hit = (taken.unsqueeze(3) == places).to(x.dtype)
        spread = hit * g.reshape(-1, h, w, 1, channels)
        tiles = spread.view(-1, h, w, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        whole = tiles.reshape(-1, 2 * h, 2 * w, channels)
        return F.pad(whole, (0, 0, 0, rest[1], 0, rest[0])).reshape(-1, channels)

    return out, back
