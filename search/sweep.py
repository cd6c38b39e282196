"""A sweep from start to front: run, stop, resume, extend.

Resuming and extending are a new Tuner on the same study. Trials that a dead driver left running are
handed out again first, with the same number and configuration, from their last checkpoint; then
come as many new ones as the budget still lacks. Finished trials are not touched.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from search import _cluster, _tune, registry
from search._optuna import Study, first_point, study_name
from search._tensorboard import BoardWriter
from search.config import SweepConfig, dump_sweep, load_sweep
from search.errors import UserError
from search.figures import front_png
from search.progress import Progress, duration
from search.recorder import Recorder
from search.results import box_of, load_results
from search.rundir import FINISHED, RunDir
from trainables._core.student import Student
from trainables._data import check_shape
from trainables._learner import RunSettings, TaskShape, test_student
from trainables._ray import Chunks, TrialSettings

if TYPE_CHECKING:
    from trainables._data import Dataset

STARTUP_SHARE, LEAST_STARTUP, MOST_STARTUP = 4, 4, 10  # random trials: a quarter; our default
PICTURE = (770, 506)  # pixels of the front's picture at its default dpi


class SweepFailedError(RuntimeError):
    """The sweep ended because nothing but the same failure came of it."""


def run_sweep(
    config: SweepConfig,
    *,
    name: str | None = None,
    storage: str | Path | None = None,
    address: str | None = None,
) -> Path:
    """Run a sweep.

    Args:
        config: What to search.
        name: Of the run; None: the file's, else method, data and time.
        storage: Where run directories are made; None: the file's.
        address: Of a Ray cluster; None: this machine.

    Returns:
        The run directory.

    Raises:
        UserError: The name is taken, or the storage cannot be used.
        DataError: The data is missing, or cannot fill the tasks.
        SweepFailedError: The first trials all failed in the same way.
    """
    began = time.monotonic()
    place = str(storage or config.storage)
    if "://" in place:
        raise UserError(f"Runs are kept in a directory; {place} is an address. Mount it first.")
    name = name or config.name or _default_name(config)
    data, dataset = _load(config)
    run = RunDir.create(Path(place) / name)
    run.sweep_file.write_text(dump_sweep(config), encoding="utf-8")
    objectives = dict(config.objectives)
    run.write_info(
        name=name,
        method=config.method,
        objectives=objectives,
        constraints=[str(c) for c in config.constraints],
        created=_now(),
        versions=versions(),
        data={"fingerprint": dataset.fingerprint, **dataset.report.to_json()},
        study=study_name(name, config.resolved_space(), objectives, dataset.fingerprint),
        trials=config.budget.trials,
        sessions=[],
    )
    with run.driving():
        _Session(run, config, data, dataset, began=began).drive(address)
    return run.path


def resume(run: str | Path, address: str | None = None) -> Path:
    """Go on with a sweep that was stopped or killed; a finished one is left as it is.

    Raises:
        UserError: The path is no run, another process drives it, or its data has changed.
        SweepFailedError: The first trials all failed in the same way.
    """
    return _go_on(RunDir.open(run), 0, address)


def extend(run: str | Path, trials: int, address: str | None = None) -> Path:
    """Add trials to a sweep, finished or not.

    Raises:
        UserError: The path is no run, another process drives it, or its data has changed.
        SweepFailedError: The first trials all failed in the same way.
    """
    if trials < 1:
        raise UserError(f"A sweep is extended by at least 1 trial; found {trials}.")
    return _go_on(RunDir.open(run), trials, address)


def versions() -> dict[str, str]:
    """Return what a result depends on besides its configuration."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in ("fewtune", "torch", "ray", "optuna", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    home = Path(__file__).parent
    if (home.parent / ".git").exists():
        asked = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            commit = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
            found["commit"] = commit.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # no git at hand: the version has to do
    return found


