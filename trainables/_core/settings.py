"""Settings every method shares, with their defaults: the only place a default lives."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentSettings(Frozen):
    """The small network that leaves home: a Conv-4 (MAML paper) of any width and depth."""

    width: int = Field(default=32, ge=1, le=1024)
    depth: int = Field(default=4, ge=1, le=8)
    size: int = Field(default=0, ge=0, le=512)  # px it reads; 0: the data's own
    norm: Literal["batch", "group"] = "batch"
    head: Literal["prototype", "shared", "linear"] = "prototype"
    down: Literal["stride", "pool"] = "stride"


class AtTestSettings(Frozen):
    """The student's adaptation at test, where it is to differ from that of meta-training."""

    steps: int = Field(default=0, ge=0, le=100)  # T; 0: inner_steps
    rate: float = Field(default=0.0, ge=0, le=10)  # alpha; 0: inner_rate


class MethodConfig(Frozen):
    """What every method has: a student, an inner loop, an outer loop and a choice of pattern."""

    student: StudentSettings = StudentSettings()
    inner_steps: int = Field(default=5, ge=1, le=100)  # T
    inner_rate: float = Field(default=0.1, gt=0, le=10)  # alpha
    order: Literal["second", "first"] = "second"
    adapts: Literal["all", "head", "body"] = "all"
    outer_rate: float = Field(default=1e-3, gt=0, le=1)  # Adam's, MAML paper
    meta_batch: int = Field(default=8, ge=1, le=1024)  # B
    normalisation: Literal["inductive", "transductive"] = "inductive"
    views: int = Field(default=0, ge=0, le=3)  # augmented views of each support image
    epsilon: float = Field(default=0.01, ge=0, le=1)
    patterns: Literal["all", "suffixes"] = "all"
    precision: Literal["highest", "high", "medium"] = "highest"  # of meta-training's products
    choice: Literal["race", "table"] = "race"  # score what can still be chosen, or every pattern
    test: AtTestSettings = AtTestSettings()


ADAPTATION = ("test.steps", "test.rate", "epsilon", "patterns", "choice")
"""What may change after training: the same trained model answers for all of it."""

FOLLOWS = {"test.steps": "inner_steps", "test.rate": "inner_rate"}
"""What a setting that is 0 takes its value from."""
