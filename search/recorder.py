"""What becomes of each trial: files first, then the study, then whoever watches.

The order makes a kill harmless: a trial whose ``result.json`` is final but which the study still
holds as running is told to the study when the run is resumed. A failed tell is an error.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from search.alike import Alike
from search.checkpoints import Checkpoints
from search.errors import FailedError
from search.metrics import unsteady
from search.paired import TASKS_FILE
from search.rundir import FINISHED, FURTHER, REFUSED, SCORES, STOPPED_EARLY, RunDir, now, write_json
from trainables._core.digests import CheckpointError, check_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from search._optuna import Study, Suggestion
    from search.remote import Remote
    from spaces._domains import Value

CURVE_S = 1.0
"""Seconds between two writes of a running trial's curve, unless it is at a checkpoint; our default.

What a kill loses of it, the trial reports again when it goes on from that checkpoint.
"""
_CONTROL = (
    "finished", "table", "failure", "notes", "cost_s", "iteration", "further", "answers", "before",
)  # fmt: skip


@dataclass
class Record:
    """What is known of one trial; the content of its ``result.json``.

    Attributes:
        id: Its number in the study.
        state: RUNNING, COMPLETE, PRUNED, FAIL, or REFUSED: never run, and no trial of the budget.
        config: What was drawn or fixed, dotted.
        metrics: The last values; of a stopped trial, what it had reached.
        failure: Kind, reason and meta-iteration; None where it did not fail.
        cost_s: Seconds it held its resources.
        cpu_s: The same times the CPU cores it held.
        gpu_s: The same times the GPUs it held.
        stopped: Why it was stopped early or refused; empty where it was not.
        notes: What happened on the way, such as a checkpoint gone on from.
        reports: The curve: one row for each report with a quick validation.
        started: When it first ran, UTC.
        ended: When it ended, UTC.
        of: The trial whose trained model this is, adapted differently; None: trained by itself.
    """

    id: int
    config: dict[str, Value]
    state: str = "RUNNING"
    metrics: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] | None = None
    cost_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    stopped: str = ""
    notes: list[str] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    started: str = ""
    ended: str = ""
    of: int | None = None

    def why(self) -> str:
        """Say why it did not complete; nothing of one that did."""
        if self.failure is None:
            return self.stopped
        return f"{self.failure['kind']}: {self.failure['reason']}"


class Observer(Protocol):
    """Who watches the trials: the progress display, TensorBoard."""

    def started(self, record: Record) -> None:
        """A trial is handed out."""

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        """A trial says how far it is."""

    def finished(self, record: Record) -> None:
        """A trial has reached a state it never leaves."""


class Recorder:
    """Writes what happens to the trials of a run.

    Args:
        run: The run directory.
        study: The study of the run.
        observers: Who is told, after everything is written.
        held: CPU cores and GPUs that one trial holds.
        clock: Seconds, from whenever.
        remote: Checkpoints in the run's bucket; None: it has none.
    """

    def __init__(
        self,
        run: RunDir,
        study: Study,
        observers: Sequence[Observer] = (),
        held: tuple[float, float] = (1.0, 0.0),
        clock: Callable[[], float] = time.monotonic,
        remote: Remote | None = None,
    ) -> None:
        self.checkpoints = Checkpoints(run, remote)
        self._clock, self._written = clock, dict[int, float]()
        self.run, self.study, self.observers, self.held = run, study, tuple(observers), held
        self.records: dict[int, Record] = {}
        for result in run.results():
            self.records[int(result["id"])] = Record(**result)
        self._tables: dict[int, str] = {}
        self._answers: dict[int, str] = {}
        self._further: dict[int, str] = {}
        self._alike = Alike()  # in this session: what broke an earlier one may be mended
        self.cost_s = sum(r.cost_s for r in self.records.values())

    def reconcile(self) -> list[int]:
        """Bring files and study together after a kill.

        Returns:
            The trials that were left running and are to be handed out again.
        """
        left = []
        for number, state in self.study.states().items():
            if state == "WAITING" or state in FINISHED:
                continue
            record = self.records.get(number)
            if record is not None and record.state in (*FINISHED, REFUSED):
                self._tell(record)  # the driver died between the file and the study
            else:
                left.append(number)
        return sorted(left)

    def start(self, suggestion: Suggestion) -> list[str]:
        """Note that a trial is handed out.

        Returns:
            The checkpoints it can go on from, newest first.
        """
        known = self.records.get(suggestion.number)
        record = known or Record(suggestion.number, suggestion.config, started=now())
        record.config = suggestion.config
        self.records[record.id] = record
        self._write(record)
        for observer in self.observers:
            observer.started(record)
        self._noted(record.id)
        return self.checkpoints.given(record.id, begun=known is not None)

    def at_end(self, number: int) -> bool:
        """Tell whether a trial has said its last word, and only waits to be recorded."""
        return number in self._tables or self.records[number].failure is not None

    def report(self, number: int, row: Mapping[str, Any]) -> None:
        """Note what a trial reports; ``row`` holds metrics and the trial's own control words."""
        record = self.records[number]
        metrics = _metrics(row)
        record.metrics.update(metrics)
        known, record.cost_s = record.cost_s, float(row.get("cost_s", record.cost_s))
        self.cost_s += record.cost_s - known
        record.cpu_s, record.gpu_s = (record.cost_s * held for held in self.held)
        if before := row.get("before"):  # where it went on from, which may have got lost
            self._curve(record, before)
        for note in row.get("notes", ()):
            if note not in record.notes:
                record.notes.append(note)
        if failure := row.get("failure"):
            trace = failure.pop("traceback", "")
            record.failure = dict(failure)
            (self.run.trial(number) / "error.txt").write_text(trace, encoding="utf-8")
        elif row.get("finished"):
            record.metrics = metrics  # the last word, not mixed with quick values of the training
            self._tables[number] = row["table"]
            self._answers[number] = row.get("answers", "{}")
            self._further[number] = row.get("further", "[]")
        elif "accuracy" in row:
            self._curve(record, row)
        for observer in self.observers:
            observer.reported(record, row)

    def checkpoint(self, number: int, path: str) -> None:
        """Note a checkpoint of a trial; the last two are kept."""
        self._write(self.records[number])
        self._noted(number)
        self.checkpoints.note(number, path)

    def finish(self, number: int) -> None:
        """Note that a trial has ended by itself or was stopped by the scheduler."""
        record = self.records[number]
        if record.failure is not None:
            self._end(replace(record, state="FAIL"))
        elif number not in self._tables:
            at = record.reports[-1]["iteration"] if record.reports else 0
            reason = f"{STOPPED_EARLY} at meta-iteration {at}: others were better"
            self._end(replace(record, state="PRUNED", stopped=reason))
        elif problem := unsteady(record.metrics, self.wanted()):
            failure = {"kind": "noisy latency", "reason": problem}
            self._end(replace(record, state="FAIL", failure=failure))
        elif problem := self.study.unusable(record.metrics):
            failure = {"kind": "no result", "reason": problem}
            self._end(replace(record, state="FAIL", failure=failure))
        else:
            self._end(replace(record, state="COMPLETE"))

    def lose(self, number: int, kind: str, reason: str) -> None:
        """Note that a trial's process died, more often than it may be started again."""
        self._end(
            replace(self.records[number], state="FAIL", failure={"kind": kind, "reason": reason})
        )

    def cut(self, number: int, reason: str) -> None:
        """Note that a trial was cut by the budget."""
        self._end(replace(self.records[number], state="PRUNED", stopped=reason))

    def refuse(self, suggestion: Suggestion, known: Mapping[str, Any], reason: str) -> None:
        """Note a configuration that is refused before it costs anything; nobody watches those.

        Args:
            suggestion: What the study drew.
            known: Its metrics known before training.
            reason: Why it is refused.
        """
        at = now()
        record = Record(
            suggestion.number, suggestion.config, REFUSED, dict(known), stopped=reason,
            started=at, ended=at,
        )  # fmt: skip
        self.records[record.id] = record
        self._write(record)
        self._tell(record)

    def amend(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Add metrics to a finished trial, such as its score on test classes."""
        record = self.records[number]
        record.metrics.update(metrics)
        self._write(record)

    def of_state(self, *states: str) -> list[Record]:
        """Return the trials in some states, in their order."""
        return [r for _, r in sorted(self.records.items()) if r.state in states]

    def hopeless(self) -> str:
        """Say that every trial so far failed in the same way; an empty string where not so."""
        return self._alike.said(self.run)

    def wanted(self) -> list[str]:
        """Return the metrics that the study optimises or constrains."""
        return [*self.study.objectives, *(c.metric for c in self.study.constraints)]

    def _curve(self, record: Record, row: Mapping[str, Any]) -> None:
        """Add a report; those that a resumed trial repeats are replaced."""
        at = row["iteration"]
        earlier = (r for r in record.reports if r["iteration"] < at)
        record.reports = [*earlier, {"iteration": at, **_metrics(row)}]
        if self._clock() - self._written.get(record.id, -math.inf) >= CURVE_S:
            self._write(record)

    def _end(self, record: Record) -> None:
        record.ended = now()
        self.records[record.id] = record
        if record.state == "COMPLETE":
            table = json.loads(self._tables.pop(record.id))
            write_json(self.run.trial(record.id) / "table.json", table)
            if answers := json.loads(self._answers.pop(record.id, "{}")):
                write_json(self.run.trial(record.id) / TASKS_FILE, answers)
            if further := json.loads(self._further.pop(record.id, "[]")):
                write_json(self.run.trial(record.id) / FURTHER, further)
            self._keep_student(record.id, self._noted(record.id))
        self._write(record)
        self._tell(record)
        self._alike.ended(record.id, record.failure)
        self._written.pop(record.id, None)
        self.checkpoints.forget(record.id)  # the student is kept, the rest was for a kill
        for observer in self.observers:
            observer.finished(record)

    def _tell(self, record: Record) -> None:
        if record.state == "COMPLETE":
            self.study.complete(record.id, record.metrics)
        elif record.state in ("PRUNED", REFUSED):
            self.study.prune(record.id, record.metrics, record.stopped)
        else:
            self.study.fail(record.id, record.failure or {}, record.metrics)

    def _noted(self, number: int) -> list[Path]:
        """Where a trial's checkpoints lie, newest first; damage of their list is noted."""
        places, damage = self.checkpoints.noted(number)
        if damage and damage not in self.records[number].notes:
            self.records[number].notes.append(damage)
        return places

    def _keep_student(self, number: int, checkpoints: list[Path]) -> None:
        student, torn = self.run.trial(number) / "student", ""
        for place in checkpoints:
            with self.checkpoints.at_hand(place) as checkpoint:
                if not (checkpoint / "student").is_dir():
                    continue
                try:
                    check_digest(checkpoint)
                except CheckpointError as error:
                    torn = f" {error}"
                    continue
                shutil.rmtree(student, ignore_errors=True)
                shutil.copytree(checkpoint / "student", student)
                if (checkpoint / SCORES).is_file():
                    shutil.copyfile(checkpoint / SCORES, self.run.trial(number) / SCORES)
                return
        raise FailedError(
            f"Trial {number} finished, but its student is in none of its checkpoints.{torn} "
            f"`fewtune resume {self.run.path}` goes on from the one before."
        )

    def _write(self, record: Record) -> None:
        self.run.write_result(asdict(record))
        if record.state == "RUNNING":
            self._written[record.id] = self._clock()


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _CONTROL}
