"""Conv-4 blocks with batch norm, written out: one block forward, one block back, no graph.

A block is four calls forward and up to seven back. Maps travel as rows, ``[B, R, C]``, or
``[R, C]`` for a task that is alone, because torch's calls for one matrix are quicker than those for
a batch of one; on the few images of a task what lies between two calls costs as much as they do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from trainables._core.kernels import added, gathered, looker, product
from trainables._core.layers import ConvBlock, convolved, wide, wide_alone
from trainables._core.norms import EPS, Kept, normed, normed_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainables._core.layers import Layer, Params, Statistics


MANY_NUMBERS = 3 * 2**13  # of a lone task's map, from which on two maxima are faster: measured


class Passed(NamedTuple):
    """What the way back needs of one block."""

    rows: torch.Tensor  # [B, R, k*k*C], patches of its input
    kept: Kept
    z: torch.Tensor  # [B, R, O], behind the ReLU
    taken: torch.Tensor | None  # where max-pooling found its maxima


def written_out(layers: Sequence[Layer], images: int) -> bool:
    """Whether these layers go without autograd for a task of so many images."""
    return all(
        isinstance(layer, ConvBlock)
        and layer.norm == "batch"
        and not wide(layer.window, images, layer.into[0])
        for layer in layers
    )


class Lane(NamedTuple):
    """A block as tasks of one shape go through it, with nothing left to look up."""

    block: ConvBlock
    weight: str  # names of its parameters
    gain: str
    bias: str
    taps: int  # k * k * C
    matrix: Callable[[torch.Tensor], torch.Tensor]  # a lone task's kernel as a matrix
    look: Callable[[torch.Tensor], torch.Tensor]  # all tasks' maps as rows -> their patches
    by_torch: bool  # where nobody asks for its patches: they are too many to be worth making
    by_maxima: bool  # where nobody asks which pixels it takes


def lanes(blocks: Sequence[ConvBlock], images: int, device: torch.device) -> list[Lane]:
    """One for every block, for so many images of all tasks together."""
    found = []
    for block in blocks:
        weight, gain, bias = block.names
        taps = block.window.kernel**2 * block.into[0]
        cpu = device.type == "cpu"
        by_torch = cpu and wide_alone(block.window, images, block.into[0])
        look = (  # index lists that nobody may need are made by who does
            partial(gathered, window=block.window, images=images)
            if by_torch
            else looker(block.window, block.into[0], images, device)
        )
        numbers = images * block.window.out[0] * block.window.out[1] * block.width
        by_maxima = cpu and block.down == "pool" and numbers >= MANY_NUMBERS
        matrix = _to_matrix(taps, block.width)
        found.append(Lane(block, weight, gain, bias, taps, matrix, look, by_torch, by_maxima))
    return found


def _to_matrix(taps: int, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The view of a kernel as a matrix; the last one that all tasks share is kept."""
    known: tuple[torch.Tensor | None, torch.Tensor | None] = None, None

    def of(weight: torch.Tensor) -> torch.Tensor:
        nonlocal known
        kept, found = known
        if kept is not weight or found is None:
            found = weight.view(taps, width)
            if weight.dim() == 4:
                known = weight, found
        return found

    return of


def looked(lane: Lane, x: torch.Tensor) -> torch.Tensor:
    """Maps as rows -> the patches of all of them."""
    if x.dim() == 2:
        return lane.look(x)
    return lane.look(x.reshape(-1, x.shape[-1])).view(x.shape[0], -1, lane.taps)


def onward(
    lane: Lane, rows: torch.Tensor, params: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, Passed]:
    """Patches -> the block's output as rows, and what the way back needs; kernels are matrices."""
    y = product(rows, params[lane.weight])
    z, kept = normed(y, params[lane.gain], params[lane.bias])
    z.relu_()
    x, taken = pooled(lane.block, z) if lane.block.down == "pool" else (z, None)
    return x, Passed(rows, kept, z, taken)


