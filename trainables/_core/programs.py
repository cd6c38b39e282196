"""A student as two functions of tensors alone, to be exported: how it adapts, how it predicts.

    adapted = Adaptation(student)(images, labels)          labels one-hot [M, N]
    probabilities = Prediction(student)(images, *adapted)

Images are uint8 ``[M, C, size, size]``. What adaptation yields is named in ``outputs_of``: the
tensors that were updated, the classifier of the task, and for a student that normalises queries
with the support set's statistics the scale and shift of every norm. Numbers of images and classes
are free (a linear head's classes are not); pattern, steps and rate are the student's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from trainables._core.heads import HEAD_B, HEAD_W, by_gram
from trainables._core.kernels import Window, bags_of
from trainables._core.layers import ConvBlock, group_size
from trainables._core.norms import EPS
from trainables._core.patterns import first_updated
from trainables._core.residual import ResidualStage
from trainables._core.tape import Bags, Entry, Maps, Tape, lists_of, repeated, windows
from trainables._core.views import with_views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainables._core.adapt import Adapted
    from trainables._core.layers import Conv, Layer, Params
    from trainables._core.student import Student, StudentSpec

WAYS = ("gather", "scatter")  # names of a window's index lists


def outputs_of(spec: StudentSpec) -> tuple[str, ...]:
    """Names of what an adaptation yields, in order: kernels ``[O, C, k, k]``, the rest ``[O]``."""
    found: list[str] = []
    for layer, bit in zip(spec.network().body, spec.pattern, strict=False):
        for c in layer.convs():
            prefix = f"{layer.name}.{c.name}"
            if bit == "1":
                found.append(f"{prefix}.weight")
            if replays(spec):
                found += [f"{prefix}.scale", f"{prefix}.shift"]
            elif bit == "1":
                found += [f"{prefix}.gain", f"{prefix}.bias"]
    return (*found, HEAD_W, HEAD_B)


def replays(spec: StudentSpec) -> bool:
    """Whether queries are normalised with statistics of the support set."""
    return spec.normalisation == "inductive" and spec.norm == "batch"


def adapted_tensors(spec: StudentSpec, adapted: Adapted) -> tuple[torch.Tensor, ...]:
    """The same of a task that the engine adapted, for comparison."""
    params = {n: p[0] if p.dim() > adapted.meta[n].dim() else p
              for n, p in adapted.params(-1).items() if n in adapted.meta}  # fmt: skip
    head = {n: adapted.params(-1)[n][0] for n in (HEAD_W, HEAD_B)}
    found = {n: p.permute(3, 2, 0, 1) if p.dim() == 4 else p for n, p in params.items()} | head
    if replays(spec):
        prefixes = [f"{layer.name}.{c.name}" for layer in spec.network().body
                    for c in layer.convs()]  # fmt: skip
        for prefix, (mean, rstd) in zip(prefixes, adapted.statistics(-1).values, strict=True):
            found |= _folded(prefix, params, mean.view(-1), rstd.view(-1))
    return tuple(found[name].detach() for name in outputs_of(spec))


def _folded(prefix: str, params: Params, mean: torch.Tensor, rstd: torch.Tensor) -> Params:
    """A norm with known statistics as one scale and one shift."""
    scale = rstd * params[f"{prefix}.gain"]
    shift = torch.addcmul(params[f"{prefix}.bias"], mean, scale, value=-1)
    return {f"{prefix}.scale": scale, f"{prefix}.shift": shift}


class _Weights(nn.Module):
    """The student's own tensors, as they are or as bytes with a scale for each output channel.

    With ``flat`` kernels are matrices ``[k*k*C, O]``.
    """

    def __init__(self, params: Params, *, int8: bool, flat: bool = False) -> None:
        super().__init__()
        self._names = list(params)
        self._small = [n for n, p in params.items() if int8 and p.dim() > 1]
        for index, (name, value) in enumerate(params.items()):
            kept = [("value", value.detach())]
            if name in self._small:
                kept = list(zip(("value", "scale"), quantised(value.detach()), strict=True))
            for kind, tensor in kept:
                matrix = tensor.flatten(0, 2) if flat and tensor.dim() == 4 else tensor
                self.register_buffer(f"{kind}{index}", matrix.contiguous().clone())

    @override
    def forward(self) -> Params:
        found: Params = {}
        for index, name in enumerate(self._names):
            value = self.get_buffer(f"value{index}")
            if name in self._small:
                value = value.float() * self.get_buffer(f"scale{index}")
            found[name] = value
        return found


def quantised(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor as int8 and float32 scales, symmetric; kernels one scale an output channel.

    Kernels are ``[k, k, C, O]``; of a head's weights each row has its own.
    """
    dims = tuple(range(value.dim() - 1)) if value.dim() == 4 else (value.dim() - 1,)
    scale = value.abs().amax(dims, keepdim=True).clamp_min(1e-12) / 127.0
    return torch.round(value / scale).to(torch.int8), scale


