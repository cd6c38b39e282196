"""A pass over the updated layers, and the way back, for whoever needs first derivatives alone.

An adaptation on a device goes through the same few layers in every step. Written out, a block of
a Conv-4 is four calls forward and five back; autograd's book-keeping costs more than they do on
the five images of a task. What is not written out here (residual stages, group norm, patches too
many to keep) goes through autograd, behind the same two functions: ``forward`` and ``grads``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F

from trainables._core.kernels import Kept, batched, gather, normed, normed_back, product, scatter
from trainables._core.layers import ConvBlock, Params, matrix, wide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._core.layers import Layer


class Pass(Protocol):
    """What a forward pass leaves: the last map ``[B, M, H, W, C]``, and the way back."""

    @property
    def out(self) -> torch.Tensor: ...

    def grads(self, g: torch.Tensor) -> Params:
        """Gradients of the updated tensors, by name, from the gradient of ``out``; once."""


class Suffix:
    """The layers from the lowest updated one on, over one prefix map that all steps share.

    Args:
        layers: the layers from l0 on.
        bits: their part of the pattern, without the head's.
        prefix: the support set's map at l0, ``[B, M, H, W, C]``.
        rows: what the layer there gathers from it.
        shared: parameters of the layers that are not updated.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        bits: str,
        prefix: torch.Tensor,
        rows: torch.Tensor | None,
        shared: Mapping[str, torch.Tensor],
    ) -> None:
        self.layers, self.bits = layers, bits
        self.prefix = prefix.detach()
        self.shared = {n: p.detach() for n, p in shared.items()}
        written = written_out(layers, prefix.shape[1])
        self.blocks = cast("list[ConvBlock]", list(layers)) if written else []
        self.rows = None if rows is None else rows.detach()

    def forward(self, fast: Params) -> Pass:
        """A pass with each task's own tensors ``fast`` in the updated layers."""
        own = {n: p.detach() for n, p in fast.items()}
        if self.blocks and self.rows is not None:
            return _WrittenOut(self, own, self.rows)
        return _Recorded(self, own)


def written_out(layers: Sequence[Layer], images: int) -> bool:
    """Whether these layers, the updated ones, go without autograd for a task of so many images."""
    return all(
        isinstance(layer, ConvBlock)
        and layer.norm == "batch"
        and not wide(layer.window, images, layer.into[0])
        for layer in layers
    )


class _Recorded:
    """Autograd's record of a pass."""

    def __init__(self, suffix: Suffix, fast: Params) -> None:
        self._fast = {n: p.requires_grad_() for n, p in fast.items()}
        params = {**suffix.shared, **self._fast}
        with torch.enable_grad():
            x = suffix.prefix
            for index, layer in enumerate(suffix.layers):
                x = layer.forward(params, x, None, None if index else suffix.rows)
        self._out, self.out = x, x.detach()

    def grads(self, g: torch.Tensor) -> Params:
        found = torch.autograd.grad(self._out, list(self._fast.values()), g)
        return dict(zip(self._fast, found, strict=True))


class _Step(NamedTuple):
    """What the way back needs of one block."""

    rows: torch.Tensor  # [B, R, k*k*C], patches of its input
    kept: Kept
    z: torch.Tensor  # [B, R, O], behind the ReLU
    taken: torch.Tensor | None  # where max-pooling found its maxima


class _WrittenOut:
    """A pass of Conv-4 blocks with batch norm, kept by hand."""

    @torch.no_grad()
    def __init__(self, suffix: Suffix, fast: Params, rows: torch.Tensor) -> None:
        self._suffix, self._params = suffix, {**suffix.shared, **fast}
        self._images = suffix.prefix.shape[1]
        self._steps: list[_Step] = []
        x = suffix.prefix
        for index, block in enumerate(suffix.blocks):
            x = self._block(block, gather(x, block.window) if index else rows)
        self.out = x

    def _block(self, block: ConvBlock, rows: torch.Tensor) -> torch.Tensor:
        y = product(rows, matrix(self._params[f"{block.name}.conv.weight"]))
        z, kept = normed(y, *self._affine(block))
        z = z.relu_()
        x = z.view(len(z), self._images, *block.window.out, block.width)
        taken = None
        if block.down == "pool":
            pooled, taken = F.max_pool2d_with_indices(_images_first(x), [2, 2])
            x = pooled.permute(0, 2, 3, 1).reshape(*x.shape[:2], *pooled.shape[2:], -1)
        self._steps.append(_Step(rows, kept, z, taken))
        return x

    def _affine(self, block: ConvBlock) -> tuple[torch.Tensor, torch.Tensor]:
        gain = self._params[f"{block.name}.conv.gain"]
        bias = self._params[f"{block.name}.conv.bias"]
        return gain.view(-1, 1, block.width), bias.view(-1, 1, block.width)

    @torch.no_grad()
    def grads(self, g: torch.Tensor) -> Params:
        found: Params = {}
        suffix = self._suffix
        for index in reversed(range(len(self._steps))):
            block, name = suffix.blocks[index], suffix.blocks[index].name
            step = self._steps.pop()  # what the layers above kept is free by now
            g = _before_relu(block, step, g)
            g, gain, bias = normed_back(g, step.kept, self._affine(block)[0])
            weight = self._params[f"{name}.conv.weight"]
            if suffix.bits[index] == "1":
                own = batched(step.rows.transpose(1, 2), g)
                found[f"{name}.conv.weight"] = own.view(len(g), *weight.shape[-4:])
                found[f"{name}.conv.gain"], found[f"{name}.conv.bias"] = gain, bias
            if index:
                g = scatter(product(g, matrix(weight).mT), block.window, self._images)
        return found


def _images_first(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def _before_relu(block: ConvBlock, step: _Step, g: torch.Tensor) -> torch.Tensor:
    """The gradient behind a block -> the gradient of its norm's output, ``[B, R, O]``."""
    if step.taken is not None:
        z = step.z.view(-1, *block.window.out, block.width).permute(0, 3, 1, 2)
        size, padding, dilation, ceil = [2, 2], [0, 0], [1, 1], False
        how = (size, size, padding, dilation, ceil, step.taken)
        back = torch.ops.aten.max_pool2d_with_indices_backward(_images_first(g), z, *how)
        g = back.permute(0, 2, 3, 1)
    before: torch.Tensor = torch.ops.aten.threshold_backward(g.reshape(step.z.shape), step.z, 0)
    return before
