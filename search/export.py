"""A trial becomes a bundle: its student, its configuration and its numbers, to take anywhere."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from search import registry
from search.bundle import (
    CONFIG,
    METRICS_FILE,
    README,
    check_free,
    new_bundle,
    seal,
    write_json,
)
from search.documents import dump
from search.entries import write_entry
from search.errors import UserError
from search.exported import rounded, save_int8, write_programs
from search.fresh import for_export, of_rounded
from search.guide import guide
from search.metrics import METRICS
from search.picks import choose, choose_all
from search.progress import show
from search.results import load_results
from search.rundir import finite, now, read_json
from spaces._domains import Fixed
from trainables._core.student import Student, StudentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.config import SweepConfig
    from search.picks import Pick
    from search.results import RunResults
    from spaces._domains import Value

INPUTS = "inputs"  # copies of the files that the sweep file named
_ONE_LINE = ("data", "objectives", "constraints", "budget", "resources", "evaluation")
_OF_DATA = ("source", "fingerprint", "size", "channels", "classes", "images")


Limits: TypeAlias = dict[str, dict[str, float]]  # "max" and "min" -> metric -> value


@dataclass(frozen=True)
class Extras:
    """What a bundle holds besides weights and numbers.

    Attributes:
        programs: Adaptation and predictions as programs for torch and ONNX; see ``exported``.
        int8: Kernels rounded to what bytes hold, their accuracy beside the other's.
    """

    programs: bool = True
    int8: bool = False


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        trial: The number of the trial.
        why: What makes it the one that was picked.
        next_best: The number of the trial that comes next; None where there is none.
        out: The bundle.
        sentence: All of this for people, in one sentence.
    """

    trial: int
    why: str
    next_best: int | None
    out: Path
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``export --json`` for one bundle."""
        return {**asdict(self), "out": str(self.out)}


def export(
    run: str | Path,
    pick: str | int,
    maxima: Mapping[str, float],
    out: str | Path,
    *,
    minima: Mapping[str, float] | None = None,
    extras: Extras = Extras(),
) -> ExportReport:
    """Write one trial of a run as a bundle.

    Args:
        run: The run directory.
        pick: best, knee, fastest, smallest, or the number of a complete trial; see ``picks``.
        maxima: Metric -> the largest value allowed.
        out: The bundle's directory, new or empty; it is written whole or not at all.
        minima: Metric -> the smallest value allowed; None: no such limit.
        extras: What it holds besides weights and numbers.

    Raises:
        UserError: The path is no run, no trial can be picked, or ``out`` is taken.
        FailedError: A program cannot be made, or says something else than the engine.
    """
    place, limits = Path(out), {"max": dict(maxima), "min": dict(minima or {})}
    check_free(place.resolve())
    results = load_results(run)
    picked = choose(results, str(pick), limits["max"], limits["min"])
    return _write(results, picked, limits, place, extras)


def export_all(
    run: str | Path,
    maxima: Mapping[str, float],
    out: str | Path,
    *,
    minima: Mapping[str, float] | None = None,
    extras: Extras = Extras(),
) -> list[ExportReport]:
    """Write every trial on the front of a run as a bundle, ``out/trial-N`` each.

    Args:
        run: The run directory.
        maxima: Metric -> the largest value allowed.
        out: A directory, new or empty.
        minima: Metric -> the smallest value allowed; None: no such limit.
        extras: What it holds besides weights and numbers.

    Returns:
        What was exported, best first objective first.

    Raises:
        UserError: The path is no run, no trial can be picked, or ``out`` is taken.
        FailedError: A program cannot be made, or says something else than the engine.
    """
    place, limits = Path(out), {"max": dict(maxima), "min": dict(minima or {})}
    check_free(place.resolve())
    results = load_results(run)
    chosen = choose_all(results, limits["max"], limits["min"])
    for picked in chosen:  # a student that cannot be read stops it before anything is written
        _student(results, picked.trial["id"])
    return [
        _write(results, picked, limits, place / f"trial-{picked.trial['id']}", extras)
        for picked in chosen
    ]


def _write(
    results: RunResults, picked: Pick, limits: Limits, place: Path, extras: Extras
) -> ExportReport:
    trial, data = picked.trial, results.config.data
    student = _student(results, trial["id"])
    mode = student.spec.normalisation
    with new_bundle(place) as folder:
        settings = _settings(results.config, trial["config"])
        numbers, fresh = for_export(results, trial, student)
        metrics = _metrics(results, {**trial, "metrics": numbers}, mode)
        if extras.int8:
            student = rounded(student)
            metrics["int8"] = of_rounded(results, student) | save_int8(folder, student)
            kept = show("accuracy", metrics["int8"]["fresh_accuracy"])
            fresh += f", with int8 weights {kept}"
        student.save(folder)
        programs: list[str] = []
        if extras.programs:
            programs = write_programs(folder, student, data.ways, data.shots, int8=extras.int8)
        config = _config(results.config, settings, folder)
        head = f"# Trial {trial['id']} of the sweep {results.info.get('name', '')}. "
        head += f"Train it again: fewtune train {CONFIG}\n"
        (folder / CONFIG).write_text(head + config, encoding="utf-8")
        write_json(folder / METRICS_FILE, metrics)
        provenance = _provenance(results, picked, limits)
        text = guide(student.spec, metrics, provenance, results.config, programs)
        (folder / README).write_text(text, encoding="utf-8")
        seal(folder, provenance)
    chosen = None if picked.next_best is None else int(picked.next_best["id"])
    sentence = _sentence(results, picked, mode, place, fresh)
    return ExportReport(int(trial["id"]), picked.why, chosen, place, sentence)


def _sentence(results: RunResults, picked: Pick, mode: str, out: Path, fresh: str) -> str:
    names = dict.fromkeys(["accuracy", *results.config.objectives])

    def told(trial: Mapping[str, Any]) -> str:
        values = [f"{n} {show(n, trial['metrics'].get(n))}" for n in names]
        return f"trial {trial['id']} ({', '.join(values)})"

    first = f"Wrote {told(picked.trial)} to {out}: {picked.why}"
    if picked.next_best is not None:
        rank = picked.next_why or "next best"
        first += f"; {rank} is {told(picked.next_best)}"
        if (beside := picked.next_best["metrics"].get("fresh_accuracy")) is not None:
            fresh += f", that of trial {picked.next_best['id']} {show('accuracy', beside)}"
    return f"{first}; accuracies are {mode}, on validation tasks; {fresh}."


def _student(results: RunResults, number: int) -> Student:
    if not (results.run.trial(number) / "student").is_dir():
        raise UserError(
            f"Trial {number} has no weights any more: they were deleted to make room (max_disk). "
            "Those of the front and of the best trials are kept."
        )
    try:
        return Student.load(results.run.trial(number) / "student")
    except StudentError as error:
        raise UserError(
            f"Trial {number} cannot be exported: {' '.join(str(error).split())}"
        ) from error


def _settings(config: SweepConfig, drawn: Mapping[str, Value]) -> dict[str, Value]:
    """Return every setting of a trial: what it was given, then the defaults of all others.

    A parameter of the space that was not drawn had its condition unmet and says nothing.
    """
    space, defaults = config.resolved_space(), registry.defaults(config.method)
    rest = {k: v for k, v in defaults.items() if k not in drawn and k not in space}
    return {**drawn, **rest}


def _config(config: SweepConfig, settings: Mapping[str, Value], folder: Path) -> str:
    """Write the sweep file in which nothing is left to draw.

    Where runs are kept is left out, and so is where the data lies: another machine has its own
    places. Files that the sweep file names are copied into the bundle.
    """
    plain: dict[str, Any] = config.model_dump(
        exclude={"space", "constraints", "storage", "name", "early_stopping"}, exclude_none=True
    )
    plain["data"].pop("path", None)
    if config.data.split is not None:
        plain["data"]["split"] = _copied(config.data.split, folder / INPUTS / "split")
    plain["space"] = {
        name: write_entry(Fixed(value, why="as in the trial")) for name, value in settings.items()
    }
    if start := settings.get("checkpoint"):
        plain["space"]["checkpoint"] = _copied(Path(str(start)), folder / INPUTS / "checkpoint")
    if files := registry.files(config.method):
        plain["method"] = _written(files, folder / INPUTS / registry.title(config.method))
    plain["constraints"] = [str(constraint) for constraint in config.constraints]
    plain["budget"] = {"trials": 1, "iterations": config.budget.iterations}
    ordered = {name: plain[name] for name in type(config).model_fields if name in plain}
    blocks = [
        dump({name: value}, flow=None if name in _ONE_LINE else False)
        for name, value in ordered.items()
    ]
    return "".join(blocks)


def _written(files: Mapping[str, str], target: Path) -> str:
    """Write the code of a method from outside, as the run keeps it.

    Returns:
        Its place, relative to the bundle.
    """
    target.mkdir(parents=True)
    for name, text in files.items():
        (target / name).write_text(text, encoding="utf-8")
    return target.relative_to(target.parents[1]).as_posix()


def _copied(source: Path, target: Path) -> str:
    """Copy a file, or the files of a folder, that the configuration reads.

    Returns:
        The place of the copy, relative to the bundle.
    """
    target.mkdir(parents=True)
    try:
        inside = sorted(source.iterdir()) if source.is_dir() else []
        for file in [f for f in inside if f.is_file() and f.name[0] != "."] or [source]:
            shutil.copyfile(file, target / file.name)
    except OSError as error:
        raise UserError(
            f"The sweep read {source}, which cannot be copied into the bundle: {error.strerror}. "
            "Put it back, then export again."
        ) from error
    copy = target if source.is_dir() else target / source.name
    return copy.relative_to(target.parents[1]).as_posix()


def _metrics(results: RunResults, trial: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """Return every metric by its name, null where it was not measured, the task, and the table."""
    data = results.config.data
    file = results.run.trial(int(trial["id"])) / "table.json"
    return dict(
        finite(
            {
                **dict.fromkeys(METRICS),
                **trial["metrics"],
                "normalisation": mode,
                "ways": data.ways,
                "shots": data.shots,
                "queries": data.queries,
                "table": read_json(file) if file.is_file() else [],
            }
        )
    )


def _provenance(results: RunResults, picked: Pick, limits: Limits) -> dict[str, Any]:
    """Return where a bundle comes from, without a path of this machine."""
    config, info, trial = results.config, results.info, picked.trial
    versions = dict(info.get("versions", {}))
    commit = versions.pop("commit", None)
    return dict(
        finite(
            {
                "run": info.get("name"),
                "trial": trial["id"],
                "study": info.get("study"),
                "method": registry.title(config.method),
                "objectives": dict(config.objectives),
                "constraints": [str(c) for c in config.constraints],
                "picked": {"why": picked.why, **limits},
                "seeds": {"sweep": config.seed, "data": config.data.seed},
                "data": {k: info.get("data", {}).get(k) for k in _OF_DATA}
                | {"source": config.data.source},
                "commit": commit,
                "versions": versions,
                "trained": {"started": trial.get("started"), "ended": trial.get("ended")},
                "exported": {
                    "at": now(),
                    "fewtune": _version("fewtune"),
                    "torch": _version("torch"),
                },
            }
        )
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
