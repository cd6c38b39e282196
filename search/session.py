"""One driver at work on a run: from the study and the trials that are left to the scored front.

Imported only once Ray is up: torch, Tune, TensorBoard and matplotlib load while Ray's own processes
are still starting.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import torch

from search import _cluster, _tune, registry
from search._limits import Limits
from search._optuna import Study, study_name
from search._tensorboard import BoardWriter
from search.adaptations import further_settings
from search.databases import JOURNAL
from search.disk import Disk
from search.errors import FailedError, UserError
from search.feed import feeds
from search.figures import front_png
from search.fresh import fresh_score
from search.further import FurtherTrials
from search.gallery import FRONT, Gallery, chosen
from search.interrupts import Interrupt
from search.plateau import Plateau
from search.preflight import check_nodes
from search.progress import Progress, counted, duration
from search.recorder import Observer, Recorder
from search.refusal import Gate
from search.remote import Remote
from search.results import box_of, load_results
from search.rundir import FINISHED, IN_BUCKET, REFUSED, RunDir, now
from search.sizes import read_size
from search.warm import seed
from trainables._core.student import Student
from trainables._learner import RunSettings, TaskShape, score_on_test_classes
from trainables._trial import Chunks, TrialSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.config import SweepConfig
    from spaces._domains import Value
    from trainables._data import Dataset

STARTUP_SHARE, LEAST_STARTUP, MOST_STARTUP = 4, 4, 10  # random trials: a quarter; our default


class SweepFailedError(FailedError):
    """The sweep ended because nothing but the same failure came of it."""


class Session:
    """One driver at work on a run."""

    def __init__(self, run: RunDir, config: SweepConfig, dataset: Dataset, *, began: float) -> None:
        self.run, self.config, self.dataset = run, config, dataset
        self.began, self.info = began, run.info()
        self.total = int(self.info["trials"])
        self.sessions: list[dict[str, Any]] = list(self.info["sessions"])
        self.used_s = sum(self._seconds(session) for session in self.sessions)
        self.space = config.resolved_space()
        fresh = self._name_study()
        self.shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
        self.study = Study(
            run.journal, self.info["study"], self.space, config.objectives, config.constraints,
            seed=config.seed,
            storage=config.study, fresh=fresh,
            startup=min(MOST_STARTUP, max(LEAST_STARTUP, config.budget.trials // STARTUP_SHARE)),
        )  # fmt: skip
        self.progress = Progress(
            self.total, config.budget.iterations, config.objectives, config.constraints
        )
        self.left: list[int] = []
        self.ran = False
        self.interrupt = Interrupt(self.progress.say)
        self.board = BoardWriter(run.tensorboard, self.space, list(config.objectives))
        self.recorder = self._recorder()
        room = read_size(self.info.get("max_disk") or config.max_disk or "")
        self.disk = Disk(self.recorder, config, room)

    def _recorder(self) -> Recorder:
        """Make the recorder, with all who watch; they know the trials of earlier sessions."""
        config, resources = self.config, self.config.resources
        held, remote = (resources.cpu, resources.gpu), Remote.of(self.run)
        recorder = Recorder(self.run, self.study, held=held, remote=remote)
        ended = sorted(recorder.of_state(*FINISHED), key=lambda r: (r.ended, r.id))
        self.gate = Gate(self._cheap, config.objectives, config.constraints, ended)
        self.gallery = Gallery(self.board, recorder, config)
        self.feeds = feeds(self.run, config.loggers, self.progress.say)
        watchers: tuple[Observer, ...] = (self.progress, self.gallery, self.board, self.gate)
        watchers = (*watchers, *self.feeds)
        self.plateau: Plateau | None = None
        if rule := config.budget.plateau:
            box = self.info.get("hypervolume_box")
            self.plateau = Plateau(
                rule.trials, rule.gain, config.objectives, config.constraints, box, ended
            )
            watchers += (self.plateau,)
        self.further = FurtherTrials(recorder, watchers)
        recorder.observers = (*watchers, self.further)
        return recorder

    def _cheap(self, settings: Mapping[str, Value]) -> dict[str, float]:
        """Return what is known of a configuration before training."""
        data, ways = self.dataset, self.config.data.ways
        learner = registry.learner(self.config.method)
        return learner.cheap(settings, channels=data.channels, size=data.size, ways=ways)

    def __enter__(self) -> Self:
        """Bring study and files together, and propose where to start."""
        if self.study.mended:
            self.progress.say(self.study.mended)
        self.left = self.recorder.reconcile()
        for feed in self.feeds:
            feed.catch_up(self.recorder.of_state(*FINISHED))
        self.further.reconcile()
        if not self.study.begun():
            seed(self.study, self.run, self.config, self.space, self.progress.say)
            self.board.text("sweep", f"```yaml\n{self.run.sweep_file.read_text('utf-8')}```")
            rows = [f"| {k} | {v} |" for k, v in self.info["versions"].items()]
            self.board.text("versions", "\n".join(["| what | version |", "|---|---|", *rows]))
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()
        try:
            self.board.close()
            for feed in self.feeds:
                feed.close()
        finally:
            self.study.close()

    @property
    def missing(self) -> int:
        """Trials the run still lacks."""
        return self.total - sum(r.of is None for r in self.recorder.of_state(*FINISHED))

    def run_trials(self) -> None:
        """Run what is missing on the Ray that is connected.

        Raises:
            UserError: A trial fits no node, or the wall-clock budget is used up.
            SweepFailedError: The first trials all failed in the same way.
            DiskLimitError: The run takes more room than it may; it can be resumed.
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the run can be resumed.
        """
        resources = self.config.resources
        nodes = check_nodes(self.run.path, self.info.get("bucket") or "", scales=resources.scales)
        for finding in nodes.looks:
            self.progress.say(f"{finding.said} {finding.remedy}")
        self.recorder.checkpoints.afar = nodes.afar
        if not resources.scales:  # on those that are left
            _cluster.check_room(resources.cpu, resources.gpu)
        slots = _cluster.slots(
            resources.cpu, resources.gpu, resources.concurrent, scales=resources.scales
        )
        budget = self.config.budget
        limits = Limits(
            self.recorder,
            hours=self._hours_left(),
            cpu_hours=budget.cpu_hours,
            gpu_hours=budget.gpu_hours,
            plateau=self.plateau.stands_still if self.plateau is not None else str,
            interrupted=lambda: self.interrupt.asked() or bool(self.disk.full),
        )
        self.ran = True
        self.sessions.append({"started": now(), "process": os.getpid(), IN_BUCKET: nodes.afar})
        self.run.write_info(sessions=self.sessions)
        shared = _cluster.SharedData.of(self.config.data, self.dataset.fingerprint)
        data = shared.for_all_nodes(self.dataset, scales=resources.scales)
        ticks = (self.progress.tick, self.interrupt.tick, self.disk.tick)
        searcher = _tune.StudySearcher(
            self.recorder, self.left, limits.no_more, self.beside, self.gate, self.missing
        )
        with _cluster.MemoryWatch() as memory, self.interrupt:
            self.progress.open(self.run.path, slots, self.recorder.of_state(*FINISHED))
            _tune.run_trials(
                self.config,
                _tune.trainable_of(
                    self.config, self._settings(), data, self.recorder.checkpoints.remote
                ),
                _tune.Steering(
                    searcher, _tune.Reporter(self.recorder, ticks, limits, searcher.again), limits
                ),
                slots=slots,
                session=self.run.ray / f"session-{len(self.sessions)}",
            )
        self.progress.close()
        self._close(memory.peak_mib, limits)
        shutil.rmtree(self.run.ray, ignore_errors=True)  # Tune's own state, which nobody reads

    def beside(self, config: dict[str, Value]) -> dict[str, Any]:
        """What goes with a configuration: where its model lies trained, else further settings."""
        if same := self.further.trained(config):
            return {"trained": self.recorder.checkpoints.lent(same)}
        count = self.config.evaluation.settings
        return {"further": further_settings(config, self.space, count, self.config.seed)}

    def _close(self, peak_mib: float | None, limits: Limits) -> None:
        """Settle what the session left, and say why it ended."""
        stopped = limits.settle(self.missing)
        if self.missing and not limits.why and (nothing := self.gate.nothing_left()):
            limits.why, limits.hopeless = nothing, not self.recorder.of_state("COMPLETE")
        ended = limits.why or ("interrupted" if self.missing else "done")
        self.sessions[-1] |= {
            "ended": now(),
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
            self.progress.say(f"Stopped: {limits.why}; {stopped}.")
        elif self.missing:
            self.disk.check()
            self.progress.say(f"Interrupted; `fewtune resume {self.run.path}` goes on.")
            raise KeyboardInterrupt

    def _first_trial_s(self) -> float | None:
        since = self.progress.first_trial_s
        return None if since is None else round(since + self.progress.began - self.began, 1)

    def _hours_left(self) -> float | None:
        hours = self.config.budget.hours
        if hours is None:
            return None
        used = self.used_s + time.monotonic() - self.began
        if self.sessions and used >= hours * 3600:
            raise UserError(
                f"The wall-clock budget of {hours:g} h (budget.hours) is used up: "
                f"{duration(used)} so far. Raise it in {self.run.sweep_file} to go on."
            )
        return hours - used / 3600

    def _seconds(self, session: dict[str, Any]) -> float:
        """What a session took; one that was killed ends with its last word in a file."""
        if "seconds" in session:
            return float(session["seconds"])
        started = datetime.fromisoformat(session["started"]).timestamp()
        return max(0.0, self.run.last_word() - started)

    def _name_study(self) -> bool:
        """Name a new run's study by its content, and tell whether it is new."""
        if "study" in self.info:
            return False
        contents = [self.info["data"]["fingerprint"], *self.info["checkpoints"].values()]
        if self.config.study != JOURNAL:  # others write there too, some of them the same sweep
            contents += [str(self.run.path), platform.node(), str(self.info["created"])]
        name = study_name(self.info["name"], self.space, self.config.objectives, contents)
        self.info = self.run.write_info(study=name)
        return True

    def _settings(self) -> TrialSettings:
        evaluation, threads = self.config.evaluation, max(1, int(self.config.resources.cpu))
        limit = self.config.budget.trial_hours
        return TrialSettings(
            registry.learner(self.config.method),
            self.shape,
            run_settings(self.config),
            threads,
            Chunks(reports=evaluation.reports),
            None if limit is None else limit * 3600,
        )

    def conclude(self) -> None:
        """Score the front on test classes, once for each trial, and draw it."""
        self.gallery.catch_up()
        results = load_results(self.run.path)
        front = results.front()
        tasks = self.config.evaluation.test_tasks
        fresh = [t["id"] for t in front if t["metrics"].get("test_accuracy") is None]
        if tasks and fresh:
            began = time.monotonic()
            torch.set_num_threads(max(1, int(self.config.resources.cpu)))
            for number in fresh:
                self.recorder.amend(number, self._test(number, tasks))
            took, many = duration(time.monotonic() - began), counted(len(fresh), "trial")
            self.progress.say(f"Scored {many} of the front on test classes ({took}).")
        chosen_now = [t["id"] for t in front if t["metrics"].get("fresh_accuracy") is None]
        for number in chosen_now:
            self.recorder.amend(number, self._again(number))
        self.gallery.conclude(chosen_now, self.dataset)
        box = results.info.get("hypervolume_box") or box_of(
            [t["metrics"] for t in results.trials if t["state"] == "COMPLETE"],
            self.config.objectives,
        )
        self.run.write_info(hypervolume_box=box)
        results = load_results(self.run.path)
        if front:
            picture = front_png(results)
            (self.run.path / "front.png").write_bytes(picture)
            self.board.picture("front", picture, len(results.trials), FRONT)
            self.board.text("chosen", chosen(results))
        ran = [t for t in results.trials if t["state"] != REFUSED]
        own = sum(t.get("of") is None for t in ran)
        self._summarise(results.hypervolume(), len(front), own, len(ran) - own)

    def _test(self, number: int, tasks: int) -> dict[str, Any]:
        student = Student.load(self.run.trial(number) / "student")
        return dict(
            score_on_test_classes(
                student, self.dataset, self.shape, tasks=tasks, seed=self.config.seed
            )
        )

    def _again(self, number: int) -> dict[str, Any]:
        """Score a trial on fresh tasks: it was chosen by the others."""
        student = Student.load(self.run.trial(number) / "student")
        return fresh_score(self.config, student, self.dataset)

    def _summarise(self, volume: float | None, front: int, trials: int, beside: int) -> None:
        hypervolume = f", hypervolume {volume:.3f}" if volume is not None else ""
        last = self.sessions[-1] if self.ran else {}  # another session's figures are not ours
        memory = f", peak memory {last['peak_mib']} MiB" if last.get("peak_mib") else ""
        first = last.get("first_trial_s")
        after = f", first trial after {first:.0f} s" if first is not None else ""
        took = duration(time.monotonic() - self.began)
        ran = counted(trials, "trial")
        if beside:  # adapted otherwise, they are of the front too, and no line told of them
            ran += f" and {counted(beside, 'further adaptation')} of their models"
        self.progress.say(f"{ran}, {front} on the front{hypervolume}; {took}{after}{memory}.")


def run_settings(config: SweepConfig) -> RunSettings:
    """Return what every trial of a sweep is trained and scored with."""
    return RunSettings(
        iterations=config.budget.iterations,
        seed=config.seed,
        device="cuda" if config.resources.gpu else "cpu",
        validation_tasks=config.evaluation.validation_tasks,
        quick_tasks=config.evaluation.quick_tasks,
    )
