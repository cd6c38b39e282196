"""``points`` of a sweep file: configurations to try first, held against the space.

A point names some parameters; what it leaves out has the method's default. It is refused where it
lies outside the space, since the sampler could not learn from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from search import registry
from search.documents import kind
from search.errors import suggest
from search.points import filled
from spaces._domains import Fixed, spell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.documents import Document
    from search.errors import Problem
    from spaces._domains import Space, Value

_FORM = "as in `- {student.width: 16, inner_steps: 3}`"


class Proposing(Protocol):
    """What is needed of a sweep's configuration."""

    @property
    def method(self) -> str:
        """A name from the registry."""

    @property
    def points(self) -> Sequence[Mapping[str, Value]]:
        """The points as the file has them."""

    def resolved_space(self) -> Space:
        """The space of the sweep."""


def read_points(document: Document, problems: list[Problem]) -> tuple[dict[str, Value], ...]:
    """Read the key ``points``: a list of mappings of parameters to values.

    Args:
        document: The sweep file.
        problems: Where its mistakes go.
    """
    raw = document.values.get("points")
    if raw is None:
        return ()
    if not isinstance(raw, list):
        said = f"Expected a list of points, {_FORM}; found {kind(raw)}."
        problems.append(document.problem(("points",), said))
        return ()
    points: list[dict[str, Value]] = []
    for index, entry in enumerate(raw):
        if not isinstance(entry, dict) or not entry:
            found = "an empty one" if entry == {} else kind(entry)
            said = f"A point maps parameters to values, {_FORM}; found {found}."
            problems.append(document.problem(("points", index), said))
            continue
        for name, value in entry.items():
            if not isinstance(value, bool | int | float | str):
                said = f"A point has one value for each parameter; found {kind(value)}."
                problems.append(document.problem(("points", index, name), said))
        points.append(entry)
    return tuple(points)


def check_points(document: Document, config: Proposing) -> list[Problem]:
    """Hold every point against the space and the method's settings; imports torch.

    Returns:
        What is wrong, each with its place in the file.
    """
    if not config.points:
        return []
    space, defaults = config.resolved_space(), registry.defaults(config.method)
    problems: list[Problem] = []
    for index, point in enumerate(config.points):
        wrong = {name: _misplaced(name, value, space, defaults) for name, value in point.items()}
        if not any(wrong.values()):
            whole = completed(space, defaults, point)
            wrong = {name: _unread(name, space, whole) for name in point if name not in whole}
            if not wrong:
                wrong = {"": _impossible(config.method, whole)}
        problems += [
            document.problem(("points", index, *((name,) if name else ())), said)
            for name, said in wrong.items()
            if said
        ]
    return problems


def completed(
    space: Space, defaults: Mapping[str, Value], point: Mapping[str, Value]
) -> dict[str, Value]:
    """Return a point with everything it leaves out, numbers typed as the space has them."""
    return filled(space, defaults, {n: as_drawn(v, defaults.get(n)) for n, v in point.items()})


def as_drawn(value: Value, like: Value | None) -> Value:
    """Return a whole number as a real one where the parameter is real.

    Example:
        >>> as_drawn(1, 0.5), as_drawn(1, 4), as_drawn("kl", "kl")
        (1.0, 1, 'kl')
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(like, float) else value


def _misplaced(
    name: str, value: Any, space: Space, defaults: Mapping[str, Value]  # noqa: ANN401 - unchecked YAML
) -> str:  # fmt: skip
    if name not in defaults:
        return f"The method has no parameter {name}. {suggest(name, defaults)}"
    if name not in space:
        return f"{name} is not searched by this sweep. Give it a domain or a value under `space`."
    domain = space[name]
    if domain.contains(as_drawn(value, defaults[name])):
        return ""
    if isinstance(domain, Fixed):
        return f"{name} is fixed: {spell(domain.value)}; found {spell(value)}. Leave it out."
    return f"Must lie in {domain.text()}; found {spell(value)}. Change it or widen the space."


def _unread(name: str, space: Space, whole: Mapping[str, Value]) -> str:
    when = space[name].when
    if when is None:
        raise AssertionError("what has no condition is part of every point")
    parent = whole.get(when.parameter)
    has = "leaves that out" if parent is None else f"has {spell(parent)}"
    return f"{name} is read only where {when.text()}; this point {has}."


def _impossible(method: str, whole: Mapping[str, Value]) -> str:
    try:
        registry.check_settings(method, whole)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""
