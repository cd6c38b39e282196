"""The operations under a convolution, as few as can be: gather, multiply, scatter.

A convolution is a gather of patches and one matrix product per task: on the few small images of
a task that beats a convolution routine, whose set-up costs more than its arithmetic. Gather and
its adjoint, the scatter, are one call each over index lists made once per shape.

    patches: [B, M, H, W, C] -> [B, M*h*w, k*k*C]          y = patches W,   W [B, k*k*C, O]

``patches`` and ``product`` are twice differentiable; ``gathered`` and ``scattered`` are what first
derivatives written out by hand need, without a graph and over the rows of all tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 3  # channels of a map that is picked number by number: our default, measured
MOST_INDICES = 2**18  # of one index list; more images are taken in turns: our default, measured


@dataclass(frozen=True)
class Window:
    """Where a k x k kernel, k odd, looks on a map of ``height`` x ``width``: same padding."""

    height: int
    width: int
    kernel: int
    stride: int

    @cached_property
    def out(self) -> tuple[int, int]:
        """Height and width of what it sees."""
        pad = 2 * (self.kernel // 2) - self.kernel
        return (self.height + pad) // self.stride + 1, (self.width + pad) // self.stride + 1

    @cached_property
    def looks(self) -> int:
        """Positions times taps of one image."""
        return self.out[0] * self.out[1] * self.kernel**2

    @property
    def turn(self) -> int:
        """Images taken at once."""
        return max(1, MOST_INDICES // self.looks)


# rows to add up and where each sum starts
Lists = tuple[torch.Tensor, torch.Tensor]


def _inside(window: Window, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which looks hit the image, and the pixels that those see."""
    pixels = torch.arange(1, images * window.height * window.width + 1)
    pad = window.kernel // 2
    padded = F.pad(pixels.view(images, window.height, window.width), (pad, pad, pad, pad))
    k, s = window.kernel, window.stride
    taken = padded.unfold(1, k, s).unfold(2, k, s).reshape(-1) - 1
    inside = taken >= 0
    return inside, taken[inside]


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # whoever asks first, others may train with them
def _to_gather(window: Window, images: int, device: torch.device) -> Lists:
    """Index lists of the gather; padding is an empty sum."""
    inside, rows = _inside(window, images)
    return _on(device, rows, inside.cumsum(0) - inside.long())


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _to_scatter(window: Window, images: int, device: torch.device) -> Lists:
    """Index lists of the scatter, which an adaptation needs in fewer layers."""
    inside, rows = _inside(window, images)
    counts = torch.bincount(rows, minlength=images * window.height * window.width)
    looks = inside.nonzero()[:, 0][torch.argsort(rows, stable=True)]
    return _on(device, looks, counts.cumsum(0) - counts)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _to_pick(window: Window, channels: int, device: torch.device) -> torch.Tensor:
    """Of every number that is looked at in one image its place behind a 0, the padding."""
    seen = looks_at(window).to(device)[:, None]
    places = (seen - 1) * channels + torch.arange(1, channels + 1, device=device)
    return torch.where(seen > 0, places, 0).view(-1)


def bags_of(window: Window) -> tuple[Lists, Lists]:
    """Index lists of one image, to gather and to scatter."""
    cpu = torch.device("cpu")
    return _to_gather(window, 1, cpu), _to_scatter(window, 1, cpu)


def looks_at(window: Window) -> torch.Tensor:
    """Where every look at one image falls in its pixels behind a 0, which is the padding."""
    inside, pixels = _inside(window, 1)
    return torch.zeros(len(inside), dtype=torch.long).masked_scatter(inside, pixels + 1)


def seen_by(window: Window) -> torch.Tensor:
    """The looks that see each pixel of one image, ``[H*W * most]``, counted from 1; 0 is none."""
    inside, pixels = _inside(window, 1)
    order = torch.argsort(pixels, stable=True)
    pixels, looks = pixels[order], inside.nonzero()[:, 0][order] + 1
    counts = torch.bincount(pixels, minlength=window.height * window.width)
    rank = torch.arange(len(pixels)) - (counts.cumsum(0) - counts)[pixels]
    found = torch.zeros(len(counts), int(counts.max()), dtype=torch.long)
    found[pixels, rank] = looks
    return found.view(-1)


def forget() -> None:
    """Drops the index lists that no network holds; who needs one makes it again."""
    _to_pick.cache_clear()
    _to_gather.cache_clear()
    _to_scatter.cache_clear()


def _on(device: torch.device, rows: torch.Tensor, starts: torch.Tensor) -> Lists:
    return rows.int().to(device), starts.int().to(device)


def sums(rows: torch.Tensor, lists: Lists) -> torch.Tensor:
    """Of the rows ``[n, C]`` that the list names, one after the other, those from each start on."""
    pixels, starts = lists
    return torch.embedding_bag(rows, pixels, starts, False, 0, False, None)[0]  # noqa: FBT003  torch's


def _in_turns(
    rows: torch.Tensor,
    window: Window,
    images: int,
    lists: Callable[[Window, int, torch.device], Lists],
) -> torch.Tensor:
    """The sums of all images' rows ``[images * n, C]``, few enough images at a time."""
    if images <= window.turn:
        return sums(rows, lists(window, images, rows.device))
    parts = rows.view(images, -1, rows.shape[-1]).split(window.turn)
    return torch.cat([sums(p.flatten(0, 1), lists(window, len(p), p.device)) for p in parts])