class _Images(nn.Module):
    """uint8 ``[M, C, size, size]`` -> what the network reads, ``[M, C, H, W]``."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))
        self._resizes = spec.size != spec.input_size
        if self._resizes:  # bilinear and antialiased is one matrix along each side
            wide = torch.eye(spec.size)[None, :, :, None].repeat(
                1, 1, 1, 2
            )  # 1 px takes another way
            wide = F.interpolate(wide, (spec.input_size, 2), mode="bilinear", antialias=True)
            self.register_buffer("matrix", wide[0, :, :, 0].contiguous())

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = self.get_buffer("mean")
        # in the engine's order: a number that rounds otherwise may fall on the other side of a ReLU
        exact = images if mean.dtype == torch.float32 else images.to(mean.dtype)
        x = (exact / 255.0 - mean) / self.get_buffer("std")
        if self._resizes:
            matrix = self.get_buffer("matrix")
            x = matrix.t() @ x @ matrix
        return x


class Adaptation(nn.Module):
    """Support images and labels -> the tensors of ``outputs_of``.

    Args:
        student: whose pattern, steps and rate they are.
        images: support images, with views, that a task usually has: chooses between ways of
            computing the same.
        plain: leave no call for the gradient of a norm or of pooling in the program.
        int8: keep kernels as bytes.
    """

    def __init__(
        self, student: Student, images: int, *, plain: bool = False, int8: bool = False
    ) -> None:
        super().__init__()
        self.spec, self.network = student.spec, student.spec.network()
        self._usual, self._plain = images, plain
        self.read = _Images(student.spec)
        own = {n: p.abs() if n == "head.scale" else p for n, p in student.params.items()}
        self.weights = _Weights(own, int8=int8, flat=True)
        self._windows = sorted(windows(self.network.body), key=str)
        bits = zip(self.network.body, self.spec.pattern, strict=False)
        self._updated = frozenset(n for layer, b in bits if b == "1" for n in layer.names)
        start = first_updated(self.spec.pattern)
        again = self.network.body[start:]  # of a block its entry is gathered once
        again = again[1:] if again and isinstance(again[0], ConvBlock) else again
        self._summed = frozenset[Window]() if plain else frozenset(windows(again))
        for index, window in enumerate(self._windows):
            if window in self._summed:
                for way, (ids, starts) in zip(WAYS, bags_of(window), strict=True):
                    self.register_buffer(f"{way}{index}", ids)
                    self.register_buffer(f"{way}_starts{index}", starts)
                continue
            gather, scatter = lists_of(window)
            self.register_buffer(f"gather{index}", gather)
            if self._updated:  # nothing is gone back through where the head alone is
                self.register_buffer(f"scatter{index}", scatter)

    @override
    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        params = self.weights()
        x, target = self.read(images).permute(0, 2, 3, 1), labels
        if self.spec.views:
            x = with_views(x[None], self.spec.views)[0]
            target = labels.repeat(1 + self.spec.views, 1)
        start, entry = first_updated(self.spec.pattern), None
        bags = self._bags(x.shape[0])
        before = self._tape(params, bags)
        maps = Maps(x.reshape(x.shape[0], -1, x.shape[-1]), *x.shape[1:3])
        maps, _ = before.through(self.network.body[:start], maps)
        if start == len(self.network.body):
            last = params | self._head_steps(params, self._features(maps), target)
        else:
            entry = Entry(maps.x)
            last = params | self._suffix_steps(params, maps, start, target, entry, bags)
        return self._told(last, before, self._tape(last, bags, entry), maps)

    def _tape(
        self, params: Params, bags: Bags, entry: Entry | None = None, *, back: bool = False
    ) -> Tape:
        ways = ("gather", "scatter" if self._updated else "gather")
        lists = {w: (self.get_buffer(f"{ways[0]}{i}"), self.get_buffer(f"{ways[1]}{i}"))
                 for i, w in enumerate(self._windows) if w not in self._summed}  # fmt: skip
        updated = self._updated if back else frozenset[str]()
        return Tape(lists, params, self.spec.norm, self._usual, updated=updated, entry=entry,
                    bags=bags, plain=self._plain)  # fmt: skip

    def _bags(self, images: int) -> Bags:
        """What every step gathers and scatters anew, for all images of this task."""
        found: Bags = {}
        if not self._summed:  # what nobody reads would stay in the program
            return found
        numbers = torch.arange(images, dtype=torch.int32)
        for index, window in enumerate(self._windows):
            if window in self._summed:
                gather, scatter = (
                    (self.get_buffer(f"{way}{index}"), self.get_buffer(f"{way}_starts{index}"))
                    for way in WAYS
                )
                pixels = window.height * window.width
                found[window] = (
                    repeated(gather, numbers, pixels), repeated(scatter, numbers, window.looks)
                )  # fmt: skip
        return found

    def _features(self, maps: Maps) -> torch.Tensor:
        return maps.x.mean(1) if self.network.pooled else maps.x.flatten(1)

    def _head_start(self, params: Params, features: torch.Tensor, target: torch.Tensor) -> Params:
        ways = target.shape[1]
        if self.spec.head == "prototype":
            means = torch.mm(target.t(), features) / target.sum(0).unsqueeze(1)
            weight = means * (2 * params["head.scale"])
            return {HEAD_W: weight, HEAD_B: (weight * means).sum(1) * -0.5}
        weight, bias = params["head.weight"], params["head.bias"]
        if self.spec.head == "shared":
            return {HEAD_W: weight.expand(ways, -1), HEAD_B: bias.expand(ways)}
        return {HEAD_W: weight, HEAD_B: bias}

    def _head_steps(self, params: Params, features: torch.Tensor, target: torch.Tensor) -> Params:
        """Steps of the head alone, within the Gram matrix where that is the cheaper way.

        As in ``head_steps``: z_(t+1) = z_t - K E_t, K = (alpha / M) (f f^T + 1).
        """
        head, steps = self._head_start(params, features, target), self.spec.inner_steps
        if steps < 2 or not by_gram(self._usual, features.shape[1]):
            for _ in range(steps):
                head = _stepped(head, features, self._errors(head, features, target))
            return head
        z = torch.addmm(head[HEAD_B], features, head[HEAD_W].t())
        scale = self.spec.inner_rate / target.shape[0]
        gram = (torch.mm(features, features.t()) + 1.0) * -scale
        errors = [torch.softmax(z, 1) - target]
        for _ in range(steps - 1):
            z = torch.addmm(z, gram, errors[-1])
            errors.append(torch.softmax(z, 1) - target)
        return _stepped(head, features, torch.stack(errors).sum(0) * scale)

    def _errors(self, head: Params, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The gradient of the inner loss at the logits, times the rate."""
        z = torch.addmm(head[HEAD_B], features, head[HEAD_W].t())
        return (torch.softmax(z, 1) - target) * (self.spec.inner_rate / target.shape[0])

    def _suffix_steps(
        self,
        params: Params,
        maps: Maps,
        start: int,
        target: torch.Tensor,
        entry: Entry,
        bags: Bags,
    ) -> Params:
        layers = self.network.body[start:]
        step, head = params, None if self.spec.head == "prototype" else self._head_start(
            params, maps.x, target
        )  # fmt: skip
        for _ in range(self.spec.inner_steps):
            tape = self._tape(step, bags, entry, back=True)
            top, back = tape.through(layers, maps)
            features = self._features(top)
            head = self._head_start(params, features, target) if head is None else head
            errors = self._errors(head, features, target)
            g = torch.mm(errors, head[HEAD_W])
            positions = top.height * top.width
            if self.network.pooled:
                g = (g / positions).unsqueeze(1).expand(-1, positions, -1)
            back(g)
            step = step | tape.moved
            if self.spec.pattern[-1] == "1":
                head = _stepped(head, features, errors)
        if head is None:  # no step: the prototypes of the body as it is
            top, _ = self._tape(step, bags, entry).through(layers, maps)
            head = self._head_start(params, self._features(top), target)
        return step | head

    def _told(
        self, last: Params, before: Tape, behind: Tape, maps: Maps
    ) -> tuple[torch.Tensor, ...]:
        found = dict(last)
        if replays(self.spec):
            behind.through(self.network.body[first_updated(self.spec.pattern) :], maps)
            for prefix, (mean, rstd) in (before.measured | behind.measured).items():
                found |= _folded(prefix, last, mean, rstd)
        told = outputs_of(self.spec)
        for layer in self.network.body:
            for c in layer.convs():
                if (name := f"{layer.name}.{c.name}.weight") in told:
                    kernel = last[name].view(c.kernel, c.kernel, c.into, c.out)
                    found[name] = kernel.permute(3, 2, 0, 1)
        return tuple(found[name] for name in told)


