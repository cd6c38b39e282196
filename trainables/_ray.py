"""The one door to Ray here: a Learner as a Tune Trainable, with its checkpoints and its failures.

A tune step is a chunk of meta-iterations: up to the next report (``Chunks.reports`` of them, evenly
spread; the scheduler decides there) or until ``Chunks.report_s`` have passed. The last step calls
``finish``. Nothing of the result depends on the clock. A trial that fails returns why instead of
raising, so that its actor lives on for the next one.

A checkpoint is ``state.pt`` with ``digest.json`` beside it, or, at the end, ``student/``. It is
believed only if every digest is right and it belongs to the same configuration, data and settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from ray import tune
from ray.tune.result import DONE, SHOULD_CHECKPOINT
from typing_extensions import override

from trainables._core.parallel import out_of_memory
from trainables._core.student import content_of
from trainables._learner import DivergedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._learner import ImageData, Learner, Outcome, RunSettings, TaskShape, Value

STATE, DIGEST, STUDENT = "state.pt", "digest.json", "student"


class CheckpointError(ValueError):
    """A checkpoint is torn, or belongs to something else; it is named."""


class TimeLimitError(RuntimeError):
    """A trial has used up the time it may take."""

    kind = "time limit"


class DataHandle(Protocol):
    """What opens the data on the node where a trial runs; small enough to travel."""

    @property
    def fingerprint(self) -> str:
        """Digest of the content, part of a checkpoint's identity."""

    def open(self) -> ImageData:
        """Map or fetch the arrays."""


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
    """What all trials of a sweep share.

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

    def identity(self, config: Mapping[str, Value], fingerprint: str) -> str:
        """Digest of all that decides a trial's result; a checkpoint fits only its own.

        The student that ``checkpoint`` names counts by what it is, not only by where it lies.
        """
        learner = f"{self.learner.__module__}.{self.learner.__qualname__}"
        parts = [learner, sorted(config.items()), asdict(self.shape), asdict(self.run), fingerprint]
        if start := config.get("checkpoint"):
            parts.append(content_of(Path(str(start)).expanduser()))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class LearnerTrainable(tune.Trainable):
    """One trial; the actor is reused for the next, and keeps the data open.

    The configuration Tune hands over is ``{"id", "config", "restore"}``: the trial's number, its
    dotted parameters, and checkpoints to start from, newest first; and ``"halvings"`` where a
    process of this trial ran out of memory: it goes on with half as many tasks at a time.
    """

    _learner: Learner | None
    _outcome: Outcome | None
    _state: dict[str, Any] | None

    @override
    def setup(
        self,
        config: dict[str, Any],
        settings: TrialSettings | None = None,
        data: DataHandle | None = None,
    ) -> None:
        """Keep what all trials share; everything that may fail waits for the first step."""
        if settings is None or data is None:
            raise TypeError("LearnerTrainable needs settings and data; use tune.with_parameters.")
        self._settings, self._handle = settings, data
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
        began = time.perf_counter()
        try:
            self._check_time()
            result = self._finish() if self._trained else self._advance(began)
        except Exception as error:  # noqa: BLE001 - reported as the trial's failure
            self._release()  # its memory is free for the next trial
            result = {"failure": failure_of(error, self._iteration_done), DONE: True}
        self._cost_s += time.perf_counter() - began
        identity = {"iteration": self._iteration_done, "cost_s": self._cost_s}
        return {**self._cheap, **result, **identity, "notes": list(self._notes)}

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the learner's state, or the finished student, with digests."""
        folder = Path(checkpoint_dir)
        if self._outcome is not None:
            (folder / STUDENT).mkdir()
            self._outcome.student.save(folder / STUDENT)
        elif self._learner is not None:
            state = {
                "learner": self._learner.state_dict(),
                "iteration": self._iteration_done,
                "cost_s": self._cost_s,
                "sums": dict(self._sums),
                "summed": self._summed,
            }
            torch.save(state, folder / STATE)
        write_digest(folder, self._identity)
        self._saved_at = time.perf_counter()

    @override
    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Go on from a checkpoint after the actor died; a torn one is named and left."""
        self._restore_from([checkpoint])

    @property
    def _trained(self) -> bool:
        return self._iteration_done >= self._settings.run.iterations

    def _begin(self, config: dict[str, Any]) -> None:
        self._config: dict[str, Value] = config["config"]
        self._identity = self._settings.identity(self._config, self._handle.fingerprint)
        self._learner, self._outcome, self._state = None, None, None
        self._iteration_done, self._cost_s = 0, 0.0
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._cheap: dict[str, float] = {}
        self._notes: list[str] = []
        self._run = replace(self._settings.run, halvings=int(config.get("halvings", 0)))
        if self._run.halvings:
            share = f"1/{2**self._run.halvings} of the tasks at a time"
            self._notes.append(f"ran out of memory; went on with {share}")
        self._saved_at = time.perf_counter()
        self._restore_from(config.get("restore") or [])

    def _restore_from(self, folders: Sequence[str]) -> None:
        for folder in folders:
            try:
                state = read_state(Path(folder), self._identity)
            except CheckpointError as error:
                self._notes.append(str(error))
                continue
            self._state = state
            self._iteration_done, self._cost_s = int(state["iteration"]), float(state["cost_s"])
            self._sums, self._summed = dict(state["sums"]), int(state["summed"])
            self._notes.append(f"went on from meta-iteration {self._iteration_done}")
            return
        if folders:
            self._notes.append("no usable checkpoint; started from meta-iteration 0")

    def _release(self) -> None:
        self._learner = None

    def _ready(self) -> Learner:
        if self._learner is None:
            torch.set_num_threads(self._settings.threads)
            if self._opened is None:
                self._opened = self._handle.open()
            data, settings = self._opened, self._settings
            self._cheap = settings.learner.cheap(
                self._config, channels=data.channels, size=data.size, ways=settings.shape.ways
            )
            learner = settings.learner(self._config, data, settings.shape, self._run)
            if self._state is not None:
                learner.load_state_dict(self._state["learner"])
                self._state = None
            self._learner = learner
        return self._learner

    def _check_time(self) -> None:
        limit = self._settings.limit_s
        if limit is not None and self._cost_s > limit:
            raise TimeLimitError(
                f"{self._cost_s:.0f} s at meta-iteration {self._iteration_done} of "
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
        self._outcome = self._ready().finish()
        self._release()
        table = json.dumps(self._outcome.table)  # a string: loggers leave it alone
        end = {"finished": True, "table": table, DONE: True, SHOULD_CHECKPOINT: True}
        return {**self._outcome.metrics, **end}


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


def write_digest(folder: Path, identity: str) -> None:
    """Write the digests of all files of a checkpoint, last, and whose it is."""
    files = {
        file.relative_to(folder).as_posix(): _sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != DIGEST
    }
    text = json.dumps({"identity": identity, "files": files})
    (folder / DIGEST).write_text(text, encoding="utf-8")


def check_digest(folder: Path, identity: str | None = None) -> None:
    """Hold a checkpoint against its digests.

    Raises:
        CheckpointError: It is missing, torn, or another configuration's.
    """
    try:
        known = json.loads((folder / DIGEST).read_text(encoding="utf-8"))
        files, whose = dict(known["files"]), known["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint {folder} is torn: it has no whole {DIGEST}."
        ) from error
    if identity is not None and whose != identity:
        raise CheckpointError(
            f"The checkpoint {folder} belongs to another configuration, data set or setting."
        )
    for name, digest in files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            raise CheckpointError(f"The checkpoint {folder} is torn: {name} is not what was saved.")


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


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
