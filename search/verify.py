"""A bundle is held to its word: every file is as it was exported, every accuracy is found again.

The evaluation runs on the tasks that it ran on, drawn again from the same seeds; the ONNX programs
run beside the engine where ONNX Runtime is installed. ``.pt2`` files are held by their digest
alone: torch reads them with pickle, and fewtune unpickles nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.bundle import CONFIG, Bundle, read_bundle
from search.config import load_sweep
from search.errors import UserError
from search.exported import check_onnx
from search.preflight import load_data
from search.progress import show
from trainables._core.ending import (
    FRESH_SEED,
    TEST_SEED,
    VALIDATION_SEED,
    student_accuracies,
)
from trainables._core.episodes import Sampler, TaskShape

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from search.config import SweepConfig
    from trainables._data import Dataset

TOLERANCE = 0.002  # of an accuracy: answers that rounding turns on another machine; our default
INT8 = "int8"  # of metrics.json: what was measured with the rounded weights


@dataclass(frozen=True)
class Check:
    """One accuracy, as the bundle says and as it was found again."""

    name: str
    said: float
    found: float

    @property
    def holds(self) -> bool:
        """Whether they are the same but for rounding."""
        return abs(self.said - self.found) <= TOLERANCE


@dataclass(frozen=True)
class VerifyReport:
    """What became of a bundle's word.

    Attributes:
        path: The bundle.
        files: How many files have the digest they were exported with.
        checks: Its accuracies.
        programs: The ONNX programs that say what the engine says.
    """

    path: Path
    files: int
    checks: tuple[Check, ...]
    programs: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything is as the bundle says."""
        return all(check.holds for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``verify --json``."""
        rows = [{"metric": c.name, "said": c.said, "found": c.found, "holds": c.holds}
                for c in self.checks]  # fmt: skip
        return {"bundle": str(self.path), "files": self.files, "holds": self.holds,
                "accuracies": rows, "programs": list(self.programs)}  # fmt: skip

    def print(self, console: Console) -> None:
        """Show it in a few lines."""
        lines = [f"{self.files} files are as they were exported."]
        for c in self.checks:
            verdict = "the same" if c.holds else "NOT the same"
            lines.append(f"{c.name}: {show('accuracy', c.said)} said, "
                         f"{show('accuracy', c.found)} found, {verdict}.")  # fmt: skip
        lines += [f"{name} says what the engine says." for name in self.programs]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def verify(bundle: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> VerifyReport:
    """Check a bundle's files, evaluate its student again, and run its ONNX programs.

    Args:
        bundle: What ``fewtune export`` wrote.
        overrides: Changes to its config.yaml, as ``data.path=FOLDER``.

    Raises:
        UserError: A file was changed (it is named), or the data is not the one it was made on.
        DataError: The data cannot be read.
        FailedError: A program says something else than the engine.
    """
    found = read_bundle(bundle)
    config = load_sweep(found.path / CONFIG, overrides, settings=False)  # no method's code runs
    data = load_data(config)
    known = found.provenance.get("data", {}).get("fingerprint")
    if data.fingerprint != known:
        raise UserError(
            f"The bundle was made on data with fingerprint {str(known)[:16]}, and "
            f"{config.data.source} here has {data.fingerprint[:16]}. Give the same images, as "
            "`--set data.path=FOLDER`."
        )
    programs = check_onnx(found.path, found.student, config.data.ways, config.data.shots)
    return VerifyReport(found.path, len(found.provenance["files"]), _checks(found, config, data),
                        tuple(programs))  # fmt: skip


def _checks(bundle: Bundle, config: SweepConfig, data: Dataset) -> tuple[Check, ...]:
    """Return every accuracy the bundle tells of the weights that are in it."""
    metrics, prefix = bundle.metrics, ""
    if metrics.get(INT8):
        metrics, prefix = metrics[INT8], f"{INT8} "
    shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
    few, many = config.evaluation.validation_tasks, config.evaluation.test_tasks
    tasks = {
        "accuracy": (data.validation, VALIDATION_SEED, few),
        "fresh_accuracy": (data.validation, FRESH_SEED, few),
        "test_accuracy": (data.test, TEST_SEED, many),
    }
    found = []
    for name, (split, seed, count) in tasks.items():
        if (said := metrics.get(name)) is not None:
            sampler = Sampler(split, data, shape, "cpu")
            values = student_accuracies(bundle.student, sampler, config.seed + seed, count)
            found.append(Check(prefix + name, float(said), float(values.double().mean())))
    return tuple(found)
