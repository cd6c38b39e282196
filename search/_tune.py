"""Ray Tune's side of a sweep: who asks the study, who stops the sweep, and the Tuner itself.

Tune runs and recovers the trials; the study is their record. So Tune's searcher only asks, a
callback passes on what happens to the recorder, and nothing of Tune's own state is ever read back.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ray import tune
from ray.tune import Callback
from ray.tune.result import AUTO_RESULT_KEYS, DONE, SHOULD_CHECKPOINT, TRIAL_ID
from ray.tune.search import Searcher
from typing_extensions import override

from search._asha import asha
from search._schedulers import ParetoHalving
from search.errors import OUT_OF_MEMORY, FailedError
from search.remote import RAY, away_in
from search.rundir import FINISHED, tune_name
from search.storage import StorageError, trouble_in
from trainables._ray import LearnerTrainable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray.tune.experiment import Trial
    from ray.tune.schedulers import TrialScheduler

    from search._cluster import SharedData
    from search._limits import Limits
    from search.config import SweepConfig
    from search.recorder import Recorder
    from search.refusal import Gate
    from search.remote import Remote
    from spaces._domains import Value
    from trainables._trial import TrialSettings

RESTARTS = 2  # of a trial whose process dies; nodes that are lost do not count; our default
LOSSES = 20  # of nodes that one trial may survive; further ones count as deaths: our default
NODE_LOST = "node lost"
_SIGNS = {
    OUT_OF_MEMORY: ("outofmemory", "memory running low"),
    # a process on a node that has just died is unavailable first, as long as Ray takes to notice
    NODE_LOST: (
        "node died",
        "node has died",
        "nodediederror",
        "marked dead",
        "node failure",
        "is unavailable",
    ),
}
_TUNES_OWN = {*AUTO_RESULT_KEYS, TRIAL_ID, DONE, SHOULD_CHECKPOINT}


class StudySearcher(Searcher):
    """Asks the study for trials; those left running by an earlier session come first.

    Args:
        recorder: The run's; stays with the driver when this object is pickled.
        left: Trials to hand out again.
        over: Says why no more trials are to be started; empty while they are.
        beside: What goes with a configuration: further settings, and where its model lies trained.
        gate: Says which configurations are refused before they cost anything; None: none are.
        trials: How many to hand out. The searcher counts them, and not Tune, since a trial may have
            to be handed out a second time.
    """

    def __init__(
        self,
        recorder: Recorder,
        left: list[int],
        over: Callable[[], str],
        beside: Callable[[dict[str, Value]], dict[str, Any]] = lambda _: {},
        gate: Gate | None = None,
        trials: float = math.inf,
    ) -> None:
        super().__init__()
        self._trials, self._handed = trials, set[int]()
        self._open: set[str] = set()  # Tune's names of those that it is not done with
        self._halvings: dict[int, int] = {}
        self._beside, self._gate = beside, gate
        self._recorder: Recorder | None = recorder
        self._over: Callable[[], str] | None = over
        self._left = deque(left)
        self.numbers: dict[str, int] = {}

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # as documented
        """Hand out a trial: its number, its configuration and what it can go on from."""
        if self._recorder is None or self._over is None:
            raise RuntimeError("This searcher was copied away from its driver and cannot ask.")
        if not self._left and len(self._handed) >= self._trials:
            return None if self._open else str(Searcher.FINISHED)  # one of them may come again
        while not (self._over() or (self._gate is not None and self._gate.nothing_left())):
            study = self._recorder.study
            suggestion = study.ask_again(self._left.popleft()) if self._left else study.ask()
            if self._gate is not None and suggestion.number not in self._recorder.records:
                reason, known = self._gate.refuses(suggestion.config)
                if reason:
                    self._recorder.refuse(suggestion, known, reason)
                    continue
            restore = self._recorder.start(suggestion)
            self.numbers[trial_id] = suggestion.number
            self._open.add(trial_id)
            self._handed.add(suggestion.number)
            handed = {"id": suggestion.number, "config": suggestion.config, "restore": restore}
            if halvings := self._halvings.get(suggestion.number):
                handed["halvings"] = halvings
            return {**handed, **self._beside(suggestion.config)}
        return str(Searcher.FINISHED)

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that Tune is done with it; the callback records, since it sees checkpoints too."""
        self._open.discard(trial_id)

    def again(self, number: int, halvings: int) -> None:
        """Hand out a trial again that Tune gave up, with as many tasks at a time as it had."""
        self._left.append(number)
        self._halvings[number] = halvings

    @override
    def save(self, checkpoint_path: str) -> None:
        """Write which Tune trial is which trial of the study, for people who look."""
        Path(checkpoint_path).write_text(json.dumps(self.numbers), encoding="utf-8")

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Read what ``save`` wrote."""
        self.numbers = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Without the driver's own objects."""
        own = ("_recorder", "_over", "_beside", "_gate")
        return {**self.__dict__, **dict.fromkeys(own)}