def _stepped(head: Params, features: torch.Tensor, errors: torch.Tensor) -> Params:
    """The classifier less the gradients that these errors (times the rate) stand for."""
    weight = torch.addmm(head[HEAD_W], errors.t(), features, alpha=-1)
    return {HEAD_W: weight, HEAD_B: head[HEAD_B] - errors.sum(0)}


class Prediction(nn.Module):
    """Query images and what an adaptation yields -> probabilities ``[M, N]``."""

    def __init__(self, student: Student, *, int8: bool = False) -> None:
        super().__init__()
        self.spec, self.network = student.spec, student.spec.network()
        self.read = _Images(student.spec)
        given = set(outputs_of(student.spec))
        own = {n: p for n, p in student.params.items() if n not in given}
        self.weights = _Weights({n: own[n] for n in self._needed(given) if n in own}, int8=int8)

    def _needed(self, given: set[str]) -> Iterator[str]:
        for layer in self.network.body:
            for c in layer.convs():
                prefix = f"{layer.name}.{c.name}"
                norm = () if f"{prefix}.scale" in given else ("gain", "bias")
                yield from (f"{prefix}.{name}" for name in ("weight", *norm))

    @override
    def forward(self, images: torch.Tensor, *adapted: torch.Tensor) -> torch.Tensor:
        own = {n: p.permute(3, 2, 0, 1) if p.dim() == 4 else p for n, p in self.weights().items()}
        params = own | dict(zip(outputs_of(self.spec), adapted, strict=True))
        x = self.read(images)
        for layer in self.network.body:
            x = self._layer(layer, params, x)
        last = x.mean((2, 3)) if self.network.pooled else x.permute(0, 2, 3, 1).flatten(1)
        return torch.softmax(torch.addmm(params[HEAD_B], last, params[HEAD_W].t()), 1)

    def _layer(self, layer: Layer, params: Params, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(layer, ResidualStage):
            (c,) = layer.convs()
            stride = layer.window.stride if isinstance(layer, ConvBlock) else 1
            x = torch.relu(self._convolved(layer, c, params, x, stride))
            pools = isinstance(layer, ConvBlock) and layer.down == "pool"
            return F.max_pool2d(x, 2) if pools else x
        for index in range(layer.blocks):
            main, short = layer.block(index)
            y = x
            for number, c in enumerate(main):
                y = self._convolved(layer, c, params, y, layer.stride_of(index, number))
                y = torch.relu(y) if number + 1 < len(main) else y
            if short is not None:
                x = self._convolved(layer, short, params, x, layer.stride_of(index, None))
            x = torch.relu(x + y)
        return F.max_pool2d(x, 2) if layer.kind == "triple" else x

    def _convolved(
        self, layer: Layer, c: Conv, params: Params, x: torch.Tensor, stride: int
    ) -> torch.Tensor:
        prefix = f"{layer.name}.{c.name}"
        y = F.conv2d(x, params[f"{prefix}.weight"], None, stride, c.kernel // 2)

        def column(name: str) -> torch.Tensor:
            return params[f"{prefix}.{name}"].view(-1, 1, 1)

        if replays(self.spec):
            return y * column("scale") + column("shift")
        dims = (0, 2, 3)
        seen = y
        if self.spec.norm == "group":
            size, dims = group_size(c.out), (2, 3, 4)
            seen = y.view(-1, c.out // size, size, c.height, c.width)
        mean = seen.mean(dims, keepdim=True)
        seen = seen - mean
        seen = seen * torch.rsqrt((seen * seen).mean(dims, keepdim=True) + EPS)
        return seen.reshape(-1, c.out, c.height, c.width) * column("gain") + column("bias")