class _Session:
    """One driver at work on a run."""

    def __init__(
        self,
        run: RunDir,
        config: SweepConfig,
        data: _cluster.SharedData,
        dataset: Dataset,
        *,
        began: float,
    ) -> None:
        self.run, self.config, self.data, self.dataset = run, config, data, dataset
        self.began, self.info = began, run.info()
        self.total = int(self.info["trials"])
        self.sessions: list[dict[str, Any]] = list(self.info["sessions"])
        self.space = config.resolved_space()
        self.shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
        self.study = Study(
            run.journal, self.info["study"], self.space, config.objectives, config.constraints,
            seed=config.seed,
            startup=min(MOST_STARTUP, max(LEAST_STARTUP, config.budget.trials // STARTUP_SHARE)),
        )  # fmt: skip
        self.progress = Progress(
            self.total, config.budget.iterations, config.objectives, config.constraints
        )
        self.board = BoardWriter(run.tensorboard, self.space, list(config.objectives))
        self.recorder = Recorder(run, self.study, (self.progress, self.board))

    def drive(self, address: str | None) -> None:
        """Run what is missing, then score the front and draw it."""
        if not self.study.states():
            self.study.propose(first_point(self.space, registry.defaults(self.config.method)))
            self.board.text("sweep", f"```yaml\n{self.run.sweep_file.read_text('utf-8')}```")
            rows = [f"| {k} | {v} |" for k, v in self.info["versions"].items()]
            self.board.text("versions", "\n".join(["| what | version |", "|---|---|", *rows]))
        left = self.recorder.reconcile()
        samples = self.total - len(self.recorder.of_state(*FINISHED))
        try:
            if samples > 0:
                self._run(left, samples, address)
            else:
                self.progress.say(f"All {self.total} trials of {self.run.path} are done.")
            self._conclude()
        finally:
            self.progress.close()
            self.board.close()

    def _run(self, left: list[int], samples: int, address: str | None) -> None:
        number = len(self.sessions) + 1
        limits = _tune.Limits(
            self.recorder,
            gpu=self.config.resources.gpu,
            hours=self._hours_left(),
            gpu_hours=self.config.budget.gpu_hours,
        )
        self.sessions.append({"started": _now(), "process": os.getpid()})
        self.run.write_info(sessions=self.sessions)
        resources = self.config.resources
        with _cluster.MemoryWatch() as memory, _cluster.connected(address):
            _cluster.check_room(resources.cpu, resources.gpu)
            slots = _cluster.slots(resources.cpu, resources.gpu, resources.concurrent)
            self.progress.open(self.run.path, slots, self.recorder.of_state(*FINISHED))
            data = self.data.for_all_nodes(self.dataset)
            _tune.run_trials(
                self.config,
                _tune.trainable_of(self.config, self._settings(), data),
                _tune.Steering(
                    _tune.StudySearcher(self.recorder, left, limits.over),
                    _tune.Reporter(self.recorder, self.progress.tick),
                    limits,
                ),
                samples=samples,
                session=self.run.ray / f"session-{number}",
            )
            self.progress.close()
        self._close_session(memory.peak_mib, limits)
        shutil.rmtree(self.run.ray, ignore_errors=True)  # Tune's own state, which nobody reads

    def _close_session(self, peak_mib: float | None, limits: _tune.Limits) -> None:
        """Settle what the session left, and say why it ended."""
        if limits.why and not limits.hopeless:
            for number in self.recorder.reconcile():
                if number in self.recorder.records:
                    self.recorder.cut(number, limits.why)
        missing = self.total - len(self.recorder.of_state(*FINISHED))
        ended = limits.why or ("interrupted" if missing else "done")
        self.sessions[-1] |= {
            "ended": _now(),
            "why": ended,
            "seconds": round(time.monotonic() - self.began, 1),
            "first_trial_s": self._first_trial_s(),
            "peak_mib": None if peak_mib is None else round(peak_mib),
        }
        self.run.write_info(sessions=self.sessions)
        if limits.hopeless:
            raise SweepFailedError(
                f"{limits.why} The sweep stopped; correct the cause, then `fewtune resume "
                f"{self.run.path}` runs the trials that are missing."
            )
        if limits.why:
            self.progress.say(f"Stopped: {limits.why}; {missing} trials were not run.")
        elif missing:
            self.progress.say(f"Interrupted; `fewtune resume {self.run.path}` goes on.")
            raise KeyboardInterrupt

    def _first_trial_s(self) -> float | None:
        since = self.progress.first_trial_s
        return None if since is None else round(since + self.progress.began - self.began, 1)

    def _hours_left(self) -> float | None:
        hours = self.config.budget.hours
        if hours is None:
            return None
        used = sum(self._seconds(s) for s in self.sessions) + time.monotonic() - self.began
        if self.sessions and used >= hours * 3600:
            raise UserError(
                f"The wall-clock budget of {hours:g} h (budget.hours) is used up: "
                f"{duration(used)} so far. Raise it in {self.run.sweep_file} to go on."
            )
        return hours - used / 3600

    def _seconds(self, session: dict[str, Any]) -> float:
        """What a session took; one that was killed ends with its last word in the journal."""
        if "seconds" in session:
            return float(session["seconds"])
        started = datetime.fromisoformat(session["started"]).timestamp()
        return max(0.0, self.run.journal.stat().st_mtime - started)

    def _settings(self) -> TrialSettings:
        evaluation, threads = self.config.evaluation, max(1, int(self.config.resources.cpu))
        return TrialSettings(
            registry.learner(self.config.method),
            self.shape,
            run_settings(self.config),
            threads,
            Chunks(reports=evaluation.reports),
        )

    def _conclude(self) -> None:
        """Score the front on test classes, once for each trial, and draw it."""
        results = load_results(self.run.path)
        front = results.front()
        tasks = self.config.evaluation.test_tasks
        fresh = [t["id"] for t in front if t["metrics"].get("test_accuracy") is None]
        if tasks and fresh:
            began = time.monotonic()
            torch.set_num_threads(max(1, int(self.config.resources.cpu)))
            for number in fresh:
                self.recorder.amend(number, self._test(number, tasks))
            took = duration(time.monotonic() - began)
            self.progress.say(f"Scored {len(fresh)} trials of the front on test classes ({took}).")
        box = results.info.get("hypervolume_box") or box_of(
            [t["metrics"] for t in results.trials if t["state"] == "COMPLETE"],
            self.config.objectives,
        )
        self.run.write_info(hypervolume_box=box)
        results = load_results(self.run.path)
        if front:
            picture = front_png(results)
            (self.run.path / "front.png").write_bytes(picture)
            self.board.picture("front", picture, len(results.trials), PICTURE)
        self._summarise(results.hypervolume(), len(front), len(results.trials))

    def _test(self, number: int, tasks: int) -> dict[str, Any]:
        student = Student.load(self.run.trial(number) / "student")
        return dict(
            test_student(student, self.dataset, self.shape, tasks=tasks, seed=self.config.seed)
        )

    def _summarise(self, volume: float | None, front: int, trials: int) -> None:
        hypervolume = f", hypervolume {volume:.3f}" if volume is not None else ""
        last = self.sessions[-1] if self.sessions else {}
        memory = f", peak memory {last['peak_mib']} MiB" if last.get("peak_mib") else ""
        first = last.get("first_trial_s")
        after = f", first trial after {first:.0f} s" if first is not None else ""
        took = duration(time.monotonic() - self.began)
        self.progress.say(
            f"{trials} trials, {front} on the front{hypervolume}; {took}{after}{memory}."
        )


def run_settings(config: SweepConfig) -> RunSettings:
    """Return what every trial of a sweep is trained and scored with."""
    return RunSettings(
        iterations=config.budget.iterations,
        seed=config.seed,
        device="cuda" if config.resources.gpu else "cpu",
        validation_tasks=config.evaluation.validation_tasks,
        quick_tasks=config.evaluation.quick_tasks,
        test_tasks=config.evaluation.test_tasks,
    )


def _go_on(run: RunDir, more: int, address: str | None) -> Path:
    began = time.monotonic()
    with run.driving():
        config = load_sweep(run.sweep_file, settings=False)
        data, dataset = _load(config)
        known = run.info()["data"]["fingerprint"]
        if dataset.fingerprint != known:
            raise UserError(
                f"The data of {run.path} has changed: its fingerprint was {known[:12]} and is "
                f"{dataset.fingerprint[:12]}. Results on different data do not compare; restore "
                "the data, or start a new sweep."
            )
        if more:
            run.write_info(trials=int(run.info()["trials"]) + more)
        _Session(run, config, data, dataset, began=began).drive(address)
    return run.path


def _load(config: SweepConfig) -> tuple[_cluster.SharedData, Dataset]:
    data, dataset = _cluster.SharedData.of(config.data)
    check_shape(dataset, config.data.ways, config.data.shots, config.data.queries)
    return data, dataset


def _default_name(config: SweepConfig) -> str:
    now = datetime.now(UTC).astimezone()
    return f"{config.method}-{config.data.source}-{now:%Y%m%d-%H%M%S}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
