"""Conv-4 blocks with batch norm, written out: one block forward, one block back, no graph.

A block is four calls forward and five back. Maps travel as rows, ``[B, R, C]``, or ``[R, C]`` for a
task that is alone, because torch's calls for one matrix are quicker than those for a batch of one;
on the few images of a task what lies between two calls costs as much as they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from trainables._core.kernels import added, gathered, looker, product, scattered
from trainables._core.layers import ConvBlock, wide
from trainables._core.norms import EPS, Kept, normed, normed_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainables._core.layers import Layer, Params, Statistics


class Step(NamedTuple):
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


def looked(block: ConvBlock, x: torch.Tensor, images: int) -> torch.Tensor:
    """Maps as rows -> the patches of all of them; ``images`` are a task's."""
    if x.dim() == 2:
        return gathered(x, block.window, images)
    rows = gathered(x.reshape(-1, x.shape[-1]), block.window, len(x) * images)
    return rows.view(len(x), -1, rows.shape[1])


def onward(
    block: ConvBlock, rows: torch.Tensor, params: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, Step]:
    """Patches -> the block's output as rows, and what the way back needs; kernels are matrices."""
    weight, gain, bias = (params[name] for name in block.names)
    z, kept = normed(product(rows, weight), gain, bias)
    x, taken = _halved(block, z.relu_())
    return x, Step(rows, kept, z, taken)


def back(
    block: ConvBlock, step: Step, g: torch.Tensor, gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradient behind a block -> that of its product, and of gain and bias."""
    if step.taken is not None:
        how = ([2, 2], [2, 2], [0, 0], [1, 1], False, step.taken)
        g, z = _maps(g, block, block.out[1:]), _maps(step.z, block, block.window.out)
        g = torch.ops.aten.max_pool2d_with_indices_backward(g, z, *how).permute(0, 2, 3, 1)
    before = torch.ops.aten.threshold_backward(g.reshape(step.z.shape), step.z, 0)
    return normed_back(before, step.kept, gain)


def below(block: ConvBlock, g: torch.Tensor, weight: torch.Tensor, images: int) -> torch.Tensor:
    """The gradient of a block's product -> that of its input, as rows."""
    looks = product(g, weight.mT)
    if g.dim() == 2:
        return scattered(looks, block.window, images)
    pixels = scattered(looks.view(-1, looks.shape[-1]), block.window, len(g) * images)
    return pixels.view(len(g), -1, pixels.shape[1])


def moved(
    block: ConvBlock,
    step: Step,
    own: Params,
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rate: float,
) -> Params:
    """The block's own tensors one step on, from what ``back`` found."""
    weight, gain, bias = block.names
    g, g_gain, g_bias = found
    return {
        weight: added(own[weight], step.rows.mT, g, -rate),
        gain: torch.sub(own[gain], g_gain, alpha=rate),
        bias: torch.sub(own[bias], g_bias, alpha=rate),
    }


class Lane(NamedTuple):
    """A block as a task that is alone goes through it, with nothing left to look up."""

    block: ConvBlock
    weight: str  # names of its parameters
    gain: str
    bias: str
    taps: int  # k * k * C
    look: Callable[[torch.Tensor], torch.Tensor]  # maps as rows -> their patches


def lanes(blocks: Sequence[ConvBlock], images: int, device: torch.device) -> list[Lane]:
    """One for every block, for a task of so many images."""
    found = []
    for block in blocks:
        weight, gain, bias = block.names
        taps = block.window.kernel**2 * block.into[0]
        look = looker(block.window, block.into[0], images, device)
        found.append(Lane(block, weight, gain, bias, taps, look))
    return found


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
    for lane in through:
        x = _halved(lane.block, _measured(lane, params, x, rows, stats))[0]
        rows = None
    return x.view(1, images, *through[-1].block.out[1:], -1)


def _measured(
    lane: Lane,
    params: Mapping[str, torch.Tensor],
    x: torch.Tensor,
    rows: torch.Tensor | None,
    stats: Statistics | None,
) -> torch.Tensor:
    """One task's maps up to behind the ReLU; what only the way back would need is gone by then."""
    block, weight, gain, bias, taps, look = lane
    gains, biases = params[gain], params[bias]
    if gains.dim() > 1:
        gains, biases = gains[0], biases[0]
    seen = look(x) if rows is None else rows[0]
    y = torch.mm(seen, params[weight].view(taps, block.width))
    z, mean, rstd = torch.native_batch_norm(y, gains, biases, None, None, True, 0.0, EPS)  # noqa: FBT003  torch's
    if stats is not None:
        stats.values.append((mean, rstd))
    return z.relu_()


def _halved(block: ConvBlock, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a stride has done already, or pooling does; and where its maxima were."""
    if block.down == "stride":
        return z, None
    pooled, taken = F.max_pool2d_with_indices(_maps(z, block, block.window.out), [2, 2])
    return pooled.permute(0, 2, 3, 1).reshape(*z.shape[:-2], -1, block.width), taken


def _maps(x: torch.Tensor, block: ConvBlock, size: tuple[int, ...]) -> torch.Tensor:
    """Rows of a block as images first and channels second, which pooling wants."""
    return x.reshape(-1, *size, block.width).permute(0, 3, 1, 2)
