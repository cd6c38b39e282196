"""``--set key=value``: laid over a sweep file before it is checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.documents import Document, Place, read_value
from search.errors import Problem
from search.outside import is_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAYBE_SECRET = ("study", "storage", "loggers")  # a database's URL, a bucket's address, a key
METHOD: tuple[Place, ...] = (("method",),)
PATHS: tuple[Place, ...] = (
    ("data", "path"),
    ("data", "split"),
    ("storage",),
    ("space", "checkpoint"),
    *METHOD,
)


def apply_overrides(
    document: Document, overrides: Sequence[str], paths: Sequence[Place] = PATHS
) -> list[Problem]:
    """Lay each ``key=value`` over the document, the last one for a key winning.

    The value is read as YAML. What follows ``space.`` is one parameter name, dots included. An
    empty value (or ``null``) takes the key out, so that its default holds again.

    Returns:
        What is wrong with the overrides themselves; the schema is checked later.
    """
    problems: list[Problem] = []
    for text in overrides:
        flag = f"--set {text}"
        if text.lstrip().startswith(_MAYBE_SECRET):
            flag = f"--set {text.lstrip().partition('=')[0]}=..."
        try:
            place, value = _read(text)
            _set(document, place, value, flag, paths)
        except ValueError as error:
            problems.append(Problem(0, "", str(error), flag))
    return problems


def resolve_paths(values: dict[str, Any], base: Path, paths: Sequence[Place] = PATHS) -> None:
    """Make the relative paths of a sweep file absolute, in place; ``paths`` says which.

    ``~`` is the home directory; an address with ``://`` and an empty value stay as they are.
    """
    for *parents, last in paths:
        holder: Any = values
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and last in holder and not _is_name(last, holder[last]):
            holder[last] = _absolute(holder[last], base)


def _is_name(key: object, value: object) -> bool:
    """Tell whether a method is called by its name, and is no folder."""
    return key == "method" and not (isinstance(value, str) and is_path(value))


def _absolute(value: Any, base: Path) -> Any:  # noqa: ANN401 - unchecked YAML
    if isinstance(value, dict) and isinstance(value.get("choice"), list):
        return {**value, "choice": [_absolute(option, base) for option in value["choice"]]}
    if not isinstance(value, str) or not value or "://" in value:
        return value
    try:
        return str(base / Path(value).expanduser())
    except RuntimeError:  # no home directory of that name: a directory called ~name, then
        return str(base / value)


def _read(text: str) -> tuple[Place, Any]:
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ValueError("Write key=value, as in `--set data.source=omniglot`.")
    first, dot, rest = key.partition(".")
    if not first or (dot and not rest):
        raise ValueError(f"`{key}` is no key; write it as in `data.source`.")
    try:
        value = read_value(raw)
    except ValueError as error:
        shown = "" if first in _MAYBE_SECRET else f" `{raw}`"
        raise ValueError(f"The value{shown} is not YAML: {error}") from error
    return ((first, rest) if dot else (first,)), value


def _set(
    document: Document,
    place: Place,
    value: Any,  # noqa: ANN401 - unchecked YAML
    flag: str,
    paths: Sequence[Place],
) -> None:
    holder: Any = document.values
    for part in place[:-1]:
        if holder.get(part) is None:
            holder[part] = {}
        holder = holder[part]
    if not isinstance(holder, dict):
        whole = place[0]
        raise ValueError(f"`{whole}` has no keys of its own; set it as a whole: `{whole}=...`.")  # noqa: TRY004 - the user's mistake, not the program's
    _forget(document, place)
    if value is None:
        holder.pop(place[-1], None)
        return
    document.flags[place] = flag
    alone: Any = value
    for part in reversed(place):
        alone = {part: alone}
    resolve_paths(alone, Path.cwd(), paths)
    for part in place:
        alone = alone[part]
    holder[place[-1]] = alone


def _forget(document: Document, place: Place) -> None:
    for known in [*document.lines, *document.flags]:
        if known[: len(place)] == place:
            document.lines.pop(known, None)
            document.flags.pop(known, None)