class Reporter(Callback):
    """Passes on to the recorder what Tune's trials do; an error there ends the sweep loudly.

    Args:
        recorder: The run's.
        ticks: Called at every turn of Tune's loop, such as to refresh a display.
        limits: What ends the sweep, Ctrl-C among it.
        again: Has a trial handed out again; its number and its halvings.
    """

    def __init__(
        self,
        recorder: Recorder,
        ticks: Sequence[Callable[[], object]],
        limits: Limits,
        again: Callable[[int, int], None],
    ) -> None:
        self.recorder, self._ticks, self._limits, self._again = recorder, ticks, limits, again
        self._broken: Exception | None = None
        self._losses: Counter[int] = Counter()
        self._unbegun: Counter[int] = Counter()  # deaths before the trial had begun

    @override
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on a report, without what Tune added."""
        row = {key: value for key, value in result.items() if key not in _TUNES_OWN}
        self._guarded(self.recorder.report, trial.config["id"], row)
        if self._limits.interrupted() and not row.get("failure"):
            result[SHOULD_CHECKPOINT] = True  # Tune looks after this

    @override
    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint,
        **info: Any,
    ) -> None:  # fmt: skip
        """Pass on where a checkpoint lies, once it is all there."""
        self._guarded(self.recorder.checkpoint, trial.config["id"], checkpoint.path)

    @override
    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record a trial that ended or was stopped; one that never reported stays as it is.

        So does one that Ctrl-C stopped: it goes on when the run is resumed.
        """
        number = trial.config["id"]
        if trial.last_result.get("iteration") is None:
            return
        if not self._limits.interrupted() or self.recorder.at_end(number):
            self._guarded(self.recorder.finish, number)

    @override
    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Have a trial whose process ran out of memory go on with fewer tasks at a time.

        That a node is lost, or cannot be reached, is not held against it.
        """
        text = last_failure(trial)
        if not self._of_storage(text) and not self._counts(trial, text):
            trial.run_metadata.num_failures -= 1

    @override
    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Record a trial whose process died too often, or whose result could not be recorded.

        One that may still be started again was given up too early: where a process that is used
        again dies before the trial has begun in it, Tune ends the trial. It is handed out again.
        """
        number, text = trial.config["id"], last_failure(trial)
        if self._of_storage(text) or self.recorder.records[number].state in FINISHED:
            return
        may = trial.should_recover()  # type: ignore[no-untyped-call]
        if may and self._unbegun[number] < RESTARTS:
            self._unbegun[number] += self._counts(trial, text)
            self._again(number, trial.config.get("halvings", 0))
            return
        self._guarded(self.recorder.lose, number, *died(text))

    @override
    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Raise what Tune would have logged and forgotten."""
        if self._broken is not None:
            raise self._broken
        self._limits.look({trial.trial_id for trial in trials if trial.status == "RUNNING"})
        for tick in self._ticks:
            tick()

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Nothing travels: Tune pickles it, nobody reads it back."""
        return {}

    def _guarded(self, record: Callable[..., None], *what: object) -> None:
        """Record, and keep what breaks for the end of the step: Tune would blame the trial."""
        if self._broken is not None:
            return
        try:
            record(*what)
        except Exception as error:  # noqa: BLE001 - raised by on_step_end
            self._broken = error

    def _counts(self, trial: Trial, text: str) -> bool:
        """Tell whether a death is held against the trial; after one for lack of memory, halve."""
        number, (kind, _) = trial.config["id"], died(text)
        if kind == OUT_OF_MEMORY:
            trial.config["halvings"] = trial.config.get("halvings", 0) + 1
        if kind != NODE_LOST or self._losses[number] >= LOSSES:
            return True
        self._losses[number] += 1
        return False

    def _of_storage(self, text: str) -> bool:
        """Tell whether a trial fell with the storage, which ends the sweep and not the trial."""
        if self._broken is None and (sentence := away_in(text)):
            self._broken = FailedError(sentence)
        if self._broken is None and (what := trouble_in(text)):
            self._broken = StorageError(self.recorder.run.path, what)
        return self._broken is not None


