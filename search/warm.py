"""Warm start: what earlier runs observed, mapped into this sweep's space.

A complete trial of an earlier run informs this run's sampler where it means the same here: trained
on the same data, measured by the same objectives and constraints, and inside this sweep's space
once its parameters are renamed. What a trial does not set, and what this sweep does not set, has
the method's default; a trial that trained with another value would be told as what it is not, and
is dropped. Such trials are never this run's own: they have no files here, count for no budget and
stand on no front.

The observations are written into the run before anything starts, so that a kill loses none and
the earlier runs may go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from search import registry
from search.errors import UserError, suggest
from search.points import Observation, first_point
from search.progress import counted
from search.proposals import as_drawn, completed
from search.results import load_results
from search.rundir import RunDir, read_json, write_json
from spaces._domains import active, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from search._optuna import Study
    from search.config import SweepConfig
    from search.results import RunResults
    from spaces._domains import Space, Value

FILE = "warm_start.json"
_STATES = {"PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "not finished",
           "REFUSED": "refused before training"}  # fmt: skip


@dataclass(frozen=True)
class WarmStart:
    """Runs to learn from, and how their parameters are called here.

    Attributes:
        runs: Run directories.
        renames: Name in the earlier runs -> name in this sweep.
    """

    runs: tuple[Path, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, runs: Sequence[Path], renames: Sequence[str]) -> WarmStart:
        """Read ``--from`` and ``--rename`` as the command line gives them.

        Raises:
            UserError: A path is no run, or a renaming is not of the form ``OLD=NEW``.
        """
        if renames and not runs:
            raise UserError("--rename names parameters of an earlier run; give it with --from RUN.")
        folders = [RunDir.open(run).path for run in runs]
        names: dict[str, str] = {}
        for text in renames:
            old, equals, new = (part.strip() for part in text.partition("="))
            if not (old and equals and new):
                raise UserError(f"A renaming reads `--rename OLD=NEW`; found `{text}`.")
            if old in names or new in names.values():
                raise UserError(f"`--rename {text}` names a parameter that is renamed already.")
            names[old] = new
        return cls(tuple(dict.fromkeys(folders)), names)


NO_WARM_START = WarmStart()


@dataclass
class Taken:
    """What one earlier run gives.

    Attributes:
        run: Its directory.
        total: How many trials it has.
        observations: Those that mean the same here.
        dropped: Reason -> how many trials were left out for it.
        filled: Parameter that the run did not search -> how many trials have its default.
        notes: What is not the same and does not forbid it.
    """

    run: str
    total: int
    observations: list[Observation] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps."""
        taken, dropped = len(self.observations), dict(self.dropped.most_common())
        return {"run": self.run, "trials": self.total, "taken": taken, "dropped": dropped}

    def lines(self) -> list[str]:
        """Say what was taken and what was dropped, and why."""
        said = f"{len(self.observations)} of {counted(self.total, 'trial')}"
        lines = [f"From {self.run}: {said} inform the sampler"]
        lines += [f"    {n} dropped: {why}" for why, n in self.dropped.most_common()]
        if self.filled:
            names = ", ".join(f"{name} ({n})" for name, n in sorted(self.filled.items()))
            lines.append(f"    not searched there, taken at the method's default: {names}")
        return [*lines, *(f"    {note}" for note in self.notes)]


def gather(start: WarmStart, config: SweepConfig, fingerprint: str) -> list[Taken]:
    """Map the finished trials of earlier runs into a sweep's space.

    Args:
        start: The runs and renamings.
        config: The new sweep.
        fingerprint: Of the new sweep's data.

    Raises:
        UserError: A run is of another method, task or data set, a renaming names nothing, or of
            all trials none can be taken.
    """
    if not start.runs:
        return []
    runs = [load_results(run) for run in start.runs]
    defaults = registry.defaults(config.method)
    for run in runs:
        _check_comparable(run, config, fingerprint)
    _check_renames(start.renames, runs, defaults)
    gathered = [_of_run(run, start.renames, config, defaults) for run in runs]
    if not any(one.observations for one in gathered):
        lines = [f"  {line}" for one in gathered for line in one.lines()]
        said = "No trial of the runs given by --from can be taken. Leave --from out, or change the "
        raise UserError("\n".join([f"{said}space so that it holds some:", *lines]))
    return gathered


def write_warm_start(run: RunDir, gathered: Sequence[Taken]) -> None:
    """Write what earlier runs observed into a run."""
    if gathered:
        trials = [asdict(trial) for one in gathered for trial in one.observations]
        report = [line for one in gathered for line in one.lines()]
        write_json(run.path / FILE, {"report": report, "trials": trials})


