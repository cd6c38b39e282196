"""The plateau rule: a sweep ends when its last trials hardly moved the hypervolume.

The hypervolume is that of ``results``: of the feasible front, as a share of the box that the run
keeps, or of the box around its complete trials so far. Both ends of the comparison use one box.
The trials counted are those that ended in this session, so that a sweep which is extended, or
resumed, is given as many trials again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from search.pareto import dominates, losses
from search.progress import counted
from search.results import box_of, share_of_box

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from search.constraints import Constraint
    from search.metrics import Direction
    from search.pareto import Point
    from search.recorder import Record


class Plateau:
    """Watches the hypervolume; an observer of the trials.

    Args:
        trials: How many trials that ended last are looked at.
        gain: By how much they must have raised the hypervolume, a share of the box in [0, 1].
        objectives: Of the sweep.
        constraints: Of the sweep.
        box: The box that the run keeps; None: that of its complete trials so far.
        ended: Trials of earlier sessions.
    """

    def __init__(
        self,
        trials: int,
        gain: float,
        objectives: Mapping[str, Direction],
        constraints: Sequence[Constraint] = (),
        box: Mapping[str, Mapping[str, float]] | None = None,
        ended: Iterable[Record] = (),
    ) -> None:
        self._trials, self._gain = trials, gain
        self._objectives, self._constraints, self._box = dict(objectives), tuple(constraints), box
        self._extremes: dict[tuple[str, str], dict[str, Any]] = {}
        self._before: list[Point] = []  # the front up to the window
        self._window: deque[list[Point]] = deque()  # of each trial, its further settings too
        self._why, self._changed = "", False
        for record in ended:
            self._enter(self._points(record))

    def stands_still(self) -> str:
        """Say that the rule holds; an empty string while it does not."""
        if self._changed and len(self._window) == self._trials and self._before:
            grown = self._growth()
            if grown < self._gain and not self._why:
                self._why = (
                    f"the last {counted(self._trials, 'trial')} raised the hypervolume by "
                    f"{grown:.2g}, less than {self._gain:g} (budget.plateau)"
                )
        self._changed = False
        return self._why

    def started(self, record: Record) -> None:
        """Nothing: only trials that end count."""

    def reported(self, record: Record, row: Mapping[str, object]) -> None:
        """Nothing: only trials that end count."""

    def finished(self, record: Record) -> None:
        """Take a trial into the window; what its model does otherwise counts with it."""
        self._changed = True
        if record.of is not None and self._window:
            self._window[-1] += self._points(record)
            return
        self._window.append(self._points(record))
        if len(self._window) > self._trials:
            self._enter(self._window.popleft())

    def _growth(self) -> float:
        extremes = [dict(metrics) for metrics in self._extremes.values()]
        box = self._box or box_of(extremes, self._objectives)
        if box is None:
            raise AssertionError("a front has complete trials behind it")
        recent = [point for points in self._window for point in points]
        volumes = [
            share_of_box(points, self._objectives, box)
            for points in (self._before, [*self._before, *recent])
        ]
        return volumes[1] - volumes[0]

    def _points(self, record: Record) -> list[Point]:
        """Return where a trial lies, if it may stand on the front; the box learns of it too."""
        point = losses(record.metrics, self._objectives)
        if record.state != "COMPLETE" or point is None:
            return []
        for name in self._objectives:
            value = float(record.metrics[name])
            for end, beyond in (("low", value.__lt__), ("high", value.__gt__)):
                known = self._extremes.get((name, end))
                if known is None or beyond(float(known[name])):
                    self._extremes[name, end] = record.metrics
        return [point] if all(c.holds(record.metrics) for c in self._constraints) else []

    def _enter(self, points: list[Point]) -> None:
        for new in points:
            if not any(p == new or dominates(p, new) for p in self._before):
                self._before = [*(p for p in self._before if not dominates(new, p)), new]
