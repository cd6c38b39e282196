"""Order among trials with several objectives: feasibility, domination, crowding, hypervolume.

Everything here minimises; ``losses`` turns the sign of what is to be maximised. Plain Python on
tuples: a sweep has hundreds of points, and ``results`` must not wait for an import.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.metrics import Direction

Point: TypeAlias = tuple[float, ...]


def losses(metrics: Mapping[str, object], objectives: Mapping[str, Direction]) -> Point | None:
    """Return the objectives of a trial, smaller is better; None where one is no finite number.

    Example:
        >>> losses({"accuracy": 0.9, "adapt_ms": 2.0}, {"accuracy": "max", "adapt_ms": "min"})
        (-0.9, 2.0)
    """
    point = []
    for name, direction in objectives.items():
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value):
            return None
        point.append(-float(value) if direction == "max" else float(value))
    return tuple(point)


def dominates(a: Point, b: Point) -> bool:
    """Tell whether ``a`` is nowhere worse than ``b`` and somewhere better."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that no other dominates.

    Example:
        >>> front([(1, 3), (2, 2), (3, 3), (2, 2)])
        [0, 1, 3]
    """
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    for i in order:  # a point can only be dominated by one that sorts before it
        if not any(dominates(points[j], points[i]) for j in kept):
            kept.append(i)
    return sorted(kept)


def ranks(points: Sequence[Point]) -> list[int]:
    """Return the non-dominated rank of each point; 0 is the front.

    Example:
        >>> ranks([(1, 3), (2, 2), (3, 3), (4, 4)])
        [0, 0, 1, 2]
    """
    rank = [0] * len(points)
    left = list(range(len(points)))
    level = 0
    while left:
        best = {left[i] for i in front([points[i] for i in left])}
        for i in best:
            rank[i] = level
        left = [i for i in left if i not in best]
        level += 1
    return rank


def crowding(points: Sequence[Point]) -> list[float]:
    """Return how lonely each point is among its like; the ends of the front are infinitely so.

    Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", section III-B.
    """
    distance = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        low, high = points[order[0]][axis], points[order[-1]][axis]
        distance[order[0]] = distance[order[-1]] = math.inf
        if high == low:
            continue
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            distance[i] += (points[after][axis] - points[before][axis]) / (high - low)
    return distance


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the exact volume that the points dominate, up to the reference point.

    Slices along the last axis; meant for up to four objectives and a few hundred points.

    Example:
        >>> hypervolume([(0.0, 0.5), (0.5, 0.0)], (1.0, 1.0))
        0.75
    """
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    best = [inside[i] for i in front(inside)]
    if not best:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(p[0] for p in best)
    volume = 0.0
    best.sort(key=lambda p: p[-1])
    for i, point in enumerate(best):
        top = best[i + 1][-1] if i + 1 < len(best) else reference[-1]
        if top > point[-1]:
            slab = hypervolume([p[:-1] for p in best[: i + 1]], reference[:-1])
            volume += slab * (top - point[-1])
    return volume
