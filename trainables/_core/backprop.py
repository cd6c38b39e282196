"""A pass over the updated layers, and the way back, for whoever needs first derivatives alone.

An adaptation on a device goes through the same few layers in every step. Written out, a block of
a Conv-4 is four calls forward and four back, the last of which moves its weights; autograd's
book-keeping costs more than they do on the five images of a task. What is not written out here
(residual stages, group norm, patches too many to keep) goes through autograd, behind the same
functions: ``forward``, and ``moved`` of what it returns.

A task that is alone travels without the dimension of tasks, ``[R, C]`` instead of ``[1, R, C]``,
because torch's calls for one matrix are quicker than those for a batch of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F

from trainables._core.kernels import added, gather, product, scatter
from trainables._core.layers import ConvBlock, Params, matrix, wide
from trainables._core.norms import Kept, normed_back

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._core.layers import Layer
    from trainables._core.networks import Network


class Pass(Protocol):
    """What a forward pass leaves: what the head reads, and the way back.

    Features are ``[B, M, F]``, or ``[M, F]`` of a task that travels alone.
    """

    @property
    def features(self) -> torch.Tensor: ...

    def moved(self, step: Params, g: torch.Tensor, rate: float) -> Params:
        """The updated tensors of ``step`` one step on, ``g`` being the features' gradient; once."""


class Suffix:
    """The layers from the lowest updated one on, over one prefix map that all steps share.

    Args:
        network: the student.
        pattern: what is updated.
        prefix: the support set's map at l0, ``[B, M, H, W, C]``.
        rows: what the layer there gathers from it.
        shared: parameters of the layers that are not updated.
        alone: one task may travel without the dimension of tasks.
    """

    def __init__(
        self,
        network: Network,
        pattern: str,
        prefix: torch.Tensor,
        rows: torch.Tensor | None,
        shared: Mapping[str, torch.Tensor],
        *,
        alone: bool,
    ) -> None:
        start = pattern.index("1")
        layers = network.body[start:]
        self.network, self.layers, self.bits = network, layers, pattern[start:-1]
        self.prefix, self.images = prefix.detach(), prefix.shape[1]
        written = written_out(layers, self.images) and rows is not None
        self.blocks = cast("list[ConvBlock]", list(layers)) if written else []
        self.alone = alone and bool(written) and len(prefix) == 1
        self.rows = rows if rows is None else rows.detach()
        if self.alone and self.rows is not None:
            self.rows = self.rows[0]
        self.shared: Params = {}
        for layer in layers:
            for name in layer.names:
                p = shared[name].detach()
                self.shared[name] = matrix(p) if written and p.dim() > 1 else p

    def enter(self, params: Params) -> Params:
        """A task's own tensors ``[B, ...]`` as a pass wants them: kernels are matrices."""
        if not self.blocks:
            return params
        as_matrix = {n: matrix(p) if p.dim() == 5 else p for n, p in params.items()}
        return {n: p[0] for n, p in as_matrix.items()} if self.alone else as_matrix

    def leave(self, params: Params) -> Params:
        """The way back from ``enter``."""
        if not self.blocks:
            return params
        kernels = {
            f"{b.name}.conv.weight": (-1, *[b.window.kernel] * 2, b.into[0], b.width)
            for b in self.blocks
        }
        with_tasks = {n: p[None] for n, p in params.items()} if self.alone else params
        return {n: p.view(kernels[n]) if n in kernels else p for n, p in with_tasks.items()}

    def forward(self, step: Params) -> Pass:
        """A pass with each task's own tensors in the updated layers, as ``enter`` gave them."""
        own = {n: p.detach() if p.requires_grad else p for n, p in step.items()}
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

    def __init__(self, suffix: Suffix, own: Params) -> None:
        self._suffix = suffix
        body = suffix.shared.keys()  # the classifier's step is not this pass's
        self._fast = {n: p.detach().requires_grad_() for n, p in own.items() if n in body}
        params = {**suffix.shared, **self._fast}
        with torch.enable_grad():
            x = suffix.prefix
            for index, layer in enumerate(suffix.layers):
                x = layer.forward(params, x, None, None if index else suffix.rows)
            self._read = suffix.network.features(x)
        self.features = self._read.detach()

    def moved(self, step: Params, g: torch.Tensor, rate: float) -> Params:
        if not self._fast:
            return {}
        found = torch.autograd.grad(self._read, list(self._fast.values()), g)
        pairs = zip(self._fast, found, strict=True)
        return {name: torch.sub(step[name], own, alpha=rate) for name, own in pairs}


