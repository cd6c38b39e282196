"""What a trained model was scored, task by task: kept beside it, so that nothing is scored twice.

One file, ``scores.safetensors``: accuracies ``[n]`` of a pattern and step at a rate on the first n
validation tasks, and what each pattern takes. It is plain data; nothing in it is executable.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trainables._core.timing import Timed

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from trainables._core.race import Key

FILE = "scores.safetensors"
_ACCURACY = "accuracy"


class ScoresError(ValueError):
    """The file is missing, torn or of another form; it is named."""


@dataclass(frozen=True)
class Scores:
    """Everything scored of one trained model."""

    trained: str  # the pattern of meta-training
    inner_steps: int  # T of meta-training
    inner_rate: float  # alpha of meta-training
    tasks: int  # N, validation tasks of a whole table
    accuracies: dict[float, dict[Key, torch.Tensor]] = field(default_factory=dict)  # by rate
    timings: dict[str, Timed] = field(default_factory=dict)  # pattern -> its time, however taken
    mib: dict[str, float] = field(default_factory=dict)  # pattern -> peak memory
    training: dict[str, float] = field(default_factory=dict)  # metrics of the training itself
    identity: str = ""  # of the training: configuration, data and settings

    def save(self, folder: Path, identity: str = "") -> None:
        """Writes the file into an existing folder, with whose it is."""
        tensors = {
            f"{_ACCURACY}/{rate!r}/{pattern}/{step}": values.cpu().contiguous().clone()
            for rate, table in self.accuracies.items()
            for (pattern, step), values in table.items()
        }
        told = {
            "trained": self.trained,
            "inner_steps": self.inner_steps,
            "inner_rate": self.inner_rate,
            "tasks": self.tasks,
            "timings": {pattern: asdict(timed) for pattern, timed in self.timings.items()},
            "mib": self.mib,
            "training": self.training,
            "identity": identity or self.identity,
        }
        save_file(tensors, folder / FILE, {"model": json.dumps(told)})

    @classmethod
    def load(cls, folder: Path) -> Scores:
        """Reads the file back.

        Raises:
            ScoresError: it is missing, torn or of another form.
        """
        file = folder / FILE
        try:
            with safe_open(file, "pt") as stored:
                told = json.loads(stored.metadata()["model"])
                timings = {p: Timed.of(said) for p, said in told.pop("timings").items()}
                found = cls(**told, timings=timings)
                for name in stored.keys():  # noqa: SIM118 - it is no mapping
                    found._take(name.split("/"), stored.get_tensor(name))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{file} holds no readable scores: {str(error) or type(error).__name__}."
            raise ScoresError(msg) from error
        return found

    def _take(self, name: list[str], values: torch.Tensor) -> None:
        _, rate, pattern, step = name
        self.accuracies.setdefault(float(rate), {})[pattern, int(step)] = values
