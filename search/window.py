"""What a sampler looks at in a long study: the feasible front, and what ended last.

A density estimate over every observation costs more with each of them, and ten thousand say little
that two hundred do not. Up to ``LIMIT`` ended trials nothing is left out. Beyond that it is the
first front of all feasible ones, where the good ones of the estimate come from (Optuna's TPE takes
25 at most), at most half of the limit and the loneliest of them, and the newest others.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from search.pareto import crowding, dominates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.pareto import Point

LIMIT = 200
"""Ended trials that a sampler looks at; our default."""


class Ended(Protocol):
    """What is needed of a trial of the study."""

    @property
    def number(self) -> int:
        """Its number in the study."""

    @property
    def constraints(self) -> Mapping[str, float]:
        """By how much it breaks each; 0 or less where it holds."""


T = TypeVar("T", bound=Ended)


@dataclass
class Window(Generic[T]):
    """Keeps the front of what has ended, so that a look costs the same however much that is.

    Attributes:
        limit: Ended trials that are looked at.
    """

    limit: int = LIMIT
    _seen: set[int] = field(default_factory=set)
    _front: dict[int, Point] = field(default_factory=dict)
    _lonely: set[int] | None = None  # of this front; None: it has changed

    def look(self, ended: Sequence[T], points: Mapping[int, Point]) -> list[T]:
        """Choose among the ended trials.

        Args:
            ended: All of them, by rising number.
            points: By their numbers, those that completed and were not looked at before; smaller
                is better.
        """
        for number in sorted(points.keys() - self._seen):
            self._seen.add(number)
            if all(violation <= 0 for violation in _of(number, ended).constraints.values()):
                self._add(number, points[number])
        if len(ended) <= self.limit:
            return list(ended)
        if self._lonely is None:
            self._lonely = self._loneliest(self.limit // 2)
        best = self._lonely
        others = (trial for trial in reversed(ended) if trial.number not in best)
        newest = islice(others, self.limit - len(best))
        chosen = [*newest, *(_of(number, ended) for number in best)]
        return sorted(chosen, key=_number)

    def new(self, number: int) -> bool:
        """Tell whether a completed trial was not looked at yet."""
        return number not in self._seen

    def _add(self, number: int, point: Point) -> None:
        if any(dominates(other, point) for other in self._front.values()):
            return
        self._front = {n: p for n, p in self._front.items() if not dominates(point, p)}
        self._front[number] = point
        self._lonely = None

    def _loneliest(self, count: int) -> set[int]:
        if len(self._front) <= count:
            return set(self._front)
        numbers = sorted(self._front)
        lonely = dict(zip(numbers, crowding([self._front[n] for n in numbers]), strict=True))
        return set(sorted(numbers, key=lambda n: (-lonely[n], n))[:count])


def _number(trial: Ended) -> int:
    return trial.number


def _of(number: int, ended: Sequence[T]) -> T:
    return ended[bisect_left(ended, number, key=_number)]
