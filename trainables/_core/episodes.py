"""Episodes: support and query images of B tasks, drawn by index from a torch.Generator.

No Python per image: classes and images are chosen by sorting random keys, gathered in one read
and normalised in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Images(Protocol):
    """Class-indexed images: class c owns ``images[starts[c]:starts[c + 1]]``."""

    @property
    def images(self) -> NDArray[np.uint8]:
        """``[n, C, H, W]``."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """``[classes + 1]``."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """``[classes]``; classes of one group never meet in one episode."""


class ImageData(Protocol):
    """What the methods need of a data set: three class-disjoint splits and their scale."""

    @property
    def train(self) -> Images: ...
    @property
    def validation(self) -> Images: ...
    @property
    def test(self) -> Images: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def channels(self) -> int: ...


@dataclass(frozen=True)
class TaskShape:
    """N-way K-shot with Q query images per class."""

    ways: int
    shots: int
    queries: int


@dataclass(frozen=True)
class Episodes:
    """B tasks: ``support [B, N*K, H, W, C]``, ``query [B, N*Q, H, W, C]``, class by class."""

    support: torch.Tensor
    support_labels: torch.Tensor  # [N*K], the same in every task
    query: torch.Tensor
    query_labels: torch.Tensor  # [N*Q]
    tasks: int
    ways: int
    first: int = 0  # of a part: the number of its first task in the whole

    def split(self, size: int) -> list[Episodes]:
        """The same tasks, at most ``size`` at a time."""
        pairs = zip(self.support.split(size), self.query.split(size), strict=True)
        return [
            replace(self, support=s, query=q, tasks=len(s), first=self.first + i * size)
            for i, (s, q) in enumerate(pairs)
        ]


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """``[..., C, H, W] -> [..., H, W, C]``, the layout of the engine."""
    return images.movedim(-3, -1).contiguous()


class Sampler:
    """Draws episodes from one split.

    Args:
        split: class-indexed images.
        data: the data set's mean and standard deviation per channel, in [0, 1] scale.
        shape: ways, shots and queries.
        device: where the images live; they are copied there once.
    """

    def __init__(self, split: Images, data: ImageData, shape: TaskShape, device: str) -> None:
        self.shape = shape
        self.device = device
        self._source = split.images
        self._on_device = (
            torch.from_numpy(np.array(split.images)).to(device) if device != "cpu" else None
        )
        self._starts = torch.from_numpy(np.array(split.starts))
        self._counts = self._starts.diff()
        groups = np.array(split.groups)
        order = np.argsort(groups, kind="stable")
        _, first, size = np.unique(groups[order], return_index=True, return_counts=True)
        self._group_first = torch.from_numpy(first)
        self._group_size = torch.from_numpy(size)
        self._group_order = torch.from_numpy(order)
        self._mean = torch.tensor(data.mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(data.std, device=device).view(-1, 1, 1)

    def indices(self, generator: torch.Generator, tasks: int) -> torch.Tensor:
        """Image numbers ``[B, N, K + Q]``: distinct groups, then distinct images of a class."""
        keys = torch.rand(tasks, len(self._group_first), generator=generator)
        groups = keys.topk(self.shape.ways, dim=1).indices
        pick = torch.rand(tasks, self.shape.ways, generator=generator)
        member = (pick * self._group_size[groups]).long()
        classes = self._group_order[self._group_first[groups] + member]
        counts = self._counts[classes]
        keys = torch.rand(tasks, self.shape.ways, int(self._counts.max()), generator=generator)
        keys[torch.arange(keys.shape[-1]) >= counts.unsqueeze(-1)] = -1.0
        images = keys.topk(self.shape.shots + self.shape.queries, dim=2).indices
        return self._starts[classes].unsqueeze(-1) + images

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """Normalised images ``[..., C, H, W]`` for image numbers of any shape."""
        flat = index.reshape(-1)
        if self._on_device is not None:
            raw = self._on_device[flat.to(self.device)]
        else:
            raw = torch.from_numpy(self._source[flat.numpy()])
        images = (raw.float().div_(255.0) - self._mean) / self._std
        return images.view(*index.shape, *images.shape[1:])

    def draw(self, generator: torch.Generator, tasks: int) -> Episodes:
        """B tasks from the generator alone: the same state gives the same tasks."""
        return self.episodes(self.indices(generator, tasks))

    def episodes(self, index: torch.Tensor) -> Episodes:
        """The tasks of image numbers ``[B, N, K + Q]``."""
        tasks = index.shape[0]
        n, k, q = self.shape.ways, self.shape.shots, self.shape.queries
        images = self.gather(index)
        support = images[:, :, :k].reshape(tasks, n * k, *images.shape[3:])
        query = images[:, :, k:].reshape(tasks, n * q, *images.shape[3:])
        classes = torch.arange(n, device=self.device)
        return Episodes(
            channels_last(support),
            classes.repeat_interleave(k),
            channels_last(query),
            classes.repeat_interleave(q),
            tasks,
            n,
        )

    def fixed(self, seed: int, tasks: int, chunk: int) -> Iterator[Episodes]:
        """The same ``tasks`` tasks for every caller with this seed, ``chunk`` at a time."""
        for part in self.parts(seed, tasks, chunk):
            yield self.episodes(part)

    def parts(self, seed: int, tasks: int, chunk: int) -> tuple[torch.Tensor, ...]:
        """The image numbers of ``fixed``, for whoever wants any chunk, or one again."""
        return torch.split(self.indices(torch.Generator().manual_seed(seed), tasks), chunk)


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images ``[B, M, H, W, C]`` at ``size`` px, antialiased; untouched if they have that size."""
    if images.shape[2:4] == (size, size):
        return images
    flat = images.flatten(0, 1).movedim(-1, 1)
    flat = F.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    return flat.movedim(1, -1).reshape(*images.shape[:2], size, size, -1)
