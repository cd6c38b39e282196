"""Learner: the few methods every method has, and the ending they all share.

A learner is one configuration of one method being meta-trained on one data set. It knows torch
and nothing of who runs it: ``_ray.py`` gives it a life cycle, ``search.train`` a for-loop.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ValidationError

from trainables._core.ending import Outcome, score_on_fresh_tasks, score_on_test_classes
from trainables._core.episodes import ImageData, TaskShape
from trainables._core.outer import DivergedError
from trainables._core.settings import MethodConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ConfigError",
    "DivergedError",
    "ImageData",
    "Learner",
    "MethodConfig",
    "Outcome",
    "RunSettings",
    "TaskShape",
    "flat",
    "flat_defaults",
    "parse",
    "parse_config",
    "score_on_fresh_tasks",
    "score_on_test_classes",
]

Value = bool | int | float | str


class ConfigError(ValueError):
    """A configuration names an unknown parameter or gives one an impossible value."""


@dataclass(frozen=True)
class RunSettings:
    """What is the same for every trial of a sweep, whatever the method."""

    iterations: int  # meta-iterations of one trial
    seed: int
    device: str = "cpu"
    validation_tasks: int = 200
    quick_tasks: int = 50  # of these, how many a report during training uses
    halvings: int = 0  # of the tasks that go together, for a trial that ran out of memory before


class Learner(ABC):
    """One configuration of one method, being meta-trained."""

    Config: ClassVar[type[MethodConfig]]

    @abstractmethod
    def __init__(
        self, config: Mapping[str, Value], data: ImageData, shape: TaskShape, run: RunSettings
    ) -> None:
        """Builds networks and samplers.

        Args:
            config: parameters by dotted name; what is left out has its default.
            data: class-indexed images in three splits.
            shape: ways, shots and queries of a task.
            run: iterations, seed, device and numbers of tasks.

        Raises:
            ConfigError: a parameter is unknown or has an impossible value.
            ValueError: the network does not fit the images.
        """

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One meta-iteration.

        Returns:
            At least ``loss``, the outer loss of this meta-batch.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """A quick look: ``accuracy`` of the full pattern on the first validation tasks."""

    @abstractmethod
    def finish(self, further: Sequence[Mapping[str, Value]] = ()) -> Outcome:
        """The (pattern, step) table on validation tasks and the choice under epsilon.

        Args:
            further: configurations that differ in how the trained model is adapted alone; each
                is answered from the same table, and those that choose the same are one.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """A snapshot of everything that training goes on from; it shares no tensor."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on exactly where the snapshot was taken."""

    @classmethod
    @abstractmethod
    def cheap(
        cls, config: Mapping[str, Value], *, channels: int, size: int, ways: int
    ) -> dict[str, float]:
        """Metrics known before training: ``student_params``, ``student_mib``, ``student_macs``.

        Args:
            config: parameters by dotted name.
            channels: channels of the images.
            size: side of the images in px.
            ways: classes of a task.
        """


def flat(config: BaseModel, prefix: str = "") -> dict[str, Value]:
    """A configuration as dotted names and plain values."""
    found: dict[str, Value] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def flat_defaults(learner: type[Learner]) -> dict[str, Value]:
    """Every parameter a method has, by dotted name, with its default."""
    return flat(learner.Config())


def parse_config(learner: type[Learner], values: Mapping[str, Value]) -> MethodConfig:
    """Dotted names -> the method's frozen configuration.

    Raises:
        ConfigError: every wrong name with the nearest right one, every wrong value with its place.
    """
    return parse(learner.Config, values)


def parse(kind: type[MethodConfig], values: Mapping[str, Value]) -> MethodConfig:
    """Dotted names -> a frozen configuration of this class.

    Raises:
        ConfigError: every wrong name with the nearest right one, every wrong value with its place.
    """
    known = flat(kind())
    problems = []
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
            problems.append(f"{name} is not a parameter of this method; {hint}")
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    if not problems:
        try:
            return kind.model_validate(nested)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}; found {e['input']!r}."
                if e["loc"]
                else f"{e['msg'].removeprefix('Value error, ')}."
                for e in error.errors()
            ]
    raise ConfigError("\n".join(problems))
