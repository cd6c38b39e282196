"""An exported student meets the user's own classes: two folders of images in, predictions out."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from search.bundle import check_free, read_bundle
from search.errors import UserError
from search.folders import query_images, support_images
from search.saved import save_adapted
from search.sheet import check_sheet, write_sheet
from trainables._core.evaluate import TIMED_RUNS, WARM_UP_RUNS
from trainables._core.lease import node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from trainables._core.adapt import Adapted
    from trainables._core.student import Student

TIME_LIMIT_S = 3.0  # of timed adaptations; a slow student gets fewer of them
CHUNK = 64  # query images predicted at once: memory against overhead
SHOWN = 50  # predictions printed


@dataclass(frozen=True)
class Prediction:
    """What the student says of one query image.

    Attributes:
        file: The image, relative to the query folder.
        label: The class it takes it for.
        confidence: The probability it gives that class, in [0, 1].
    """

    file: str
    label: str
    confidence: float


@dataclass(frozen=True)
class AdaptReport:
    """An adaptation, and what the adapted student says.

    Attributes:
        classes: Names of the classes, in the order of the support folder.
        pattern: Layers that were updated, one bit each, input side first.
        inner_steps: Steps of the adaptation.
        adapt_ms: Milliseconds from the decoded support images to a student ready to predict;
            median of ``timed``, one thread, one task.
        accuracy: Share of the query images that are right; None where they have no labels.
        predictions: One for each query image, by name.
        normalisation: inductive (each image by itself) or transductive (all together).
        support: Support images used.
        timed: Adaptations timed.
        truth: The class of each query image; empty where they have no labels.
    """

    classes: tuple[str, ...]
    pattern: str
    inner_steps: int
    adapt_ms: float
    accuracy: float | None
    predictions: tuple[Prediction, ...]
    normalisation: str
    support: int
    timed: int
    truth: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``adapt --json``."""
        return {
            "classes": list(self.classes),
            "pattern": self.pattern,
            "inner_steps": self.inner_steps,
            "adapt_ms": self.adapt_ms,
            "normalisation": self.normalisation,
            "accuracy": self.accuracy,
            "predictions": [asdict(prediction) for prediction in self.predictions],
        }

    def print(self, console: Console) -> None:
        """Show a summary, and the predictions that are least certain."""
        steps = f"{self.inner_steps} step{'' if self.inner_steps == 1 else 's'}"
        adapted = (
            f"Adapted to {len(self.classes)} classes from {_images(self.support)} in "
            f"{self.adapt_ms:.2f} ms (median of {self.timed}, one thread): pattern "
            f"{self.pattern}, {steps}."
        )
        lines = [adapted]
        if not self.predictions:
            lines.append("No query images: --query DIR classifies the images in a folder.")
        elif self.accuracy is not None:
            right = sum(p.label == t for p, t in zip(self.predictions, self.truth, strict=True))
            lines.append(
                f"Accuracy {100 * self.accuracy:.1f} % ({self.normalisation}): {right} of "
                f"{_images(len(self.predictions))} right; chance is "
                f"{100 / len(self.classes):.1f} %."
            )
        else:
            lines.append(f"Classified {_images(len(self.predictions))} ({self.normalisation}).")
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.predictions:
            self._print_predictions(console)

    def _print_predictions(self, console: Console) -> None:
        from rich.box import SIMPLE  # noqa: PLC0415 - not needed for --json
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        order = sorted(
            range(len(self.predictions)), key=lambda i: (self.predictions[i].confidence, i)
        )
        if len(order) > SHOWN:
            shown, title = order[:SHOWN], f"the {SHOWN} least certain of {len(order)}"
        else:
            shown, title = sorted(order), "predictions"
        table = Table(box=SIMPLE, title=title, title_justify="left", pad_edge=False)
        for name in ("image", "prediction", *(["truth"] if self.truth else [])):
            table.add_column(name, overflow="fold")
        table.add_column("confidence", justify="right", no_wrap=True)
        for i in shown:
            one = self.predictions[i]
            cells = [one.file, one.label]
            if self.truth:
                cells.append(self.truth[i] if self.truth[i] != one.label else "right")
            table.add_row(*map(Text, cells), f"{100 * one.confidence:.1f} %")
        console.print(table)
        if len(order) > SHOWN:
            console.print(f"`--json` names all {len(order)}.", markup=False, highlight=False)


