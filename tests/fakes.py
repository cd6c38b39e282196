"""A method that trains in milliseconds, for tests of everything around the training.

Its accuracy is a smooth function of its parameters and of the meta-iteration, so that a search has
something to find; ``sick`` makes it fail in the ways that trials fail. Its students are real.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from typing_extensions import override

from search import registry
from spaces._domains import Choice, Domain, Fixed, Float, Int, When
from trainables._core.settings import Frozen
from trainables._core.student import Student, StudentSpec
from trainables._learner import Learner, MethodConfig, Outcome, flat_defaults, parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPACE: dict[str, Domain] = {
    "student.width": Int(4, 32, log=True, why="small to large"),
    "rate": Float(1e-3, 1.0, log=True, why="too slow to too fast"),
    "teacher.kind": Choice(("none", "wide"), why="with and without"),
    "teacher.width": Int(16, 64, why="large", when=When("teacher.kind", ("wide",))),
    "sick": Fixed("no", why="healthy unless a test says so"),
    "pause_s": Fixed(0.0, why="no waiting unless a test says so"),
}


class TeacherPart(Frozen):
    kind: Literal["none", "wide"] = "none"
    width: int = 32


class FakeConfig(MethodConfig):
    teacher: TeacherPart = TeacherPart()
    rate: float = 0.1
    sick: Literal["no", "nan", "nan metric", "raise", "memory", "die", "wide", "large"] = "no"
    pause_s: float = 0.0


class FakeLearner(Learner):
    """Learns by counting."""

    Config: ClassVar[type[MethodConfig]] = FakeConfig

    def __init__(self, config: Mapping[str, Any], data: Any, shape: Any, run: Any) -> None:
        parsed = parse_config(FakeLearner, config)
        assert isinstance(parsed, FakeConfig)
        self.settings: FakeConfig = parsed
        self.data, self.shape, self.run = data, shape, run
        self.given = dict(config)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.weight, self.steps = torch.zeros(3), 0

    @override
    def step(self) -> dict[str, float]:
        time.sleep(self.settings.pause_s)
        self.steps += 1
        self._note()
        self.weight = 0.9 * self.weight + torch.rand(3, generator=self.generator)
        self._fall_ill()
        sick = self.settings.sick == "nan" and self.steps >= 3
        return {"loss": math.nan if sick else 1 / self.steps, "tasks": 4.0}

    def _note(self) -> None:
        """Leave a trace of every step that was made, where a folder is named for it."""
        if folder := os.environ.get("FEWTUNE_STEPS"):
            with steps_file(Path(folder), self.run.seed, self.given).open("ab") as file:
                file.write(b"%d\n" % self.steps)

    def _fall_ill(self) -> None:
        sick = self.settings.sick
        if sick == "wide":  # only where there is a teacher
            sick = "raise" if self.settings.teacher.kind == "wide" else "no"
        if sick == "large":
            sick = "raise" if self.settings.student.width > 12 else "no"
        if self.steps < 3 or sick in ("no", "nan", "nan metric"):
            return
        if sick == "memory":
            raise MemoryError("no room for 12 GiB")
        if sick == "die":
            os.kill(os.getpid(), 9)
        raise RuntimeError(f"a broken layer at step {self.steps}")

    def accuracy(self) -> float:
        c = self.settings
        skill = 1 - math.exp(-self.steps * c.rate / 5)
        size = 0.4 + 0.15 * math.log(c.student.width)
        return skill * min(1.0, size + (0.03 if c.teacher.kind == "wide" else 0.0)) / 1.1

    @override
    def validate(self) -> dict[str, float]:
        return {"accuracy": self.accuracy()}

    def student(self) -> Student:
        spec = StudentSpec(
            width=self.settings.student.width, depth=2, norm="batch", head="prototype",
            down="stride", ways=self.shape.ways, channels=1, size=self.data.size, input_size=8,
            mean=self.data.mean, std=self.data.std, pattern="001", layers=("a", "b", "head"),
            inner_steps=1, inner_rate=0.1, views=0, normalisation="inductive",
        )  # fmt: skip
        return Student(spec, spec.network().init(torch.Generator().manual_seed(self.run.seed)))

    @override
    def finish(self, further: Sequence[Mapping[str, Any]] = ()) -> Outcome:
        student = self.student()
        params = student.spec.network().parameters()
        accuracy = self.accuracy()
        metrics: dict[str, Any] = {
            "accuracy": math.nan if self.settings.sick == "nan metric" else accuracy,
            "accuracy_ci95": 0.01,
            "accuracy_full": accuracy + 0.005,
            "quality_drop": 0.005,
            "pattern": "001",
            "inner_steps": 1,
            "adapt_ms": 0.1 * self.settings.student.width,
            "student_params": params,
            "weight": float(self.weight.sum()),
        }
        row: dict[str, Any] = {"pattern": "001", "step": 1, "accuracy": accuracy, "adapt_ms": 1.0}
        return Outcome(metrics, [row], student)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "weight": self.weight.clone(),
            "steps": self.steps,
            "generator": self.generator.get_state(),
        }

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight, self.steps = state["weight"], state["steps"]
        self.generator.set_state(state["generator"])

    @classmethod
    @override
    def cheap(
        cls, config: Mapping[str, Any], *, channels: int, size: int, ways: int
    ) -> dict[str, float]:
        return {"student_params": 40.0 * config.get("student.width", 64)}


def steps_file(folder: Path, seed: int, config: Mapping[str, Any]) -> Path:
    """Where a trial leaves a line for each step it makes, those made again included."""
    text = json.dumps([seed, sorted(config.items())])
    return folder / hashlib.sha256(text.encode()).hexdigest()[:16]


def weight_after(seed: int, steps: int) -> float:
    """The metric ``weight`` of an undisturbed trial."""
    generator, weight = torch.Generator().manual_seed(seed), torch.zeros(3)
    for _ in range(steps):
        weight = 0.9 * weight + torch.rand(3, generator=generator)
    return float(weight.sum())


def install(patch: Any = None) -> None:
    """Make the registry know the method ``fake``; ``patch`` is pytest's monkeypatch, if any."""
    known = {
        "METHODS": ("fake", *registry.METHODS),
        "learner": lambda name: FakeLearner,
        "space": lambda name: SPACE,
        "defaults": lambda name: flat_defaults(FakeLearner),
        "check_settings": lambda name, settings: parse_config(FakeLearner, settings),
    }
    for name, value in known.items():
        if patch is None:
            setattr(registry, name, value)
        else:
            patch.setattr(registry, name, value)
