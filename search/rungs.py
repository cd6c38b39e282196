"""A rung of halving: what trials had reached at one meta-iteration, and who goes on from there.

A rung compares a trial with at most ``PEERS`` others, so that a decision costs the same in a sweep
of ten thousand trials as in one of a thousand. Until so many came, these are all; then they are
every second, fourth, eighth ... that came. Who is on the first front of all is on that of a part,
so none of them is stopped for it.

The order is Deb et al. 2002 (feasibility, non-dominated rank, crowding), as ``search.pareto`` has
it; here it is NumPy on the whole rung, since it runs at every report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from search.pareto import crowding, dominates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.pareto import Point

PEERS = 400
"""Trials that one is compared with at most; our default."""


def levels(points: Sequence[Point]) -> np.ndarray:
    """Return the non-dominated rank of each point, as ``search.pareto.ranks`` does.

    Example:
        >>> levels([(1, 3), (2, 2), (3, 3), (4, 4)]).tolist()
        [0, 0, 1, 2]
    """
    values = np.asarray(points, dtype=float)
    count = len(values)
    nowhere_worse, somewhere_better = np.ones((count, count), bool), np.zeros((count, count), bool)
    for column in values.T:  # [a, b]: a against b; an axis at a time keeps the arrays small
        nowhere_worse &= column[:, None] <= column
        somewhere_better |= column[:, None] < column
    over = nowhere_worse & somewhere_better
    rank, left, level = np.full(count, -1), over.sum(0), 0
    while (best := (left == 0) & (rank < 0)).any():
        rank[best] = level
        left = left - over[best].sum(0)
        level += 1
    return rank


@dataclass
class Rung:
    """What the trials had reached at one meta-iteration.

    Attributes:
        iteration: Meta-iterations that a trial has behind it here.
        peers: Trials that are compared with at most.
        entered: Every trial that came by.
        points: What those that are compared with had reached, smaller is better.
        violations: Of the constraints known by then; 0 where all are kept.
        stride: Of so many that came, one stays to be compared with.
    """

    iteration: int
    peers: int = PEERS
    entered: set[str] = field(default_factory=set)
    points: dict[str, Point] = field(default_factory=dict)
    violations: dict[str, float] = field(default_factory=dict)
    stride: int = 1

    def enter(self, trial: str, point: Point, violation: float) -> None:
        """Note a trial's values at this rung."""
        if len(self.points) >= self.peers:
            self.stride *= 2
            gone = list(self.points)[1::2]
        else:
            gone = list(self.points)[-1:] if (len(self.entered) - 1) % self.stride else []
        for name in gone:
            del self.points[name], self.violations[name]
        self.entered.add(trial)
        self.points[trial] = point
        self.violations[trial] = violation

    def keeps(self, trial: str, reduction: float, granted: Point | None = None) -> bool:
        """Tell whether a trial that has just entered goes on, given those that came before it.

        Args:
            trial: That has entered.
            reduction: Of so many one goes on.
            granted: The values that it is held against the first front with; left out: its own.
        """
        names = list(self.points)
        if len(names) < reduction:
            return True
        if self.violations[trial] <= min(self.violations.values()):
            point = granted or self.points[trial]
            if not any(dominates(self.points[name], point) for name in self._compared()):
                return True
        rank = self._ranks()
        lonely: dict[str, float] = {}
        group = [n for n in rank if rank[n] == rank.get(trial)]  # of others it decides nothing
        lonely.update(zip(group, crowding([self.points[n] for n in group]), strict=True))

        def key(name: str) -> tuple[float, float, float]:
            violation = max(self.violations[name], 0.0)
            return violation, rank.get(name, math.inf), -lonely.get(name, 0.0)

        order = sorted(names, key=key)
        return order.index(trial) < max(1, int(len(order) / reduction))

    def _ranks(self) -> dict[str, float]:
        """The rank of every trial that is compared."""
        names = self._compared()
        return dict(zip(names, levels([self.points[n] for n in names]).tolist(), strict=True))

    def _compared(self) -> list[str]:
        """Every feasible trial; every trial where none is feasible."""
        return [n for n in self.points if self.violations[n] <= 0] or list(self.points)
