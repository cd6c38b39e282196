"""The one door to Ray here: a Learner as a Tune Trainable, with its checkpoints and its failures.

A tune step is a chunk of meta-iterations: up to the next report (``Chunks.reports`` of them, evenly
spread; the scheduler decides there) or until ``Chunks.report_s`` have passed. The last step calls
``finish``. Nothing of the result depends on the clock. A trial that fails returns why instead of
raising, so that its actor lives on for the next one.

A checkpoint is ``state.pt`` with ``digest.json`` beside it, or, at the end, ``student/``. It is
believed only if every digest is right and it belongs to the same configuration, data and settings.
"""

from __future__ import annotations

import json
import math
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ray import tune
from ray.tune.result import DONE, SHOULD_CHECKPOINT
from typing_extensions import override

from trainables._core import memory
from trainables._core.again import Again
from trainables._core.digests import CheckpointError, check_digest, write_digest
from trainables._core.lease import node
from trainables._core.parallel import out_of_memory
from trainables._core.scores import ScoresError
from trainables._core.student import StudentError
from trainables._learner import DivergedError, parse_config
from trainables._trial import at_hand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trainables._learner import ImageData, Learner, Outcome, Value
    from trainables._trial import DataHandle, Depot, TrialSettings

STATE, STUDENT = "state.pt", "student"


class TimeLimitError(RuntimeError):
    """A trial has used up the time it may take."""

    kind = "time limit"


