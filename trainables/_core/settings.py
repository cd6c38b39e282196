"""Settings every method shares, with their defaults: the only place a default lives."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentSettings(Frozen):
    """The small network that leaves home: a Conv-4 (MAML paper) of any width and depth.

    Attributes:
        width: Filters of each block.
        depth: Blocks before the head.
        size: Side in pixels of the images it reads, to which they are scaled; 0: the data's own.
        norm: How feature maps are normalised: over the images of a task, or within groups of
            filters of one image.
        head: What classifies: distances to class prototypes, one shared vector, both for any number
            of classes; or the papers' linear layer for ``data.ways`` of them.
        down: What halves the maps between blocks: strided convolutions or max pooling.
    """

    width: int = Field(default=32, ge=1, le=1024)
    depth: int = Field(default=4, ge=1, le=8)
    size: int = Field(default=0, ge=0, le=512)
    norm: Literal["batch", "group"] = "batch"
    head: Literal["prototype", "shared", "linear"] = "prototype"
    down: Literal["stride", "pool"] = "stride"


class AtTestSettings(Frozen):
    """The student's adaptation at test, where it is to differ from that of meta-training.

    Attributes:
        steps: T, inner steps at test; 0: those of meta-training, ``inner_steps``.
        rate: alpha, inner learning rate at test; 0: that of meta-training, ``inner_rate``.
    """

    steps: int = Field(default=0, ge=0, le=100)
    rate: float = Field(default=0.0, ge=0, le=10)


class MethodConfig(Frozen):
    """What every method has: a student, an inner loop, an outer loop and a choice of pattern.

    Attributes:
        inner_steps: T, inner steps of meta-training.
        inner_rate: alpha, the inner learning rate.
        order: Order of the meta-gradient; ``first`` leaves out the inner gradients' derivative.
        adapts: What the inner loop of meta-training updates: all layers (MAML), the head alone
            (ANIL) or all but the head (BOIL).
        outer_rate: Learning rate of the outer loop, Adam's.
        meta_batch: B, tasks of one meta-iteration.
        normalisation: By whose statistics query images are normalised: ``inductive``, those of the
            support set, as a device must; ``transductive``, their own.
        views: Augmented views of each support image, beside the image.
        epsilon: The accuracy that a cheaper pattern may lose against that of meta-training.
        patterns: Which ones are scored: all of them, or those that update the last layers alone.
        precision: How exact meta-training's matrix products are, in torch's words; adaptation is
            float32.
        choice: How the cheapest pattern is found: ``race`` scores what can still be chosen,
            ``table`` everything.
    """

    student: StudentSettings = StudentSettings()
    inner_steps: int = Field(default=5, ge=1, le=100)
    inner_rate: float = Field(default=0.1, gt=0, le=10)
    order: Literal["second", "first"] = "second"
    adapts: Literal["all", "head", "body"] = "all"
    outer_rate: float = Field(default=1e-3, gt=0, le=1)
    meta_batch: int = Field(default=8, ge=1, le=1024)
    normalisation: Literal["inductive", "transductive"] = "inductive"
    views: int = Field(default=0, ge=0, le=3)
    epsilon: float = Field(default=0.01, ge=0, le=1)
    patterns: Literal["all", "suffixes"] = "all"
    precision: Literal["highest", "high", "medium"] = "highest"
    choice: Literal["race", "table"] = "race"
    test: AtTestSettings = AtTestSettings()


ADAPTATION = ("test.steps", "test.rate", "epsilon", "patterns", "choice")
"""What may change after training: the same trained model answers for all of it."""

FOLLOWS = {"test.steps": "inner_steps", "test.rate": "inner_rate"}
"""What a setting that is 0 takes its value from."""
