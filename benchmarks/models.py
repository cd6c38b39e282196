"""Students that the benchmarks adapt: meta-trained here, kept under ``runs/`` by their settings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from trainables._core.rig import student_network
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._learner import RunSettings, TaskShape, flat
from trainables.maml import Maml

if TYPE_CHECKING:
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._data import Dataset

KEPT = Path("runs/benchmarks")
WAYS, SHOTS, TRAIN_QUERIES = 5, 1, 5


@dataclass(frozen=True)
class Recipe:
    """All that a student's weights follow from; its name is the file's."""

    data: str
    width: int
    head: str
    iterations: int
    inner_rate: float = 0.1
    outer_rate: float = 3e-3
    meta_batch: int = 8
    inner_steps: int = 5
    order: str = "first"
    seed: int = 0
    precision: str = "highest"

    @property
    def name(self) -> str:
        """Every setting, in order."""
        return "-".join(str(value) for value in vars(self).values())

    def config(self) -> MethodConfig:
        """The same as a method's settings."""
        return MethodConfig.model_validate(
            {
                "student": StudentSettings.model_validate({"width": self.width, "head": self.head}),
                "inner_steps": self.inner_steps,
                "inner_rate": self.inner_rate,
                "order": self.order,
                "outer_rate": self.outer_rate,
                "meta_batch": self.meta_batch,
                "precision": self.precision,
            }
        )


def student(recipe: Recipe, data: Dataset, kept: Path = KEPT) -> tuple[Network, Params]:
    """The student of a recipe, from its file or meta-trained now."""
    file = kept / f"{recipe.name}.safetensors"
    if not file.exists():
        kept.mkdir(parents=True, exist_ok=True)
        weights = {n: p.detach().clone() for n, p in _trained(recipe, data).items()}
        save_file(weights, file)
    network = student_network(
        recipe.config().student, channels=data.channels, size=data.size, ways=WAYS
    )
    return network, load_file(file)


def _trained(recipe: Recipe, data: Dataset) -> Params:
    run = RunSettings(recipe.iterations, seed=recipe.seed, device="cpu")
    learner = Maml(flat(recipe.config()), data, TaskShape(WAYS, SHOTS, TRAIN_QUERIES), run)
    started = time.perf_counter()
    for done in range(1, recipe.iterations + 1):
        learner.step()
        if done % max(1, recipe.iterations // 4) == 0:
            seconds, seen = time.perf_counter() - started, learner.validate()["accuracy"]
            print(f"{recipe.name}: {done} iterations, {seconds:.0f} s, {seen:.4f}", flush=True)
    return learner.rig.meta
