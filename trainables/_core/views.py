"""Augmented views of support images: the same few small warps every time.

A view is a rotation, a shift and a scaling; the list is fixed, so that an adaptation on a device
gives the numbers the search saw [our default; random views would need a generator there].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# degrees, shift right and down as a share of the side, scale
WARPS = ((12.0, 0.0, 0.0, 1.0), (-12.0, 0.0, 0.0, 1.0), (0.0, 0.06, -0.06, 0.88))
MOST = len(WARPS)


def with_views(images: torch.Tensor, count: int) -> torch.Tensor:
    """``[B, M, H, W, C] -> [B, (1 + count) * M, H, W, C]``: the images, then each warp of them.

    Raises:
        ValueError: more views are asked for than there are warps.
    """
    if count == 0:
        return images
    if not 0 <= count <= MOST:
        msg = f"There are 0 to {MOST} views of a support image; found views = {count}."
        raise ValueError(msg)
    edge = images[:, :, :1, :1]  # outside an image there is its background, not grey
    shifted = images - edge
    return torch.cat([images, *(_warp(shifted, warp) + edge for warp in WARPS[:count])], 1)


def view_labels(labels: torch.Tensor, count: int) -> torch.Tensor:
    """The labels ``[M]`` of ``with_views``'s images."""
    return labels.repeat(1 + count) if count else labels


def _warp(images: torch.Tensor, warp: tuple[float, float, float, float]) -> torch.Tensor:
    degrees, right, down, scale = warp
    cos, sin = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    rows = [[cos, -sin, -2 * right], [sin, cos, -2 * down]]
    theta = torch.tensor([rows], dtype=images.dtype, device=images.device)
    grid = F.affine_grid(theta, [1, 1, *images.shape[2:4]], align_corners=False)
    first = images.movedim(-1, 2)  # one grid for every image and channel
    flat = first.reshape(1, -1, *first.shape[3:])
    return F.grid_sample(flat, grid, align_corners=False).view(first.shape).movedim(2, -1)