def _number_by_number(pixels: torch.Tensor, window: Window) -> torch.Tensor:
    """The same for images, whose rows of a few numbers are not worth adding up."""
    channels = pixels.shape[1]
    images = pixels.reshape(-1, window.height * window.width * channels)
    padding = images.new_zeros(len(images), 1)
    return _picked(images, padding, _to_pick(window, channels, pixels.device))


def _picked(images: torch.Tensor, padding: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    # whole padding: with one number expanded torch's cat takes its slower way
    return torch.cat((padding, images), 1).index_select(1, places)


def looker(
    window: Window, channels: int, images: int, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """``gathered`` for maps of one shape, which need not look for their index lists again."""
    taps = window.kernel**2 * channels
    if channels <= FEW:
        places, padding = _to_pick(window, channels, device), torch.zeros(images, 1, device=device)
        return lambda pixels: _picked(pixels.reshape(images, -1), padding, places).view(-1, taps)
    if images > window.turn:
        return lambda pixels: gathered(pixels, window, images)
    lists = _to_gather(window, images, device)
    return lambda pixels: sums(pixels, lists).view(-1, taps)


def gathered(pixels: torch.Tensor, window: Window, images: int) -> torch.Tensor:
    """Maps as rows ``[images*H*W, C] -> [images*h*w, k*k*C]``, no graph."""
    channels = pixels.shape[1]
    if channels <= FEW:
        rows = _number_by_number(pixels, window)
    else:
        rows = _in_turns(pixels, window, images, _to_gather)
    return rows.view(-1, window.kernel**2 * channels)


def spreader(
    window: Window, images: int, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """``scattered`` for maps of one shape, in the same way."""
    if images > window.turn:
        return lambda rows: scattered(rows, window, images)
    lists, looks = _to_scatter(window, images, device), images * window.looks
    return lambda rows: sums(rows.view(looks, -1), lists)


def scattered(rows: torch.Tensor, window: Window, images: int) -> torch.Tensor:
    """The adjoint of ``gathered``, no graph."""
    looks = rows.view(images * window.looks, -1)
    return _in_turns(looks, window, images, _to_scatter)


def gather(x: torch.Tensor, window: Window) -> torch.Tensor:
    """``[B, M, H, W, C] -> [B, M*h*w, k*k*C]``, no graph."""
    rows = gathered(x.reshape(-1, x.shape[-1]), window, x.shape[0] * x.shape[1])
    return rows.view(len(x), -1, rows.shape[1])


def scatter(g: torch.Tensor, window: Window, images: int) -> torch.Tensor:
    """The adjoint of ``gather``, no graph; ``images`` are a task's."""
    pixels = scattered(g.reshape(-1, g.shape[-1]), window, len(g) * images)
    return pixels.view(len(g), images, window.height, window.width, -1)


class _Gather(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: torch.Tensor, window: Window) -> torch.Tensor:
        ctx.window, ctx.images = window, x.shape[1]
        return gather(x, window)

    @staticmethod
    @override
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Scatter.apply(g, ctx.window, ctx.images), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, g: torch.Tensor, window: Window, images: int) -> torch.Tensor:
        ctx.window = window
        return scatter(g, window, images)

    @staticmethod
    @override
    def backward(ctx: Any, h: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Gather.apply(h, ctx.window), None, None


def patches(x: torch.Tensor, window: Window) -> torch.Tensor:
    """``[B, M, H, W, C] -> [B, M*h*w, k*k*C]``, a kernel's view of every position."""
    if window.kernel == 1:
        return x[:, :, :: window.stride, :: window.stride].reshape(len(x), -1, x.shape[-1])
    return _Gather.apply(x, window) if x.requires_grad else gather(x, window)


def batched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``torch.bmm``, which takes longer than ``torch.mm`` where there is one task."""
    return torch.mm(a[0], b[0])[None] if len(a) == 1 else torch.bmm(a, b)


class _Product(torch.autograd.Function):
    """rows W, task by task; its gradients come out row by row too, where torch's are transposed."""

    @staticmethod
    @override
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return batched(rows, weight)

    @staticmethod
    @override
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        rows, weight = ctx.saved_tensors
        need_rows, need_weight = ctx.needs_input_grad
        return (
            _Product.apply(g, weight.mT) if need_rows else None,
            _Pairing.apply(rows, g) if need_weight else None,
        )


class _Pairing(torch.autograd.Function):
    """rows^T g, a weight's gradient."""

    @staticmethod
    @override
    def forward(ctx: Any, rows: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, g)
        return batched(rows.mT, g)

    @staticmethod
    @override
    def backward(ctx: Any, h: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        rows, g = ctx.saved_tensors
        need_rows, need_g = ctx.needs_input_grad
        return (
            _Product.apply(g, h.mT) if need_rows else None,
            _Product.apply(rows, h) if need_g else None,
        )


def product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``[B, R, K] x [B, K, O] -> [B, R, O]``, or ``[K, O]`` for weights that all tasks share.

    One task's ``[R, K] x [K, O]`` may come without B.
    """
    if rows.dim() == 2:
        return torch.mm(rows, weight)
    if weight.dim() == 2:
        return (rows.reshape(-1, rows.shape[-1]) @ weight).view(*rows.shape[:2], -1)
    if not torch.is_grad_enabled():
        return batched(rows, weight)
    y: torch.Tensor = _Product.apply(rows, weight)
    return y


def added(to: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """``to + scale a b``, matrices or batches of them."""
    return (torch.addmm if to.dim() == 2 else torch.baddbmm)(to, a, b, alpha=scale)
