"""What becomes of each trial, told to one logger from a thread of its own.

The run directory is the record, a logger is a view of it. So nothing that a logger does - wait for
a network, raise - reaches the sweep: the first failure is said once, that trial is left out, and
the next one is tried again. Which trial is which run of the logger, and what it was last told,
stands in ``RUN/loggers/<name>.json``: a resumed trial goes on in its run, and what an earlier
session could not tell, the next one does.

A logger is a ``LoggerCallback`` of Ray Tune, but the recorder drives it, not Tune: Tune neither
knows why a trial ended nor of trials that share another one's training.
"""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, cast

from typing_extensions import override

from search.loggers import hidden
from search.rundir import read_json, tune_name, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from search.recorder import Record
    from search.rundir import RunDir
    from spaces._domains import Value

PATIENCE_S = 60.0  # with what a logger has still to send when the sweep ends; our default
FOLDER = "loggers"
RUNNING, INTERRUPTED = "RUNNING", "INTERRUPTED"
_NO_METRICS = ("iteration", "finished", "table", "failure", "notes", "further", "answers", "before")


@dataclass(eq=False)
class Shown:
    """A trial as a logger sees it, in place of Tune's own.

    Attributes:
        number: The trial's, in the study.
        config: Its dotted parameters.
        experiment_dir_name: The run's name; Tune's word for it.
        trial_id: The logger's run; empty until it has one.
        known: Whether an earlier session made that run.
        outcome: State, reason and the words among the results, once it has ended.
    """

    number: int
    config: dict[str, Value]
    experiment_dir_name: str
    trial_id: str = ""
    known: bool = False
    outcome: dict[str, str] = field(default_factory=dict)

    @override
    def __str__(self) -> str:
        """The name of its run."""
        return tune_name(self.number)

    @property
    def state(self) -> str:
        """COMPLETE, PRUNED or FAIL; INTERRUPTED where it may go on."""
        return self.outcome.get("state", INTERRUPTED)


class Logger(Protocol):
    """What is used of a ``LoggerCallback``; every call may raise, or wait for a network."""

    def setup(self) -> None:
        """Sign in, and find or make the project."""

    def log_trial_start(self, trial: Any) -> None:  # noqa: ANN401 - Tune's trial, or Shown
        """Make the trial's run, or go on with the one it has."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        """Add numbers at a meta-iteration."""

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Write the outcome and close the run."""


class Feed:
    """Tells one logger; an observer of the trials.

    Args:
        name: Of the logger.
        run: The run directory.
        make: Makes the logger; called on the thread, since it imports what may take seconds.
        say: Tells the user.
        patience_s: Waited at the end.
    """

    def __init__(
        self,
        name: str,
        run: RunDir,
        make: Callable[[], Logger],
        say: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name, self._run, self._make, self._say = name, run, make, say
        self._patience_s, self._file = patience_s, run.path / FOLDER / f"{name}.json"
        self._ledger: dict[str, dict[str, str]] = (
            read_json(self._file) if self._file.exists() else {}
        )
        self._logger: Logger | None = None
        self._open: dict[int, Shown] = {}
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"feed-{name}", daemon=True)
        self._complained = False

    def catch_up(self, records: Iterable[Record]) -> None:
        """Tell of trials that have ended, where an earlier session did not or could not."""
        for record in records:
            if self._ledger.get(str(record.id), {}).get("state") != record.state:
                self.started(record)
                for row in (*record.reports, {**record.metrics, "iteration": _last(record)}):
                    self.reported(record, row)
                self.finished(record)

    def started(self, record: Record) -> None:
        """Make the trial's run, or go on with it."""
        config, of = dict(record.config), record.of
        self._put(lambda: self._start(record.id, config, of))

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        """Pass on the numbers of a report."""
        told = {n: float(v) for n, v in row.items() if n not in _NO_METRICS and _is_number(v)}
        step = int(row.get("iteration", 0))
        if told:
            self._put(lambda: self._report(record.id, step, told))

    def finished(self, record: Record) -> None:
        """Pass on how a trial ended."""
        words = {n: v for n, v in record.metrics.items() if isinstance(v, str)}
        outcome = {**words, "state": record.state, "reason": record.why()}
        self._put(lambda: self._end(record.id, outcome))

    def close(self) -> None:
        """Wait for what is still to be sent, for as long as ``patience_s``."""
        if not self._thread.is_alive():
            return
        self._tasks.put(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._complained = True  # what it ends with now is no news
            self._say(
                f"{self.name} has not taken everything within {self._patience_s:.0f} s; the run "
                f"directory has it, and `fewtune resume {self._run.path}` tells the rest."
            )

    # ------------------------------------------------------------------ on the thread

    def _put(self, task: Callable[[], None]) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._try(task)
        for number in list(self._open):
            self._try(partial(self._end, number, {"state": INTERRUPTED}))

    def _try(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - a view must not end a sweep
            self._complain(error)

    def _start(self, number: int, config: dict[str, Value], of: int | None) -> None:
        if self._logger is None:
            logger = self._make()
            logger.setup()
            self._logger = logger
        known = self._ledger.get(str(number), {}).get("run", "")
        given = config if of is None else {**config, "of": of}
        shown = Shown(number, given, self._run.path.name, known, bool(known))
        self._logger.log_trial_start(shown)
        self._open[number] = shown
        self._note(shown, RUNNING)

    def _report(self, number: int, step: int, told: dict[str, float]) -> None:
        shown = self._open.get(number)
        if self._logger is None or shown is None:  # it failed before; said then
            return
        try:
            self._logger.log_trial_result(step, shown, told)
        except Exception:
            del self._open[number]  # a curve with holes is none: the next session tells all of it
            raise

    def _end(self, number: int, outcome: dict[str, str]) -> None:
        shown = self._open.pop(number, None)
        if self._logger is None or shown is None:
            return
        shown.outcome = outcome
        self._logger.log_trial_end(shown, failed=shown.state == "FAIL")
        self._note(shown, RUNNING if shown.state == INTERRUPTED else shown.state)

    def _note(self, shown: Shown, state: str) -> None:
        self._ledger[str(shown.number)] = {"run": shown.trial_id, "state": state}
        write_json(self._file, self._ledger)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            said = " ".join(hidden(str(error), os.environ).split()) or type(error).__name__
            self._say(
                f"{self.name} fails: {said[:200]}. The sweep goes on without it, the run "
                "directory has everything; later trials are tried again."
            )


def feeds(
    run: RunDir, wanted: Mapping[str, Mapping[str, str]], say: Callable[[str], None]
) -> list[Feed]:
    """Return a feed for each logger of a sweep.

    Args:
        run: The run directory.
        wanted: Logger -> options, as the sweep file has them.
        say: Tells the user.
    """

    def made(name: str) -> Logger:
        return cast("Logger", import_module(f"search._{name}").Runs(run, wanted[name]))

    return [Feed(name, run, partial(made, name), say) for name in wanted]


def _last(record: Record) -> int:
    return int(record.reports[-1]["iteration"]) if record.reports else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