def back(
    block: ConvBlock, passed: Passed, g: torch.Tensor, gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradient behind a block -> that of its product, and of gain and bias."""
    if passed.taken is not None:
        how = ([2, 2], [2, 2], [0, 0], [1, 1], False, passed.taken)
        g, z = _maps(g, block.width, block.out[1:]), _maps(passed.z, block.width, block.window.out)
        g = torch.ops.aten.max_pool2d_with_indices_backward(g, z, *how).permute(0, 2, 3, 1)
    before = torch.ops.aten.threshold_backward(g.reshape(passed.z.shape), passed.z, 0)
    return normed_back(before, passed.kept, gain)


def moved(
    lane: Lane,
    passed: Passed,
    own: Params,
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rate: float,
    *,
    in_place: bool,
) -> Params:
    """The block's own tensors one step on, from what ``back`` found."""
    weight, gain, bias = own[lane.weight], own[lane.gain], own[lane.bias]
    g, g_gain, g_bias = found
    if in_place:
        (weight.addmm_ if weight.dim() == 2 else weight.baddbmm_)(passed.rows.mT, g, alpha=-rate)
        gain.sub_(g_gain, alpha=rate)
        bias.sub_(g_bias, alpha=rate)
        return {}
    return {
        lane.weight: added(weight, passed.rows.mT, g, -rate),
        lane.gain: torch.sub(gain, g_gain, alpha=rate),
        lane.bias: torch.sub(bias, g_bias, alpha=rate),
    }


def alone(
    through: Sequence[Lane],
    params: Mapping[str, torch.Tensor],
    x: torch.Tensor,
    stats: Statistics | None,
    rows: torch.Tensor | None,
) -> torch.Tensor:
    """One task through blocks whose norms measure it. ``[1, M, H, W, C] -> [1, M, H', W', C']``."""
    images = x.shape[1]
    x = x.reshape(-1, x.shape[-1])
    for block, weight, gain, bias, _, matrix, look, by_torch, by_maxima in through:
        gains, biases = params[gain], params[bias]
        if gains.dim() > 1:
            gains, biases = gains[0], biases[0]
        # nested: what only the way back would need is gone by then
        x, mean, rstd = torch.native_batch_norm(
            convolved(x, params[weight], block.window)
            if by_torch and rows is None
            else torch.mm(look(x) if rows is None else rows[0], matrix(params[weight])),
            gains, biases, None, None, True, 0.0, EPS,  # noqa: FBT003 - torch's order
        )  # fmt: skip
        if by_maxima:
            x = _maxima(block, x)
        elif block.down == "pool":
            x = pooled(block, x)[0]
        x.relu_()  # the same before and behind maxima, which are fewer
        if stats is not None:
            stats.values.append((mean, rstd))
        rows = None
    return x.view(1, images, *through[-1].block.out[1:], -1)


def _maxima(block: ConvBlock, z: torch.Tensor) -> torch.Tensor:
    """2x2 max-pooling of rows, first of two lines each, then of two columns."""
    _, height, width = block.out
    x = z.view(-1, *block.window.out, block.width)[:, : 2 * height, : 2 * width]
    x = torch.maximum(x[:, ::2], x[:, 1::2])
    return torch.maximum(x[:, :, ::2], x[:, :, 1::2]).view(-1, block.width)


def pooled(block: ConvBlock, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2x2 max-pooling of rows, as rows; and where its maxima were."""
    found, taken = F.max_pool2d_with_indices(_maps(z, block.width, block.window.out), [2, 2])
    return found.permute(0, 2, 3, 1).reshape(*z.shape[:-2], -1, block.width), taken


def _maps(x: torch.Tensor, channels: int, size: tuple[int, ...]) -> torch.Tensor:
    """Rows as images first and channels second, which torch's own routines want."""
    return x.reshape(-1, *size, channels).permute(0, 3, 1, 2)
