"""A student that leaves home: its network, weights, pre-processing and way of adapting.

Two files, neither of them executable: ``model.safetensors`` holds the weights and
``pattern.json`` everything else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables._core import networks
from trainables._core.adapt import adapt
from trainables._core.episodes import channels_last, resized
from trainables._core.evaluate import Setting
from trainables._core.patterns import check
from trainables._core.views import view_labels, with_views

if TYPE_CHECKING:
    from pathlib import Path

    from trainables._core.adapt import Adapted
    from trainables._core.layers import Params
    from trainables._core.networks import Network

WEIGHTS, SPEC = "model.safetensors", "pattern.json"


def content_of(folder: Path) -> str:
    """The sha256 of a student's two files; empty where one cannot be read."""
    try:
        parts = [(folder / name).read_bytes() for name in (WEIGHTS, SPEC)]
    except OSError:
        return ""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


class StudentError(ValueError):
    """A student's files are missing, torn or not what they should be."""


class StudentSpec(BaseModel):
    """All a device needs to know besides the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["conv4", "resnet12", "resnet18", "resnet50"] = "conv4"
    width: int = Field(gt=0)
    depth: int = Field(gt=0)
    norm: Literal["batch", "group"]
    head: Literal["prototype", "shared", "linear"]
    down: Literal["stride", "pool"]
    ways: int = Field(ge=2)  # of the training tasks; binding for a linear head alone
    channels: Literal[1, 3]
    size: int = Field(gt=0)  # px of a decoded image
    input_size: int = Field(gt=0)  # px the network reads
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pattern: str
    layers: tuple[str, ...]
    inner_steps: int = Field(ge=0)
    inner_rate: float = Field(gt=0)
    views: int = Field(ge=0)
    normalisation: Literal["inductive", "transductive"]

    def network(self) -> Network:
        """The layers these weights belong to."""
        into = (self.channels, self.input_size, self.input_size)
        if self.kind != "conv4":
            return networks.teacher(
                self.kind, into, width=self.width, norm=self.norm, head=self.head, ways=self.ways
            )
        return networks.conv4(
            into,
            width=self.width,
            depth=self.depth,
            norm=self.norm,
            head=self.head,
            down=self.down,
            ways=self.ways,
        )

    def setting(self, ways: int) -> Setting:
        """How it adapts to a task of ``ways`` classes."""
        inductive = self.normalisation == "inductive"
        return Setting(self.inner_steps, self.inner_rate, ways, self.views, inductive)


@dataclass(frozen=True)
class Student:
    """A meta-trained student with its chosen pattern and number of steps."""

    spec: StudentSpec
    params: Params

    def save(self, folder: Path) -> None:
        """Writes the two files into an existing folder."""
        tensors = {n: p.detach().cpu().contiguous().clone() for n, p in self.params.items()}
        save_file(tensors, folder / WEIGHTS)
        text = json.dumps(self.spec.model_dump(mode="json"), indent=2)
        (folder / SPEC).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Student:
        """Reads the two files back.

        Raises:
            StudentError: one is missing, unreadable, or does not fit the other.
        """
        spec_file, weights_file = folder / SPEC, folder / WEIGHTS
        for file in (spec_file, weights_file):
            if not file.is_file():
                msg = f"A student is {WEIGHTS} and {SPEC} in one folder; {file} is missing."
                raise StudentError(msg)
        try:
            spec = StudentSpec.model_validate_json(spec_file.read_bytes())
            params = load_file(weights_file)
            network = spec.network()
            check(spec.pattern, network.layers)
        except (ValidationError, SafetensorError, ValueError, OSError) as error:
            msg = f"{folder} holds no readable student: {error} Export it again."
            raise StudentError(msg) from error
        expected = {n: p.shape for n, p in network.init(torch.Generator()).items()}
        found = {n: p.shape for n, p in params.items()}
        if expected != found:
            wrong = sorted(n for n in expected | found if expected.get(n) != found.get(n))
            msg = (
                f"{weights_file} does not hold the weights that {SPEC} describes; the first that "
                f"differs is {wrong[0]}. Export it again."
            )
            raise StudentError(msg)
        return cls(spec, params)

    @cached_property
    def network(self) -> Network:
        """Its layers, which know after the first task how to run them."""
        return self.spec.network()

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 ``[M, C, size, size]`` -> what the network reads, ``[1, M, H, W, C]``.

        In the precision of the weights.
        """
        dtype = next(iter(self.params.values())).dtype
        mean = torch.tensor(self.spec.mean, dtype=dtype).view(-1, 1, 1)
        std = torch.tensor(self.spec.std, dtype=dtype).view(-1, 1, 1)
        one = channels_last((images.to(dtype) / 255.0 - mean) / std)[None]
        return resized(one, self.spec.input_size)

    def adapt(self, images: torch.Tensor, labels: torch.Tensor, ways: int) -> Adapted:
        """Adapts to one task.

        Args:
            images: support images, uint8 ``[M, C, size, size]``.
            labels: classes ``[M]`` in 0..ways-1, at least one image of each.
            ways: number of classes.

        Returns:
            What it left, in tensors that autograd may refuse.

        Raises:
            ValueError: a linear head meets another number of classes than it was trained for.
        """
        spec = self.spec
        views = with_views(self.normalised(images), spec.views)
        labels = view_labels(labels, spec.views)
        rule = spec.setting(ways).rule(spec.pattern)
        return adapt(self.network, self.params, views, labels, rule, history=False)

    @torch.no_grad()
    def predict(self, adapted: Adapted, images: torch.Tensor) -> torch.Tensor:
        """Class probabilities ``[M, N]`` of uint8 images ``[M, C, size, size]``.

        Inductive students see each image as if it came alone; transductive ones use the
        statistics of all images given.
        """
        query = self.normalised(images)
        inductive = self.spec.normalisation == "inductive"
        stats = adapted.statistics(-1) if inductive else None
        return torch.softmax(adapted.logits(-1, query, stats)[0], -1)