class LearnerTrainable(tune.Trainable):
    """One trial; the actor is reused for the next, and keeps the data open.

    The configuration Tune hands over is ``{"id", "config", "restore", "further", "trained"}``: the
    trial's number, its dotted parameters, checkpoints to start from, newest first (an absolute path
    is of this node, another one of the depot), configurations that differ in adaptation alone, and
    directories of trials that trained the same model; and ``"halvings"`` where a process of this
    trial ran out of memory: it goes on with half as many tasks at a time.
    """

    _learner: Learner | None
    _outcome: Outcome | None
    _training: str
    _state: dict[str, Any] | None
    _last: dict[str, Any]  # what was reported at the last validation
    _before: dict[str, Any]  # the same after a restart: nobody may have noted it

    @override
    def setup(
        self,
        config: dict[str, Any],
        settings: TrialSettings | None = None,
        data: DataHandle | None = None,
        depot: Depot | None = None,
    ) -> None:
        """Keep what all trials share; everything that may fail waits for the first step."""
        if settings is None or data is None:
            raise TypeError("LearnerTrainable needs settings and data; use tune.with_parameters.")
        self._settings, self._handle, self._depot = settings, data, depot
        self._opened: ImageData | None = None
        self._begin(config)

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in this actor."""
        self._begin(new_config)
        return True

    @override
    def step(self) -> dict[str, Any]:
        """Advance by one chunk; a failure is a result with its kind and reason."""
        began, waited = time.perf_counter(), node().waited_s
        try:
            self._check_time()
            result = self._finish() if self._trained else self._advance(began)
        except Exception as error:  # noqa: BLE001 - reported as the trial's failure
            self._release()  # its memory is free for the next trial
            result = {"failure": failure_of(error, self._iteration_done), DONE: True}
        self._cost_s += time.perf_counter() - began
        self._lease_s += node().waited_s - waited
        identity = {"iteration": self._iteration_done, "cost_s": self._cost_s}
        identity["lease_s"] = self._lease_s
        told = {**self._cheap, **result, **identity}
        if "accuracy" in result and self._outcome is None:
            self._last = {name: v for name, v in told.items() if name != SHOULD_CHECKPOINT}
        if self._before:
            told, self._before = {**told, "before": self._before}, {}
        return {**told, "notes": list(self._notes)}

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the learner's state, or the finished student, with digests."""
        folder = Path(checkpoint_dir)
        if self._outcome is not None:
            (folder / STUDENT).mkdir()
            self._outcome.student.save(folder / STUDENT)
            if self._outcome.scores is not None:
                self._outcome.scores.save(folder, self._training)
        elif self._learner is not None:
            state = {
                "learner": self._learner.state_dict(),
                "iteration": self._iteration_done,
                "cost_s": self._cost_s,
                "lease_s": self._lease_s,
                "sums": dict(self._sums),
                "summed": self._summed,
                "last": self._last,
            }
            torch.save(state, folder / STATE)
        write_digest(folder, self._identity)
        self._saved_at = time.perf_counter()

    @override
    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Go on from a checkpoint after the actor died, or, if it is torn, from one before."""
        self._restore_from(self._from(Path(checkpoint)))

    def _from(self, newest: Path) -> Iterator[str]:
        """A checkpoint and those before it; looked for once the newer ones are torn."""
        yield str(newest)
        beside = [p for p in newest.parent.glob("checkpoint_[0-9]*") if p.name < newest.name]
        yield from map(str, sorted(beside, reverse=True))
        if self._depot is not None:
            yield from self._depot.newest(self._number)
        yield from self._given

    @property
    def _trained(self) -> bool:
        return self._iteration_done >= self._settings.run.iterations

    def _begin(self, config: dict[str, Any]) -> None:
        self._config: dict[str, Value] = config["config"]
        self._number = int(config["id"])
        self._identity = self._settings.identity(self._config, self._handle.fingerprint)
        self._learner, self._outcome, self._state = None, None, None
        self._iteration_done, self._cost_s, self._lease_s = 0, 0.0, 0.0
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._last, self._before = {}, {}
        self._cheap: dict[str, float] = {}
        self._notes: list[str] = []
        self._run = replace(self._settings.run, halvings=int(config.get("halvings", 0)))
        if self._run.halvings:
            share = f"1/{2**self._run.halvings} of the tasks at a time"
            self._notes.append(f"ran out of memory; went on with {share}")
        self._saved_at = time.perf_counter()
        self._further: list[dict[str, Value]] = config.get("further") or []
        self._again: Again | None = None
        self._training = self._settings.training(self._config, self._handle.fingerprint)
        self._given: list[str] = config.get("restore") or []
        if not self._known(config.get("trained") or []):
            self._restore_from(self._given)

    def _known(self, folders: Sequence[str]) -> bool:
        """Look for the same training; what is found is adapted differently, and not trained."""
        for place in folders:
            with at_hand(self._depot, place) as folder:
                try:
                    self._again = Again.load(folder, self._training)
                except (StudentError, ScoresError) as error:
                    said = str(error).replace(str(folder), place).rstrip(".")
                    self._notes.append(f"{said}; it is trained again.")
                    continue
            self._iteration_done = self._settings.run.iterations
            self._notes.append(f"not trained: the model of trial {folder.name}, adapted anew")
            return True
        return False

    def _restore_from(self, places: Iterable[str]) -> None:
        place = ""
        for place in places:
            try:
                state = self._read(place)
            except CheckpointError as error:
                self._notes.append(str(error))
                continue
            self._state = state
            self._iteration_done, self._cost_s = int(state["iteration"]), float(state["cost_s"])
            self._lease_s = float(state.get("lease_s", 0.0))
            self._sums, self._summed = dict(state["sums"]), int(state["summed"])
            self._last = self._before = dict(state.get("last", {}))
            self._notes.append(f"went on from meta-iteration {self._iteration_done}")
            return
        if place:
            self._notes.append("no usable checkpoint; started from meta-iteration 0")

    def _read(self, place: str) -> dict[str, Any]:
        with at_hand(self._depot, place) as folder:
            try:
                return read_state(folder, self._identity)
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(str(folder), place)) from error

    def _release(self) -> None:
        self._learner = None

    def _ready(self) -> Learner:
        if self._learner is None:
            torch.set_num_threads(self._settings.threads)
            data, settings = self._data(), self._settings
            self._cheap = settings.learner.cheap(
                self._config, channels=data.channels, size=data.size, ways=settings.shape.ways
            )
            learner = settings.learner(self._config, data, settings.shape, self._run)
            if self._state is not None:
                learner.load_state_dict(self._state["learner"])
                self._state = None
            self._learner = learner
        return self._learner

    def _data(self) -> ImageData:
        if self._opened is None:
            self._opened = self._handle.open()
        return self._opened

    def _check_time(self) -> None:
        limit = self._settings.limit_s
        used = self._cost_s - self._lease_s  # waiting for others is not this trial's fault
        if limit is not None and used > limit:
            raise TimeLimitError(
                f"{used:.0f} s at meta-iteration {self._iteration_done} of "
                f"{self._settings.run.iterations}, of the {limit:.0f} s that a trial may take "
                "(budget.trial_hours)"
            )

    def _advance(self, began: float) -> dict[str, Any]:
        learner = self._ready()
        first, start = self._iteration_done, time.perf_counter()
        goal = self._settings.chunks.boundary(first, self._settings.run.iterations)
        while self._iteration_done < goal:
            self._count(learner.step())
            if time.perf_counter() - began > self._settings.chunks.report_s:
                break
        seconds = time.perf_counter() - start
        report: dict[str, Any] = {k: v / self._summed for k, v in self._sums.items()}
        report["iterations_per_s"] = (self._iteration_done - first) / max(seconds, 1e-9)
        if "tasks" in report:  # of one meta-iteration, where the method says so
            report["tasks_per_s"] = report.pop("tasks") * report["iterations_per_s"]
        if (held := memory.held_mib(self._run.device)) is not None:
            report["process_mib"] = held
        if self._iteration_done == goal:
            report |= learner.validate()
            self._sums, self._summed = {}, 0
        due = time.perf_counter() - self._saved_at >= self._settings.chunks.checkpoint_s
        return {**report, SHOULD_CHECKPOINT: due}

    def _count(self, metrics: Mapping[str, float]) -> None:
        self._iteration_done += 1
        self._summed += 1
        for name, value in metrics.items():
            if name == "loss" and not math.isfinite(value):
                raise DivergedError(
                    f"the loss became {value} at meta-iteration {self._iteration_done} "
                    f"of {self._settings.run.iterations}"
                )
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _finish(self) -> dict[str, Any]:
        if self._again is not None:
            self._outcome = self._answered(self._again)
        else:
            further = (self._further,) if self._further else ()
            self._outcome = self._ready().finish(*further)
        self._release()
        # strings: loggers leave them alone
        table, more = json.dumps(self._outcome.table), json.dumps(self._more(self._outcome))
        end = {"finished": True, "table": table, DONE: True, SHOULD_CHECKPOINT: True}
        answers = json.dumps(self._outcome.tasks)
        return {**self._outcome.metrics, **end, "further": more, "answers": answers}

    def _answered(self, again: Again) -> Outcome:
        """The stored model under this trial's setting, from its table as far as that goes."""
        torch.set_num_threads(self._settings.threads)
        settings, data = self._settings, self._data()
        self._cheap = settings.learner.cheap(
            self._config, channels=data.channels, size=data.size, ways=settings.shape.ways
        )
        asked = [parse_config(settings.learner, one) for one in (self._config, *self._further)]
        run = settings.run
        return again.answer(
            asked, data, settings.shape, seed=run.seed, tasks=run.validation_tasks,
            device=run.device,
        )  # fmt: skip

    def _more(self, outcome: Outcome) -> list[dict[str, Any]]:
        """Further observations as plain data; what they took is theirs, not this trial's."""
        self._cost_s -= sum(one.cost_s for one in outcome.further)
        return [
            {
                "config": self._further[one.number],
                "metrics": one.metrics,
                "table": one.table,
                "spec": one.spec.model_dump(mode="json"),
                "cost_s": one.cost_s,
                "answers": one.tasks,
            }
            for one in outcome.further
        ]


def failure_of(error: BaseException, iteration: int) -> dict[str, Any]:
    """Say what kind of failure an exception is, in one line, with the traceback beside it."""
    kind = getattr(error, "kind", "")  # errors of ours say themselves what they are
    name = "" if kind else type(error).__name__
    if isinstance(error, MemoryError) or out_of_memory(error):
        kind = "out of memory"
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    reason = ": ".join(part for part in (name, first) if part)
    trace = "".join(traceback.format_exception(error))
    return {"kind": kind or "error", "reason": reason, "iteration": iteration, "traceback": trace}


def read_state(folder: Path, identity: str) -> dict[str, Any]:
    """Read a learner's state.

    Raises:
        CheckpointError: It is missing, torn, unreadable, or another configuration's.
    """
    check_digest(folder, identity)
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"The checkpoint {folder} cannot be read: {type(error).__name__} in {STATE}."
        ) from error
    return state