def died(text: str) -> tuple[str, str]:
    """Return kind and reason of a process that died, from Ray's words.

    Example:
        >>> died("ray.exceptions.OutOfMemoryError: Task was killed")[0]
        'out of memory'
        >>> died("The actor died unexpectedly before finishing this task.")[0]
        'process died'
    """
    lowered = text.lower()
    kind = next(
        (kind for kind, words in _SIGNS.items() if any(word in lowered for word in words)),
        "process died",
    )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = next((line for line in lines if "died" in line or "Error" in line), "")
    return kind, reason[:300] or "its process ended without a word"


@dataclass(frozen=True)
class Steering:
    """The three that Tune asks and tells."""

    searcher: StudySearcher
    reporter: Reporter
    limits: Limits


def run_trials(
    config: SweepConfig, trainable: type[tune.Trainable], steering: Steering,
    *, slots: int, session: Path,
) -> None:  # fmt: skip
    """Run trials until the searcher has no more, a limit is met or Ctrl-C is pressed.

    Args:
        config: The sweep.
        trainable: From ``trainable_of``.
        steering: Who asks for trials, records them and ends the sweep early.
        slots: How many at a time. Without this limit Tune asks for one trial ahead of need, and
            starts the first actors one after the other.
        session: Tune's directory for this session.
    """
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    remote = steering.reporter.recorder.checkpoints.target  # what is old there the mirror deletes
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=steering.searcher,
            scheduler=_scheduler(config, steering.reporter),
            num_samples=-1,  # the searcher counts
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=session.name,
            storage_path=str(session.parent) if remote is None else RAY,
            storage_filesystem=remote and remote.filesystem(),
            stop=steering.limits,
            callbacks=[steering.reporter],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=None if remote else 2, checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    tuner.fit()


def trainable_of(
    config: SweepConfig, settings: TrialSettings, data: SharedData, remote: Remote | None = None
) -> type[tune.Trainable]:
    """Return what Tune runs: the adapter with what its trials share, and what each one holds."""
    held = {"cpu": config.resources.cpu, "gpu": config.resources.gpu}
    ready = tune.with_parameters(LearnerTrainable, settings=settings, data=data, depot=remote)
    wanted = {key: value for key, value in held.items() if value}
    return cast("type[tune.Trainable]", tune.with_resources(ready, wanted))


def _scheduler(config: SweepConfig, reporter: Reporter) -> TrialScheduler | None:
    early = config.early_stopping
    if not early.enabled:
        return None
    if early.by == "asha":
        return asha(config, reporter.recorder.of_state("COMPLETE", "PRUNED"))
    scheduler = ParetoHalving(
        config.budget.iterations,
        config.objectives,
        constraints=config.constraints,
        grace=early.grace,
        reduction=early.reduction,
        tolerance=early.tolerance,
    )
    for record in reporter.recorder.of_state(*FINISHED, "RUNNING"):
        scheduler.remember(str(record.id), record.reports)
    return scheduler


def _trial_name(trial: Trial) -> str:
    return f"{tune_name(trial.config['id'])}-{trial.trial_id[-5:]}"


def last_failure(trial: Trial) -> str:
    """Return what Tune wrote of a trial's last failure; its file has those before it too."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    except OSError:
        return ""
    return text.rpartition("Failure # ")[2]