class _Step(NamedTuple):
    """What the way back needs of one block."""

    rows: torch.Tensor  # [B, R, k*k*C], patches of its input
    kept: Kept
    z: torch.Tensor  # [B, R, O], behind the ReLU
    taken: torch.Tensor | None  # where max-pooling found its maxima


class _WrittenOut:
    """A pass of Conv-4 blocks with batch norm, kept by hand."""

    @torch.no_grad()
    def __init__(self, suffix: Suffix, own: Params, rows: torch.Tensor) -> None:
        self._suffix, self._params = suffix, {**suffix.shared, **own}
        self._steps: list[_Step] = []
        x = rows
        for index, block in enumerate(suffix.blocks):
            x = self._block(block, gather(x, block.window) if index else rows)
        self.features = x.flatten(-3)

    def _block(self, block: ConvBlock, rows: torch.Tensor) -> torch.Tensor:
        params, name = self._params, f"{block.name}.conv"
        gain, bias = params[f"{name}.gain"], params[f"{name}.bias"]
        z, kept = block.measured(rows, params[f"{name}.weight"], gain, bias)
        x = z.view(*z.shape[:-2], self._suffix.images, *block.window.out, block.width)
        taken = None
        if block.down == "pool":
            pooled, taken = F.max_pool2d_with_indices(_images_first(x), [2, 2])
            x = pooled.permute(0, 2, 3, 1).reshape(*x.shape[:-3], *pooled.shape[2:], -1)
        self._steps.append(_Step(rows, kept, z, taken))
        return x

    def moved(self, step: Params, g: torch.Tensor, rate: float) -> Params:
        found: Params = {}
        suffix = self._suffix
        for index in reversed(range(len(self._steps))):
            block, name = suffix.blocks[index], f"{suffix.blocks[index].name}.conv"
            one = self._steps.pop()  # what the layers above kept is free by now
            g = _before_relu(block, one, g)
            g, gain, bias = normed_back(g, one.kept, self._params[f"{name}.gain"])
            if suffix.bits[index] == "1":
                weight = step[f"{name}.weight"]
                found[f"{name}.weight"] = added(weight, one.rows.mT, g, -rate)
                found[f"{name}.gain"] = torch.sub(step[f"{name}.gain"], gain, alpha=rate)
                found[f"{name}.bias"] = torch.sub(step[f"{name}.bias"], bias, alpha=rate)
            if index:
                back = product(g, self._params[f"{name}.weight"].mT)
                g = scatter(back, block.window, suffix.images)
        return found


def _images_first(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2)


def _before_relu(block: ConvBlock, step: _Step, g: torch.Tensor) -> torch.Tensor:
    """The gradient behind a block -> the gradient of its norm's output, ``[B, R, O]``."""
    if step.taken is not None:
        z = step.z.view(-1, *block.window.out, block.width).permute(0, 3, 1, 2)
        size, padding, dilation, ceil = [2, 2], [0, 0], [1, 1], False
        how = (size, size, padding, dilation, ceil, step.taken)
        g = _images_first(g.reshape(-1, *block.out[1:], block.width))
        back = torch.ops.aten.max_pool2d_with_indices_backward(g, z, *how)
        g = back.permute(0, 2, 3, 1)
    before: torch.Tensor = torch.ops.aten.threshold_backward(g.reshape(step.z.shape), step.z, 0)
    return before