def adapt(
    bundle: str | Path,
    support: str | Path,
    query: str | Path | None = None,
    *,
    save: Path | None = None,
    sheet: Path | None = None,
) -> AdaptReport:
    """Adapt an exported student to new classes, and classify.

    Args:
        bundle: What ``fewtune export`` wrote.
        support: A folder of images for each class; 2 or more classes, 1 or more images of each.
        query: Images to classify: class folders with names from ``support``, which are scored, or
            images alone. None: the student is adapted and timed only.
        save: A directory, new or empty, for the adapted student; see ``saved``.
        sheet: A PNG to write the query images to, with their predictions.

    Raises:
        UserError: The bundle is not whole, the folders do not fit it, or a place is taken.
        DataError: A folder is missing or holds no images.
    """
    _check_places(query, save, sheet)
    student = read_bundle(bundle).student
    given = support_images(Path(support), student.spec)
    names = tuple(dict.fromkeys(given.labels))
    asked = None if query is None else query_images(Path(query), student.spec, names)
    labels = torch.tensor([names.index(label) for label in given.labels])
    spec = student.spec
    with _one_thread():
        with node().exclusive():  # not beside a trial of a sweep on this machine
            adapted, laps = _timed(student, given.pixels, labels, len(names))
        chances = None if asked is None else _probabilities(student, adapted, asked.pixels)
    predictions: tuple[Prediction, ...] = ()
    accuracy: float | None = None
    truth: tuple[str, ...] = ()
    if asked is not None and chances is not None:
        confidence, best = chances.max(1)
        predictions = tuple(
            Prediction(file, names[index], value)
            for file, index, value in zip(
                asked.files, best.tolist(), confidence.tolist(), strict=True
            )
        )
        truth = asked.labels
        right = [p.label == t for p, t in zip(predictions, truth, strict=False)]
        accuracy = sum(right) / len(right) if right else None
        if sheet is not None:
            said = [p.label for p in predictions]
            write_sheet(sheet, asked.pixels, said, confidence.tolist(), truth)
    if save is not None:
        save_adapted(save, Path(bundle), student, adapted, names)
    return AdaptReport(
        names, spec.pattern, spec.inner_steps, statistics.median(laps), accuracy, predictions,
        spec.normalisation, len(given.files), len(laps), truth,
    )  # fmt: skip


def _check_places(query: str | Path | None, save: Path | None, sheet: Path | None) -> None:
    """Refuse what cannot be written before anything is computed."""
    if save is not None:
        check_free(save.resolve(), "--save")
    if sheet is not None:
        if query is None:
            raise UserError("--sheet shows query images with their predictions; add --query DIR.")
        check_sheet(sheet)


def _timed(
    student: Student, images: torch.Tensor, labels: torch.Tensor, ways: int
) -> tuple[Adapted, list[float]]:
    """Adapt a few times; return the last student and the milliseconds of each, warm-up aside."""
    laps: list[float] = []
    began = time.perf_counter()
    while True:
        start = time.perf_counter()
        adapted = student.adapt(images, labels, ways)
        if student.spec.normalisation == "inductive":
            with torch.no_grad():
                adapted.statistics(-1)
        laps.append((time.perf_counter() - start) * 1e3)
        measured = laps[WARM_UP_RUNS:] if len(laps) > WARM_UP_RUNS else laps[-1:]
        if len(laps) == WARM_UP_RUNS + TIMED_RUNS or time.perf_counter() - began > TIME_LIMIT_S:
            return adapted, measured


def _probabilities(student: Student, adapted: Adapted, images: torch.Tensor) -> torch.Tensor:
    """Return class probabilities ``[M, N]``; a transductive student must see all images at once."""
    size = CHUNK if student.spec.normalisation == "inductive" else len(images)
    found = torch.cat([student.predict(adapted, part) for part in torch.split(images, size)])
    if not bool(torch.isfinite(found).all()):
        raise RuntimeError(
            "The adapted student's predictions are no numbers: its adaptation diverges on these "
            "images, or its weights do not hold what training left."
        )
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Adapt as a small device does, and alike on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