def read_warm_start(run: RunDir) -> dict[str, Any]:
    """Read what ``write_warm_start`` wrote; nothing where it wrote nothing."""
    file = run.path / FILE
    return dict(read_json(file)) if file.is_file() else {"report": [], "trials": []}


def _check_comparable(run: RunResults, config: SweepConfig, fingerprint: str) -> None:
    other, path = run.config, run.run.path
    theirs, ours = registry.title(other.method), registry.title(config.method)
    if theirs != ours:
        raise UserError(
            f"--from {path}: its method is {theirs}, this sweep's is {ours}. "
            "Trials of different methods do not inform each other; leave it out."
        )
    here, there = config.data, other.data
    if (there.ways, there.shots) != (here.ways, here.shots):
        raise UserError(
            f"--from {path}: its tasks are {there.ways}-way {there.shots}-shot, this sweep's "
            f"{here.ways}-way {here.shots}-shot. Their accuracies do not compare; leave it out."
        )
    known = str(run.info["data"]["fingerprint"])
    if known != fingerprint:
        raise UserError(
            f"--from {path}: its data ({there.source}) has the fingerprint {known[:12]}, this "
            f"sweep's ({here.source}) {fingerprint[:12]}. Results on different data do not "
            "compare; leave it out."
        )


def _check_renames(
    renames: Mapping[str, str], runs: Sequence[RunResults], defaults: Mapping[str, Value]
) -> None:
    used = {name for run in runs for trial in run.trials for name in trial["config"]}
    for old, new in renames.items():
        if new not in defaults:
            raise UserError(
                f"--rename {old}={new}: the method has no parameter {new}. {suggest(new, defaults)}"
            )
        if old not in used:
            raise UserError(
                f"--rename {old}={new}: no trial of the earlier runs has {old}. "
                f"{suggest(old, sorted(used))}"
            )


def _of_run(
    run: RunResults, renames: Mapping[str, str], config: SweepConfig, defaults: Mapping[str, Value]
) -> Taken:
    taken = Taken(str(run.run.path), len(run.trials))
    here, there = config.budget.iterations, run.config.budget.iterations
    if here != there:
        taken.notes.append(f"trained for {there} meta-iterations there, {here} here")
    space = config.resolved_space()
    for trial in run.trials:
        why = _STATES.get(trial["state"]) or _unmeasured(trial["metrics"], config)
        if not why:
            settings = {renames.get(n, n): v for n, v in trial["config"].items()}
            point = _mapped(settings, space, defaults)
            if isinstance(point, dict):
                taken.filled.update(point.keys() - settings.keys())
                origin = f"{taken.run}, trial {trial['id']}"
                taken.observations.append(Observation(origin, point, trial["metrics"]))
                continue
            why = point
        taken.dropped[why] += 1
    return taken


def _unmeasured(metrics: Mapping[str, object], config: SweepConfig) -> str:
    needed: Iterable[str] = [*config.objectives, *(c.metric for c in config.constraints)]
    for name in dict.fromkeys(needed):
        if not isinstance(metrics.get(name), int | float):
            return f"without {name}"
    return ""


def _mapped(
    settings: Mapping[str, Value], space: Space, defaults: Mapping[str, Value]
) -> dict[str, Value] | str:
    """Return the point of the space that a trial's settings are, or why they are none."""
    point: dict[str, Value] = {}
    for name, domain in space.items():
        if active(domain, point):
            value = as_drawn(settings.get(name, defaults[name]), defaults[name])
            if not domain.contains(value):
                default = "" if name in settings else "the default of "
                return f"{default}{name} outside {domain.text()}"
            point[name] = value
    for name, value in settings.items():
        if name not in defaults:
            return f"unknown parameter {name}; --rename {name}=NEW if it has another name now"
        if name not in space and as_drawn(value, defaults[name]) != defaults[name]:
            return f"{name} is not searched here and stays at {spell(defaults[name])}"
    return point


def seed(
    study: Study, run: RunDir, config: SweepConfig, space: Space, say: Callable[[str], None]
) -> None:
    """Tell a study of other runs' trials, and queue where to start; a kill repeats it."""
    earlier = read_warm_start(run)
    study.observe([Observation(**trial) for trial in earlier["trials"]])
    for line in earlier["report"]:
        say(line)
    defaults = registry.defaults(config.method)
    for point in config.points:
        study.propose(completed(space, defaults, point))
    study.propose(first_point(space, defaults))
