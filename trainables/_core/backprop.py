"""A pass over the updated layers, and the way back, for whoever needs first derivatives alone.

An adaptation on a device goes through the same few layers in every step, and on the five images of
a task autograd's book-keeping costs more than they do. Blocks of a Conv-4 are written out
(``blocks``); what is not (residual stages, group norm, patches too many to keep) goes through
autograd, behind the same functions: ``forward``, and ``moved`` of what it returns.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

import torch

from trainables._core.blocks import back, looked, moved, onward
from trainables._core.kernels import product, spreader
from trainables._core.layers import Params, matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainables._core.blocks import Passed
    from trainables._core.networks import Network


class Pass(Protocol):
    """What a forward pass leaves: what the head reads, and the way back.

    Features are ``[B, M, F]``, or ``[M, F]`` of a task that travels alone.
    """

    @property
    def features(self) -> torch.Tensor: ...

    def moved(self, step: Params, g: torch.Tensor, rate: float, *, in_place: bool) -> Params:
        """The updated tensors of ``step`` one step on, ``g`` being the features' gradient; once.

        With ``in_place`` the step's own memory may be taken for them; what was, is not told.
        """


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
        together = prefix.shape[0] * self.images
        span, written = slice(start, None), rows is not None and bool(layers)
        self.lanes = network.lanes(span, self.images, together, prefix.device) if written else []
        self.spreads = [
            spreader(lane.block.window, together, prefix.device) for lane in self.lanes[1:]
        ]
        self.alone = alone and bool(self.lanes) and prefix.shape[0] == 1
        self.rows = rows if rows is None else rows.detach()
        if self.alone and self.rows is not None:
            self.rows = self.rows[0]
        self.shared: Params = {}
        for layer in layers:
            for name in layer.names:
                p = shared[name].detach()
                self.shared[name] = matrix(p) if self.lanes and p.dim() > 1 else p

    def enter(self, params: Params) -> Params:
        """A task's own tensors ``[B, ...]`` as a pass wants them: kernels are matrices."""
        if not self.lanes:
            return params
        as_matrix = {n: matrix(p) if p.dim() == 5 else p for n, p in params.items()}
        return {n: p[0] for n, p in as_matrix.items()} if self.alone else as_matrix

    def leave(self, params: Params) -> Params:
        """The way back from ``enter``."""
        if not self.lanes:
            return params
        blocks = {lane.weight: lane.block for lane in self.lanes}
        kernels = {n: (-1, *[b.window.kernel] * 2, b.into[0], b.width) for n, b in blocks.items()}
        with_tasks = {n: p[None] for n, p in params.items()} if self.alone else params
        return {n: p.view(kernels[n]) if n in kernels else p for n, p in with_tasks.items()}

    def forward(self, step: Params) -> Pass:
        """A pass with each task's own tensors in the updated layers, as ``enter`` gave them."""
        own = {n: p.detach() if p.requires_grad else p for n, p in step.items()}
        if self.lanes and self.rows is not None:
            return _WrittenOut(self, own, self.rows)
        return _Recorded(self, own)


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
                x = layer.forward(params, x, None, None if index else suffix.rows, once=True)
            self._read = suffix.network.features(x)
        self.features = self._read.detach()

    def moved(self, step: Params, g: torch.Tensor, rate: float, *, in_place: bool) -> Params:
        del in_place  # autograd keeps what it was
        if not self._fast:
            return {}
        found = torch.autograd.grad(self._read, list(self._fast.values()), g)
        pairs = zip(self._fast, found, strict=True)
        return {name: torch.sub(step[name], own, alpha=rate) for name, own in pairs}


class _WrittenOut:
    """A pass of Conv-4 blocks with batch norm, kept by hand."""

    def __init__(self, suffix: Suffix, own: Params, rows: torch.Tensor) -> None:
        self._suffix, self._params = suffix, {**suffix.shared, **own}
        self._passed: list[Passed] = []
        x = rows
        with torch.no_grad() if torch.is_grad_enabled() else nullcontext():
            for index, lane in enumerate(suffix.lanes):
                x, passed = onward(lane, looked(lane, x) if index else rows, self._params)
                self._passed.append(passed)
        self.features = x.reshape(*x.shape[:-2], suffix.images, -1)

    def moved(self, step: Params, g: torch.Tensor, rate: float, *, in_place: bool) -> Params:
        found: Params = {}
        suffix, params = self._suffix, self._params
        for index in reversed(range(len(self._passed))):
            lane = suffix.lanes[index]
            one = self._passed.pop()  # what the layers above kept is free by now
            told = back(lane.block, one, g, params[lane.gain])
            if index:  # before the kernel is another one
                looks = product(told[0], params[lane.weight].mT)
                g = suffix.spreads[index - 1](looks.view(-1, lane.taps))
            if suffix.bits[index] == "1":
                found |= moved(lane, one, step, told, rate, in_place=in_place)
        return found
