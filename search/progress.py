"""What is seen while a sweep runs: a live table on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output stays free for results.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.metrics import MIXED, named, normalisation_among, normalisation_of
from search.pareto import front, losses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from search.constraints import Constraint
    from search.metrics import Direction
    from search.recorder import Record

REFRESH_S = 0.5
SHOWN = 6  # points of the front on a screen


class Progress:
    """Draws how far a sweep is.

    Args:
        total: Trials the run is to have in the end.
        iterations: Meta-iterations of a trial.
        objectives: Of the sweep.
        constraints: Of the sweep.
        console: Where to draw; None is standard error.
    """

    def __init__(
        self,
        total: int,
        iterations: int,
        objectives: Mapping[str, Direction],
        constraints: Sequence[Constraint] = (),
        console: Console | None = None,
    ) -> None:
        self.total, self.iterations = total, iterations
        self.objectives, self.constraints = dict(objectives), tuple(constraints)
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.ended: list[Record] = []
        self.running: dict[int, int] = {}
        self.first_trial_s: float | None = None
        self._done, self._earlier, self.began, self._drawn = 0, 0, time.monotonic(), 0.0
        self._live: Live | None = None

    def open(self, run: Path, slots: int, earlier: Sequence[Record]) -> None:
        """Start drawing; trials of earlier sessions count as done."""
        self.ended = list(earlier)
        self._done = self._earlier = sum(record.of is None for record in earlier)
        left = self.total - self._earlier
        known = f", {self._earlier} of {self.total} done before" if self._earlier else ""
        self.say(f"{counted(left, 'trial')} to run, {slots} at a time{known} - {run}")
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """Stop drawing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Write one line; above the live table where there is one."""
        self.console.print(line, markup=False, soft_wrap=True)

    def started(self, record: Record) -> None:
        """Count a trial as handed out."""
        self.running[record.id] = 0

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        """Note how far a trial is."""
        self.running[record.id] = int(row.get("iteration", 0))

    def finished(self, record: Record) -> None:
        """Note an ended trial, and say so where nothing is drawn."""
        if self.first_trial_s is None and record.state == "COMPLETE":
            self.first_trial_s = time.monotonic() - self.began
        self.running.pop(record.id, None)
        self.ended.append(record)
        if record.of is not None:  # beside the trial that trained it, and not of the budget
            return
        self._done += 1
        if self._live is None or record.state == "FAIL":
            self.say(f"[{self._done}/{self.total}] {self.line(record)}")
        for note in record.notes:
            self.say(f"    trial {record.id}: {note}")

    def tick(self) -> None:
        """Draw again, if it is time."""
        if self._live is not None and time.monotonic() - self._drawn > REFRESH_S:
            self._drawn = time.monotonic()
            self._live.update(self._screen())

    def line(self, record: Record) -> str:
        """One trial in one line."""
        head = f"trial {record.id} {record.state.lower()} after {record.cost_s:.1f} s"
        if record.failure is not None:
            return f"{head}: {record.failure['kind']} - {record.failure['reason']}"
        mode = _mode(record)
        values = ", ".join(
            f"{named(name, mode)} {show(name, record.metrics[name])}"
            for name in self.objectives
            if record.metrics.get(name) is not None
        )
        broken = [str(c) for c in self.constraints if not c.holds(record.metrics)]
        breaks = f" (breaks {', '.join(broken)})" if broken and record.state == "COMPLETE" else ""
        where = " *" if any(record is point for point in self.front()) else ""
        return f"{head}: {values}{breaks}{where}"

    def front(self) -> list[Record]:
        """Return the feasible trials that no other dominates, best first objective first."""
        points = []
        for record in self.ended:
            point = losses(record.metrics, self.objectives)
            feasible = all(c.holds(record.metrics) for c in self.constraints)
            if record.state == "COMPLETE" and feasible and point is not None:
                points.append((point, record))
        best = front([point for point, _ in points])
        return [record for _, record in sorted((points[i] for i in best), key=lambda p: p[0])]

    def remaining(self) -> str:
        """Say how long the rest will take, from the pace of this session; "" before it has one."""
        done = self._done - self._earlier
        if done < 1:
            return ""
        seconds = (time.monotonic() - self.began) / done * max(0, self.total - self._done)
        return duration(seconds)

    def _screen(self) -> Group:
        failed = sum(r.state == "FAIL" for r in self.ended)
        pruned = sum(r.state == "PRUNED" for r in self.ended)
        head = f"{self._done} of {counted(self.total, 'trial')}"
        head += f", {pruned} stopped early" * bool(pruned) + f", {failed} failed" * bool(failed)
        head += f" - {duration(time.monotonic() - self.began)}"
        head += f", about {left} left" if (left := self.remaining()) else ""
        busy = ", ".join(
            f"trial {n}: {i} of {counted(self.iterations, 'iteration')}"
            for n, i in sorted(self.running.items())
        )
        best = self.front()
        table = Table(
            title=f"front: {counted(len(best), 'trial')}", title_justify="left", expand=False
        )
        table.add_column("trial", justify="right")
        mode = normalisation_among(map(_mode, best[:SHOWN]))
        for name in self.objectives:
            header = name if mode == MIXED else named(name, mode)
            table.add_column(header, justify="right")
        if mode == MIXED:
            table.add_column("normalisation")
        for record in best[:SHOWN]:
            cells = [show(name, record.metrics[name]) for name in self.objectives]
            table.add_row(str(record.id), *cells, *([_mode(record)] if mode == MIXED else []))
        parts: list[Text | Table] = [Text(head), Text(busy or "starting")]
        return Group(*parts, *([table] if best else []))


def _mode(record: Record) -> str:
    return normalisation_of(record.metrics, record.config)


def show(name: str, value: object) -> str:
    """Write a metric for people: accuracies in per cent, counts with thousands.

    Example:
        >>> show("accuracy", 0.9312), show("student_params", 60512), show("adapt_ms", 3.14159)
        ('93.1 %', '60,512', '3.14')
        >>> show("pattern", "00011"), show("teacher_accuracy", None)
        ('00011', '-')
        >>> show("quality_drop", -0.0001)
        '0.0 %'
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-" if value is None else str(value)
    if "accuracy" in name or name.startswith("quality_drop"):
        return f"{round(100 * value, 1) + 0.0:.1f} %"  # + 0.0: no -0.0
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def counted(number: int, thing: str) -> str:
    """Write how many there are of a thing.

    Example:
        >>> counted(1, "trial"), counted(2, "trial")
        ('1 trial', '2 trials')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time for people.

    Example:
        >>> duration(42), duration(150), duration(7500)
        ('42 s', '2 min 30 s', '2 h 05 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
