"""The disk that a run may take: weights that nobody needs any more make room, oldest first.

What stays, whatever happens: weights of the front and of the best few trials, all of trials that
run or can be resumed, and every trial's numbers. Where that alone is too much, trials save their
state and the sweep stops.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from search.errors import FailedError
from search.pareto import front, losses
from search.rundir import SCORES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.config import SweepConfig
    from search.recorder import Record, Recorder

BEST = 5  # feasible trials that keep their weights besides the front; our default
EVERY_S, SHARE = 5.0, 0.05  # between two looks, and the share of the time they take; our default


class DiskLimitError(FailedError):
    """A run takes more room than it may, and nothing of it can be spared."""


def taken(folder: Path) -> int:
    """Bytes that the files below a directory take; several names of one file count once."""
    sizes: dict[int, int] = {}
    for file in folder.rglob("*"):
        try:
            told = file.lstat()
        except FileNotFoundError:  # a checkpoint that was deleted meanwhile
            continue
        sizes[told.st_ino] = 0 if file.is_dir() else told.st_size
    return sum(sizes.values())


class Disk:
    """Keeps a run within its room; one without a limit is left alone.

    Args:
        recorder: The run's.
        config: The sweep.
        limit: Bytes; 0: no limit.
        clock: Seconds, from whenever.

    Attributes:
        full: Why the sweep must stop; empty while it need not.
    """

    def __init__(
        self,
        recorder: Recorder,
        config: SweepConfig,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder, self._config, self._limit, self._clock = recorder, config, limit, clock
        self._due, self.full = clock(), ""

    def tick(self) -> None:
        """Look, if it is time, and make room where there is too little."""
        began = self._clock()
        if not self._limit or self.full or began < self._due:
            return
        size = taken(self._recorder.run.path)
        for record in self._spare() if size > self._limit else []:
            size -= self._clear(record)
            if size <= self._limit:
                break
        if size > self._limit:
            self.full = (
                f"The run at {self._recorder.run.path} takes {size / 1e6:,.1f} MB of the "
                f"{self._limit / 1e6:,.1f} MB it may (max_disk), and all of it is needed: the "
                "front, the best trials, and those that go on. Nothing of it is lost; `fewtune "
                f"resume {self._recorder.run.path} --max-disk SIZE` goes on with more."
            )
        took = self._clock() - began
        self._due = self._clock() + max(EVERY_S, took / SHARE)

    def check(self) -> None:
        """Say that the sweep has stopped for want of room.

        Raises:
            DiskLimitError: It has.
        """
        if self.full:
            raise DiskLimitError(self.full)

    def _spare(self) -> list[Record]:
        """Return the trials whose weights can go, those that ended first before others."""
        complete = self._recorder.of_state("COMPLETE")
        scored = [
            (point, record)
            for record in complete
            if self._config.feasible(record.metrics)
            and (point := losses(record.metrics, self._config.objectives)) is not None
        ]
        best = {record.id for _, record in sorted(scored, key=lambda one: one[0])[:BEST]}
        best |= {scored[i][1].id for i in front([point for point, _ in scored])}
        spare = [one for one in complete if one.id not in best and self._weights(one)]
        return sorted(spare, key=lambda one: (one.ended, one.id))

    def _weights(self, record: Record) -> list[Path]:
        folder = self._recorder.run.trial(record.id)
        return [path for path in (folder / "student", folder / SCORES) if path.exists()]

    def _clear(self, record: Record) -> int:
        """Delete a trial's weights, and return how much room that made: others may share them."""
        record.notes.append("its weights were deleted to make room (max_disk)")
        self._recorder.amend(record.id, {})  # before: what a kill leaves is said to be gone
        freed = 0
        for path in self._weights(record):
            files = [path, *path.rglob("*")] if path.is_dir() else [path]
            told = [file.stat() for file in files if file.is_file()]
            freed += sum(one.st_size for one in told if one.st_nlink == 1)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return freed
