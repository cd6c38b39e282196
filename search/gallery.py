"""What TensorBoard shows of the search itself: tables, episodes, the front, its hypervolume.

The hypervolume lies in the box of the complete trials so far, or in the one that the run keeps; so
a trial that is worse than all before can lower the share of the others. ``results`` has the last.

Drawing takes tenths of a second and holds up the driver. So it may take a twentieth of its time,
one trial's table at a time; where trials end faster than that, the rest is drawn at the end.
"""

from __future__ import annotations

import io
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from search._tensorboard import AFTER
from search.episode import episode_png
from search.figures import front_png
from search.picks import choose
from search.progress import show
from search.results import RunResults
from search.rundir import FINISHED, read_json
from search.stills import table_figure
from trainables._core.episodes import TaskShape
from trainables._core.student import Student

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure

    from search._tensorboard import BoardWriter
    from search.config import SweepConfig
    from search.recorder import Record, Recorder
    from trainables._data import Dataset

DPI = 80  # of a table: 720 by 336 pixels
PAUSE = 19  # times what drawing took, until it is done again; our default
PATIENCE_S = 20.0  # with what is owed at the end; our default
FRONT = (770, 506)  # pixels of the front's picture at its default dpi


class Gallery:
    """Draws after each trial that ended; an observer of the trials, ahead of the board.

    Args:
        board: Where to.
        recorder: Of the run.
        config: Of the sweep.
        clock: Seconds, from whenever.
    """

    def __init__(
        self,
        board: BoardWriter,
        recorder: Recorder,
        config: SweepConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board, self._recorder, self._config = board, recorder, config
        self._clock, self._next = clock, clock()
        self._owed: list[int] = []  # complete trials that were not drawn
        self._stale = False  # whether a trial completed since the front was looked at
        self._front: list[int] = []

    def started(self, record: Record) -> None:
        """Nothing: only trials that end are drawn."""

    def reported(self, record: Record, row: Mapping[str, object]) -> None:
        """Nothing: only trials that end are drawn."""

    def finished(self, record: Record) -> None:
        """Draw the table, the front where it changed, and the hypervolume, if it is time."""
        if record.state == "COMPLETE":
            self._owed.append(record.id)
            self._stale = True
        began = self._clock()
        if self._stale and began >= self._next:
            self._draw_table(self._owed.pop())
            self._draw_search()
            now = self._clock()
            self._next = now + PAUSE * (now - began)

    def catch_up(self) -> None:
        """Draw what is owed, the newest first, as far as patience goes; and the search."""
        until = self._clock() + PATIENCE_S
        while self._owed and self._clock() < until:
            self._draw_table(self._owed.pop())
        if self._stale:
            self._draw_search()

    def conclude(self, numbers: Sequence[int], data: Dataset) -> None:
        """Show an episode and what was measured at the end, as far as patience goes.

        Args:
            numbers: Trials that were not on the front when a session ended before.
            data: Of the sweep.
        """
        until, config = self._clock() + PATIENCE_S, self._config
        shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
        for number in numbers:
            metrics, picture = self._recorder.records[number].metrics, None
            if self._clock() < until:
                student = Student.load(self._recorder.run.trial(number) / "student")
                picture = episode_png(student, data, shape, config.seed)
            self._board.concluded(number, {name: metrics.get(name) for name in AFTER}, picture)

    def _draw_table(self, number: int) -> None:
        file = self._recorder.run.trial(number) / "table.json"
        own = self._recorder.records[number].of is None  # its model is drawn with its own trial
        if own and file.is_file() and (rows := read_json(file)):
            names = ("pattern", "step", "accuracy", "adapt_ms", "tasks")
            figure = table_figure(number, [[row.get(name) for name in names] for row in rows])
            if figure is not None:
                self._board.table(number, *_png(figure))

    def _draw_search(self) -> None:
        self._stale = False
        recorder = self._recorder
        ended = recorder.of_state(*FINISHED)
        info = recorder.run.info()
        results = RunResults(recorder.run, self._config, info, [asdict(r) for r in ended])
        front = [int(t["id"]) for t in results.front()]
        if front != self._front:
            self._front = front
            self._board.picture("front", front_png(results), len(ended), FRONT)
        volume = results.hypervolume()
        if volume is not None:
            seconds = round(sum(record.cost_s for record in ended))
            self._board.scalar("hypervolume/by_trials", volume, len(ended))
            self._board.scalar("hypervolume/by_trial_seconds", volume, seconds)


def chosen(results: RunResults) -> str:
    """Write the configuration of the front's knee, and its numbers, as Markdown."""
    picked = choose(results, "knee", {}, {})
    trial = picked.trial
    parts = [("metric", {n: show(n, v) for n, v in trial["metrics"].items()}),
             ("parameter", trial["config"])]  # fmt: skip
    lines = [f"Trial {trial['id']}, {picked.why}:"]
    for head, rows in parts:
        lines += ["", f"| {head} | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows.items()]
    take = f"fewtune export {results.run.path.name} --pick knee -o my-student"
    return "\n".join([*lines, "", f"`{take}` takes it home."])


def _png(figure: Figure) -> tuple[bytes, tuple[int, int]]:
    """Return a picture and its width and height in pixels."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    size: Any = figure.get_size_inches() * DPI
    return out.getvalue(), (round(size[0]), round(size[1]))
