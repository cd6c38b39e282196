"""The same networks as anyone would write them in PyTorch: modules, images first, NCHW.

Independent of the project but for the conversion of weights and images at the end. Batch norm is
torch's own by batch statistics; where query images are normalised with the statistics of the
support set, a pass over the support images measures them, as the project's does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from trainables._core.layers import ConvBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trainables._core.layers import Params
    from trainables._core.networks import Network

EPS = 1e-5


@dataclass
class Measured:
    """Mean and variance of every norm of one pass, in call order."""

    values: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    position: int | None = None  # None while they are being measured

    def replayed(self) -> Measured:
        """A reader of these values from the first norm on."""
        return Measured(self.values, 0)


class Norm(nn.Module):
    """Batch norm by the batch's own statistics, or by those measured in a pass before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    @override
    def forward(self, x: torch.Tensor, measured: Measured | None) -> torch.Tensor:
        if measured is not None and measured.position is not None:
            mean, variance = measured.values[measured.position]
            measured.position += 1
            scale = self.weight * torch.rsqrt(variance + EPS)
            shift = self.bias - mean * scale
            return torch.addcmul(shift[:, None, None], x, scale[:, None, None])
        if measured is not None and torch.is_grad_enabled():
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            measured.values.append((mean, variance))
        elif measured is not None:  # running statistics with momentum 1 cost nothing extra
            mean, variance = torch.zeros_like(self.bias), torch.zeros_like(self.bias)
            out = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, EPS)  # noqa: FBT003  torch's
            seen = x.numel() // x.shape[1]
            measured.values.append((mean, variance.mul_((seen - 1) / seen)))
            return out
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPS)


class Unit(nn.Module):
    """A convolution without bias and its norm."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
        self.norm = Norm(out)

    @override
    def forward(self, x: torch.Tensor, measured: Measured | None) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.conv(x), measured)
        return out


class Conv4(nn.Module):
    """Four blocks conv3x3, norm, ReLU, halved by stride 2 or by pooling; a linear head."""

    def __init__(self, into: tuple[int, ...], width: int, ways: int, down: str) -> None:
        super().__init__()
        channels, side, _ = into
        self.pools = down == "pool"
        widths = [channels, *[width] * 4]
        self.units = nn.ModuleList(
            Unit(a, b, 3, 1 if self.pools else 2) for a, b in pairwise(widths)
        )
        for _ in range(4):
            side = side // 2 if self.pools else (side + 1) // 2
        self.head = nn.Linear(width * side * side, ways)

    @override
    def forward(self, x: torch.Tensor, measured: Measured | None = None) -> torch.Tensor:
        for unit in self.units:
            x = F.relu(unit(x, measured), inplace=True)
            x = F.max_pool2d(x, 2) if self.pools else x
        out: torch.Tensor = self.head(x.flatten(1))
        return out


class Residual(nn.Module):
    """Three 3x3 units beside a 1x1 one, ReLU and 2x2 max-pooling behind their sum."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.units = nn.ModuleList([Unit(into, out, 3), Unit(out, out, 3), Unit(out, out, 3)])
        self.short = Unit(into, out, 1)

    @override
    def forward(self, x: torch.Tensor, measured: Measured | None) -> torch.Tensor:
        first, second, third = self.units
        y = F.relu(first(x, measured), inplace=True)
        y = F.relu(second(y, measured), inplace=True)
        y = third(y, measured)
        return F.max_pool2d(F.relu(y + self.short(x, measured), inplace=True), 2)


class ResNet12(nn.Module):
    """Four residual blocks of w, 2.5 w, 5 w and 10 w filters, average pooling, a linear head."""

    def __init__(self, channels: int, width: int, ways: int) -> None:
        super().__init__()
        widths = [channels, width, width * 5 // 2, width * 5, width * 10]
        self.blocks = nn.ModuleList(Residual(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], ways)

    @override
    def forward(self, x: torch.Tensor, measured: Measured | None = None) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, measured)
        out: torch.Tensor = self.head(x.mean((2, 3)))
        return out


def of(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    layout: torch.memory_format = torch.contiguous_format,
) -> nn.Module:
    """The conventional network with the project's weights.

    Its head is linear; a shared vector becomes a row for every class, which is what it means.

    Raises:
        ValueError: the network has a head of prototypes, which has no counterpart here.
    """
    first, ways = network.body[0], network.head.ways
    if network.head.kind == "prototype":
        msg = "A conventional network has a linear head; found prototypes: take shared or linear."
        raise ValueError(msg)
    if isinstance(first, ConvBlock):
        model: nn.Module = Conv4(first.into, first.width, ways, first.down)
    else:
        model = ResNet12(first.into[0], first.width, ways)
    model = model.to(meta["head.weight"])
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in zip(
            theirs, (_theirs(network, meta, n) for n in _ours(network)), strict=True
        ):
            theirs[name].copy_(value)
    return model.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def back(network: Network, values: Iterable[torch.Tensor]) -> Params:
    """Tensors in the order of the module's parameters, as the project names and lays them out."""
    found: Params = {}
    for name, value in zip(_ours(network), values, strict=True):
        if value.dim() == 4:
            found[name] = value.permute(2, 3, 1, 0)
        elif name == "head.weight" and not network.pooled:
            c, h, w = network.body[-1].out
            found[name] = value.view(-1, c, h, w).permute(0, 2, 3, 1).reshape(len(value), -1)
        else:
            found[name] = value
    return found


def images_first(images: torch.Tensor) -> torch.Tensor:
    """The engine's images ``[..., H, W, C]`` as modules want them, ``[..., C, H, W]``."""
    return images.movedim(-1, -3).contiguous()


def _ours(network: Network) -> list[str]:
    """The project's names in the order of the module's parameters."""
    return [
        *(n for layer in network.body for n in layer.names),
        "head.weight",
        "head.bias",
    ]


def _theirs(network: Network, meta: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    value, ways = meta[name], network.head.ways
    if value.dim() == 4:
        return value.permute(3, 2, 0, 1)
    if name == "head.bias":
        return value.expand(ways)
    if name != "head.weight":
        return value
    rows = value.expand(ways, -1)
    if network.pooled:
        return rows
    c, h, w = network.body[-1].out
    return rows.view(ways, h, w, c).permute(0, 3, 1, 2).reshape(ways, -1)
