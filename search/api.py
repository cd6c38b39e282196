"""fewtune from Python: a handful of calls for notebooks and scripts.

::

    from search import api

    run = api.sweep("own.yaml", {"budget.trials": 8})  # or api.results("runs/letters")
    bundle = run.export("knee", "my-student")  # or api.bundle("my-student")
    adapted = bundle.adapt(["cat1.jpg", "dog1.jpg"], ["cat", "dog"])
    adapted.predict(["new.jpg"])  # [Prediction(label=..., confidence=...)]

Paths and pictures go in, plain frozen objects come out; a mistake is an ``UserError`` or a
``DataError`` with the sentence that the command shows. torch is imported by whoever needs it.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from search.results import RunResults
    from trainables._core.adapt import Adapted as EngineAdapted
    from trainables._core.student import Student

Picture: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]
"""A file, its bytes, a PIL image, or uint8 ``[H, W]`` or ``[H, W, 3]``."""


@dataclass(frozen=True)
class Trial:
    """One trial: its number, how it ended, what it was given and what it reached."""

    number: int
    state: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A sweep's run, as it stood when it was read."""

    path: Path
    found: RunResults

    def trials(self) -> list[Trial]:
        """Every trial, in order."""
        return [_trial(one) for one in self.found.trials]

    def front(self) -> list[Trial]:
        """The feasible trials that nothing beats, best first objective first."""
        return [_trial(one) for one in self.found.front()]

    def export(
        self,
        pick: str | int,
        out: str | Path,
        *,
        most: Mapping[str, float] | None = None,
        least: Mapping[str, float] | None = None,
        programs: bool = True,
        int8: bool = False,
    ) -> Bundle:
        """Write a trial as a bundle.

        Args:
            pick: best, knee, fastest, smallest, or the number of a trial.
            out: The bundle's directory, new or empty.
            most: Metric -> the largest value allowed.
            least: Metric -> the smallest value allowed.
            programs: Programs for torch and ONNX too.
            int8: Weights rounded to int8, and scored so.

        Raises:
            UserError: Nothing can be picked, or ``out`` is taken.
        """
        from search.export import Extras, export  # noqa: PLC0415 - imports torch

        extras = Extras(programs=programs, int8=int8)
        export(self.path, pick, most or {}, out, minima=least, extras=extras)
        return bundle(out)


@dataclass(frozen=True)
class Prediction:
    """What an adapted student takes one picture for, and the probability it gives that."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Adapted:
    """A student that knows the caller's classes."""

    classes: tuple[str, ...]
    student: Student
    engine: EngineAdapted

    def probabilities(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Class probabilities ``[M, N]``, columns as in ``classes``."""
        pixels = _pixels(pictures, self.student)
        found: NDArray[np.float32] = self.student.predict(self.engine, pixels).numpy()
        return found

    def predict(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """The likeliest class of each picture."""
        chances = self.probabilities(pictures)
        return [Prediction(self.classes[int(row.argmax())], float(row.max())) for row in chances]


@dataclass(frozen=True)
class Bundle:
    """An exported student, whose files are as they were exported."""

    path: Path
    student: Student
    metrics: Mapping[str, Any]

    def adapt(self, pictures: Sequence[Picture], labels: Sequence[str]) -> Adapted:
        """Adapt the student to new classes.

        Args:
            pictures: One or more of each class.
            labels: The class of each.

        Raises:
            UserError: There are fewer than 2 classes, labels and pictures differ in number, or the
                student's head takes another number of classes.
            DataError: A picture cannot be read.
        """
        import torch  # noqa: PLC0415 - whoever reads results does not wait for it

        classes = tuple(sorted(set(labels)))
        self._check(len(pictures), labels, classes)
        ids = torch.tensor([classes.index(label) for label in labels])
        engine = self.student.adapt(_pixels(pictures, self.student), ids, len(classes))
        return Adapted(classes, self.student, engine)

    def _check(self, pictures: int, labels: Sequence[str], classes: Sequence[str]) -> None:
        from search.folders import check_ways  # noqa: PLC0415 - torch

        if pictures != len(labels):
            raise UserError(
                f"Every picture needs a label; found {pictures} pictures and {len(labels)} labels."
            )
        if len(classes) < 2:
            raise UserError(
                f"The student tells classes apart, so it needs at least 2; found {len(classes)}."
            )
        check_ways(self.student.spec, len(classes), "the labels have")


def sweep(
    file: str | Path | None = None,
    changes: Mapping[str, object] | None = None,
    *,
    name: str | None = None,
    storage: str | Path | None = None,
    address: str | None = None,
) -> Run:
    """Run a sweep on Ray and wait for its end.

    Args:
        file: A sweep file; None: the quickstart.
        changes: Keys of the file by dotted name, with other values, as ``{"data.ways": 3}``.
        name: Of the run.
        storage: Where run directories are made.
        address: Of a Ray cluster; None: this machine.

    Raises:
        UserError: Something is wrong with the file or the changes; all of it is said.
        DataError: The data is missing, or cannot fill the tasks.
    """
    from search.config import load_sweep  # noqa: PLC0415 - imports torch
    from search.sweep import run_sweep  # noqa: PLC0415

    words = [f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()]
    config = load_sweep(None if file is None else Path(file), words)
    return results(run_sweep(config, name=name, storage=storage, address=address))


def results(run: str | Path) -> Run:
    """Read a run, finished or not.

    Raises:
        UserError: The path is no run.
    """
    from search.results import load_results  # noqa: PLC0415 - imports torch

    return Run(Path(run), load_results(run))


def bundle(path: str | Path) -> Bundle:
    """Open what ``fewtune export`` wrote.

    Raises:
        UserError: It is no bundle, or a file of it was changed; it is named.
    """
    from search.bundle import read_bundle  # noqa: PLC0415 - imports torch

    found = read_bundle(path)
    return Bundle(found.path, found.student, found.metrics)


def _trial(one: Mapping[str, Any]) -> Trial:
    return Trial(int(one["id"]), str(one["state"]), dict(one["config"]), dict(one["metrics"]))


def _pixels(pictures: Sequence[Picture], student: Student) -> torch.Tensor:
    """Decode pictures as the student's own data was: uint8 ``[M, C, size, size]``."""
    import torch  # noqa: PLC0415

    from trainables._data import decode_image  # noqa: PLC0415

    spec = student.spec
    decoded = [decode_image(_source(one), spec.size, spec.channels) for one in pictures]
    if not decoded:
        raise UserError("At least one picture is needed; found none.")
    return torch.from_numpy(np.stack(decoded))


def _source(picture: Picture) -> Path | bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        return Path(picture)
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    kept = io.BytesIO()
    image.save(kept, format="PNG")
    return kept.getvalue()
