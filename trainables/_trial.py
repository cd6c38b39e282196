"""What all trials of a sweep share, as it travels to the workers; no Ray in it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from trainables._core.outside import arrived, carried
from trainables._core.settings import ADAPTATION
from trainables._core.student import content_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trainables._core.outside import Carried
    from trainables._learner import ImageData, Learner, RunSettings, TaskShape, Value


class DataHandle(Protocol):
    """What opens the data on the node where a trial runs; small enough to travel."""

    @property
    def fingerprint(self) -> str:
        """Digest of the content, part of a checkpoint's identity."""

    def open(self) -> ImageData:
        """Map or fetch the arrays."""


class Depot(Protocol):
    """Checkpoints that lie elsewhere than on this node; small enough to travel."""

    def newest(self, number: int) -> list[str]:
        """List where those of a trial lie, newest first."""

    def fetch(self, place: str, folder: Path) -> None:
        """Bring one into a directory to be made; of one that is not there nothing comes."""


@contextmanager
def at_hand(depot: Depot | None, place: str) -> Iterator[Path]:
    """Have a directory on this node: an absolute path is here, any other one in the depot."""
    if depot is None or Path(place).is_absolute():
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / Path(place).name
        depot.fetch(place, folder)
        yield folder


@dataclass(frozen=True)
class Chunks:
    """How often a trial speaks.

    Attributes:
        reports: Reports with a quick validation, evenly spread over the meta-iterations.
        report_s: Seconds after which it reports in between, without validation.
        checkpoint_s: Least seconds between two checkpoints.
    """

    reports: int = 8
    report_s: float = 30.0
    checkpoint_s: float = 20.0

    def boundary(self, iteration: int, iterations: int) -> int:
        """Return the meta-iteration of the next report after ``iteration``."""
        number = iteration * self.reports // iterations + 1
        at = -(-number * iterations // self.reports)
        while at <= iteration:
            number += 1
            at = -(-number * iterations // self.reports)
        return min(at, iterations)


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep share; a method from outside travels as its files.

    Attributes:
        learner: The method.
        shape: Ways, shots and queries.
        run: Meta-iterations, seed, device, numbers of tasks.
        threads: CPU threads of one trial; fixed, so that neighbours do not change its numbers.
        chunks: How often it reports and saves.
        limit_s: Seconds after which a trial is given up; None: no limit.
    """

    learner: type[Learner]
    shape: TaskShape
    run: RunSettings
    threads: int = 1
    chunks: Chunks = Chunks()
    limit_s: float | None = None

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Take the learner apart from the rest: it is to be importable first."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return _settings, (carried(values.pop("learner")), values)

    def training(self, config: Mapping[str, Value], fingerprint: str) -> str:
        """Digest of all that decides the trained model, however it is adapted at test."""
        kept = {name: value for name, value in config.items() if name not in ADAPTATION}
        return self.identity(kept, fingerprint)

    def identity(self, config: Mapping[str, Value], fingerprint: str) -> str:
        """Digest of all that decides a trial's result; a checkpoint fits only its own.

        The student that ``checkpoint`` names counts by what it is, not only by where it lies.
        """
        learner = f"{self.learner.__module__}.{self.learner.__qualname__}"
        parts = [learner, sorted(config.items()), asdict(self.shape), asdict(self.run), fingerprint]
        if start := config.get("checkpoint"):
            parts.append(content_of(Path(str(start)).expanduser()))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _settings(learner: type | Carried, values: dict[str, Any]) -> TrialSettings:
    return TrialSettings(arrived(learner), **values)
