"""Refusal before cost: configurations that cannot reach the front, told by what is known of them.

Parameters, stored size and multiply-accumulates follow from a configuration alone. One that breaks
a constraint on such a metric is infeasible whatever its accuracy. One is dominated whatever its
accuracy exactly where a complete, feasible trial is nowhere worse in the objectives known before
training, somewhere better, and has the best possible value in every objective that is not known
yet: accuracy 1, say. Where an unknown objective has no such value, nothing is certain and nothing
is refused for it. Such a configuration is told to the study and costs nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from search.metrics import METRICS
from search.pareto import losses
from spaces._domains import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from search.constraints import Constraint
    from search.metrics import Direction
    from search.recorder import Record
    from spaces._domains import Value

MOST_IN_A_ROW = 300
"""So many refusals one after the other say that the space has nothing left; our default."""


class Gate:
    """Says which configurations are refused; an observer of the trials, which it learns from.

    Args:
        cheap: Configuration -> the metrics known before training.
        objectives: Of the sweep.
        constraints: Of the sweep.
        ended: Trials of earlier sessions.
        most: Refusals in a row after which there is nothing left to try.
    """

    def __init__(
        self,
        cheap: Callable[[Mapping[str, Value]], Mapping[str, float]],
        objectives: Mapping[str, Direction],
        constraints: Sequence[Constraint] = (),
        ended: Iterable[Record] = (),
        most: int = MOST_IN_A_ROW,
    ) -> None:
        self._cheap, self._objectives, self._most = cheap, dict(objectives), most
        self._constraints = tuple(constraints)
        self._rivals: list[Record] = []  # those with the best possible in something
        self._row: Counter[str] = Counter()
        self._nearest: dict[str, float] = {}
        for record in ended:
            self.finished(record)

    def refuses(self, config: Mapping[str, Value]) -> tuple[str, dict[str, float]]:
        """Hold a configuration against the constraints and the best trials.

        Returns:
            Why it is refused, empty where it is not; and its metrics known before training.
        """
        try:
            known = dict(self._cheap(config))
        except ValueError:  # a network that does not fit: the trial says so, as a failure
            self._row.clear()
            return "", {}
        why = self._broken(known) or self._beaten(known)
        if not why:
            self._row.clear()
        return (f"refused: {why}" if why else ""), known

    def nothing_left(self) -> str:
        """Say that too many were refused in a row; an empty string while they were not."""
        if self._row.total() < self._most:
            return ""
        blame, times = self._row.most_common(1)[0]
        why = f"most often because {blame} ({times} of them)"
        if blame in self._nearest:
            why += f"; the nearest had {spell(self._nearest[blame])}"
        return (
            f"The last {self._row.total()} suggestions were all refused before training, {why}. "
            "Loosen the constraint or widen the space."
        )

    def started(self, record: Record) -> None:
        """Nothing: what runs has passed."""

    def reported(self, record: Record, row: Mapping[str, object]) -> None:
        """Nothing: only complete trials count."""

    def finished(self, record: Record) -> None:
        """Remember a complete feasible trial that something may be certain against."""
        if record.state != "COMPLETE" or losses(record.metrics, self._objectives) is None:
            return
        certain = self._all_known() or any(
            self._at_best(n, record.metrics) for n in self._objectives
        )
        if certain and all(c.holds(record.metrics) for c in self._constraints):
            self._rivals.append(record)

    def _all_known(self) -> bool:
        return all(METRICS[name].early for name in self._objectives if name in METRICS)

    def _at_best(self, name: str, metrics: Mapping[str, object]) -> bool:
        """Tell whether a trial has the best value that a metric can have."""
        metric = METRICS.get(name)
        if metric is None:
            return False
        limit = metric.high if self._objectives[name] == "max" else metric.low
        return math.isfinite(limit) and metrics.get(name) == limit

    def _broken(self, known: Mapping[str, float]) -> str:
        for constraint in self._constraints:
            if constraint.metric in known and not constraint.holds(known):
                value, why = known[constraint.metric], f"it breaks `{constraint}`"
                self._row[why] += 1
                nearer = min if constraint.op[0] == "<" else max
                self._nearest[why] = nearer(value, self._nearest.get(why, value))
                return f"{why}: {constraint.metric} is {spell(value)}"
        return ""

    def _beaten(self, known: Mapping[str, float]) -> str:
        given = {n: d for n, d in self._objectives.items() if n in known}
        mine = losses(known, given) or ()
        for rival in self._rivals:
            if not all(self._at_best(n, rival.metrics) for n in self._objectives if n not in given):
                continue
            theirs = losses(rival.metrics, given) or ()
            if theirs != mine and all(x <= y for x, y in zip(theirs, mine, strict=True)):
                self._row["a trial beats it whatever it would reach"] += 1
                return f"trial {rival.id} is better whatever this one would reach"
        return ""
