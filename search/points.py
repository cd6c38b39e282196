"""Single points of a space: the one to try first, and the corners that show whether it works.

Example:
    >>> space = {"width": Int(8, 32, why="small"), "loss": Choice(("kl", "mse"), why="both")}
    >>> [found.settings["width"] for found in corners(space, {"width": 16, "loss": "kl"})][:3]
    [16, 8, 32]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from search.entries import samples
from spaces._domains import Choice, Domain, Fixed, Int, Space, Value, active
from trainables._core.settings import FOLLOWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_PAIRED = 40  # extremes up to which every pair is tried too: below a second; our default


@dataclass(frozen=True)
class Corner:
    """One point of a space at some of its limits.

    Attributes:
        settings: The point.
        moved: What sets it apart from the first point.
    """

    settings: dict[str, Value]
    moved: dict[str, Value]


@dataclass(frozen=True)
class Observation:
    """A finished trial of another run: where it is from, and what it found with which settings."""

    origin: str
    config: dict[str, Value]
    metrics: dict[str, Any]


def first_point(space: Space, defaults: Mapping[str, Value]) -> dict[str, Value]:
    """Return the method's defaults, each brought into the space; what to try first.

    Example:
        >>> space = {"width": Int(8, 32, why="small"), "loss": Choice(("kl", "mse"), why="both")}
        >>> first_point(space, {"width": 64, "loss": "mse", "depth": 4})
        {'width': 32, 'loss': 'mse'}
    """
    return _point(space, defaults, {})


def filled(
    space: Space, defaults: Mapping[str, Value], wanted: Mapping[str, Value]
) -> dict[str, Value]:
    """Return a point with what it leaves out: the defaults, each brought into the space.

    What hangs on a condition that the point does not meet is left out.

    Example:
        >>> space = {"width": Int(8, 32, why="small"), "loss": Choice(("kl", "mse"), why="both")}
        >>> filled(space, {"width": 64, "loss": "kl"}, {"loss": "mse"})
        {'width': 32, 'loss': 'mse'}
    """
    return _point(space, defaults, wanted)


def corners(space: Space, defaults: Mapping[str, Value]) -> Iterator[Corner]:
    """Yield the first point, then points at the limits of the space, none twice.

    Each extreme of a range and each option of a choice alone; where they are not too many, every
    pair of them; all ranges at their low and all at their high ends, with each option.
    """
    ends = {n: samples(d) for n, d in space.items() if not isinstance(d, Fixed)}
    single = [(name, value) for name, values in ends.items() for value in values]
    ranges = [name for name in ends if not isinstance(space[name], Choice)]
    options = [one for one in single if one[0] not in ranges]
    tries: list[dict[str, Value]] = [{}, *({name: value} for name, value in single)]
    if len(single) <= MOST_PAIRED:
        tries += [dict(pair) for pair in combinations(single, 2) if pair[0][0] != pair[1][0]]
    for end in (0, -1):
        level = {name: ends[name][end] for name in ranges}
        tries += [level, *({**level, name: value} for name, value in options)]
    first, seen = _point(space, defaults, {}), set()
    for moved in tries:
        settings = _point(space, defaults, moved)
        key = tuple(settings.items())
        if key not in seen:
            seen.add(key)
            apart = {n: v for n, v in settings.items() if n not in first or first[n] != v}
            yield Corner(settings, apart)


def _point(
    space: Space, defaults: Mapping[str, Value], wanted: Mapping[str, Value]
) -> dict[str, Value]:
    point: dict[str, Value] = {}
    for name, domain in space.items():
        if active(domain, point):
            value = wanted.get(name, defaults.get(name))
            if name in FOLLOWS and not value:
                value = _followed(name, point, defaults)
            point[name] = _nearest(domain, value)
    return point


def _followed(name: str, point: Mapping[str, Value], defaults: Mapping[str, Value]) -> Value | None:
    """Return what a setting that is 0 means: the value of another."""
    leader = FOLLOWS[name]
    return point.get(leader, defaults.get(leader))


def _nearest(domain: Domain, value: Value | None) -> Value:
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return value if value is not None and domain.contains(value) else domain.options[0]
    if isinstance(value, str | bool) or value is None:
        ends = domain.low * domain.high if domain.log else domain.low + domain.high
        value = math.sqrt(ends) if domain.log else ends / 2
    clipped = min(max(value, domain.low), domain.high)
    return round(clipped) if isinstance(domain, Int) else float(clipped)
