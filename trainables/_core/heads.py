"""The head: a linear classifier whose start decides how many classes a task may have.

``prototype`` (Proto-MAML, Triantafillou et al. 2020): w_c = 2 s mu_c, b_c = -s |mu_c|^2, any
number of classes; zero steps of it is a prototype classifier. The learned scale s is our addition:
with s = 1 the support predictions saturate before the first step. It counts without its sign: an
optimiser's step may be larger than s, and features learn to lie far from their own prototypes then.
``shared`` (Ye & Chao 2022): one meta-learned vector copied to every class, any number of classes.
``linear`` (MAML): a meta-learned row per class; the number of classes is fixed at training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainables._core.layers import Params

HEADS = ("linear", "prototype", "shared")
HEAD_W, HEAD_B = "head.W", "head.b"  # a task's own classifier, [B, N, F] and [B, N]
START_SPREAD = 2.0  # s starts at this over F: our default, by measurement


@dataclass(frozen=True, eq=False)
class Labels:
    """Classes of a task's images: ``ids [M]`` in 0..N-1, and one-hot, ``target [M, N]``.

    ``shots`` is how many images each class has where they come class by class, else 0.
    """

    ids: torch.Tensor
    target: torch.Tensor
    shots: int = 0

    @classmethod
    def of(cls, ids: torch.Tensor, ways: int, dtype: torch.dtype) -> Labels:
        """All of it from the first; on a CPU what tasks of one shape share is made once."""
        if ids.is_cpu:
            return _labels(tuple(ids.tolist()), ways, dtype)
        return cls(ids, one_hot(ids, ways, dtype))

    def means(self, features: torch.Tensor) -> torch.Tensor:
        """Of every class. ``[B, M, F] -> [B, N, F]``, or without B."""
        if self.shots == 1:
            return features
        *tasks, _, numbers = features.shape
        ways = self.target.shape[1]
        if self.shots:
            return features.view(*tasks, ways, self.shots, numbers).mean(-2)
        sums = features.new_zeros(*tasks, ways, numbers)
        return sums.index_add(-2, self.ids, features) / self.target.sum(0).unsqueeze(-1)


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)  # also where it was an adaptation that asked first
def _labels(ids: tuple[int, ...], ways: int, dtype: torch.dtype) -> Labels:
    each = len(ids) // ways
    in_order = each * ways == len(ids) and ids == tuple(i // each for i in range(len(ids)))
    tensor = torch.tensor(ids)
    return Labels(tensor, one_hot(tensor, ways, dtype), each if in_order else 0)


@dataclass(frozen=True)
class Head:
    """The last layer: ``features`` numbers F in, one logit per class out."""

    kind: str
    features: int
    ways: int  # classes at training; binding for "linear" alone
    name: str = "head"

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters of the head."""
        if self.kind == "prototype":
            return {"head.scale": torch.tensor(START_SPREAD / self.features)}
        rows = () if self.kind == "shared" else (self.ways,)
        weight = torch.randn(*rows, self.features, generator=generator) * self.features**-0.5
        return {"head.weight": weight, "head.bias": torch.zeros(rows)}

    def parameters(self) -> int:
        """Numbers stored before a task: the classifier of a task comes on top of these."""
        if self.kind == "prototype":
            return 1
        return (self.features + 1) * (1 if self.kind == "shared" else self.ways)

    def macs(self, ways: int) -> int:
        """Multiply-accumulates of one image's logits."""
        return self.features * ways

    def start(
        self,
        params: Mapping[str, torch.Tensor],
        features: torch.Tensor,
        labels: Labels,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The classifier a task starts with.

        Args:
            params: the network's meta-parameters.
            features: support features ``[B, M, F]``, or one task's without B.
            labels: the tasks' classes, the same order in every task.

        Returns:
            Weights ``[B, N, F]`` and biases ``[B, N]``, each task's own; without B as they came.

        Raises:
            ValueError: a linear head meets a number of classes it was not trained for.
        """
        tasks, ways = features.shape[:-2], labels.target.shape[1]
        if self.kind == "prototype":
            means = labels.means(features)
            scale = params["head.scale"].abs()
            # the bias not by way of the weights: a step asks for the gradient of each alone
            return means * (2 * scale), (means * means).sum(-1) * -scale
        weight, bias = params["head.weight"], params["head.bias"]
        if self.kind == "shared":
            return weight.expand(*tasks, ways, -1), bias.expand(*tasks, ways)
        if weight.shape[0] != ways:
            msg = (
                f"This student's linear head was trained for {weight.shape[0]} classes, and the "
                f"task has {ways}; give it {weight.shape[0]} classes, or train a student whose "
                f"head fits any number (student.head: prototype or shared)."
            )
            raise ValueError(msg)
        return weight.expand(*tasks, -1, -1), bias.expand(*tasks, -1)


def logits(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[B, M, F], [B, N, F], [B, N] -> [B, M, N]``, or one task's without B."""
    if features.dim() == 2:
        return torch.addmm(bias, features, weight.mT)
    return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))


def one_hot(labels: torch.Tensor, ways: int, dtype: torch.dtype) -> torch.Tensor:
    """``[M] -> [M, N]``; unlike torch's own, it asks the device for nothing."""
    return (labels.unsqueeze(1) == torch.arange(ways, device=labels.device)).to(dtype)


def by_gram(images: int, features: int) -> bool:
    """Whether steps of the head alone are cheaper through the images' Gram matrix."""
    return images <= features
