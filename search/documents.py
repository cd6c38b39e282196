"""YAML with places: every value knows its line, and nothing is lost in silence.

A plain YAML reader keeps the last of two equal keys and forgets where anything stood. This one
reports equal keys, remembers the line of each value, and reads ``1e-3`` as a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from search.errors import Problem, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Place: TypeAlias = tuple[str | int, ...]

_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_BREAKS = set("\x85\u2028\u2029")
_MOST_NODES = 20_000  # a sweep file has a few dozen; aliases of aliases can make billions


class _Loader(yaml.SafeLoader):
    """The safe loader, with the numbers of YAML 1.2: ``1e-3`` is one."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes words that the loader would take for something else."""


def _word(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """A word; line breaks of Unicode stay breaks in double quotes alone."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if _BREAKS & set(text) else None
    )


_Dumper.add_representer(str, _word)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )


def dump(values: Mapping[str, Any], *, flow: bool | None = None) -> str:
    """YAML that is read back as the same values, in their order.

    Args:
        values: plain Python values.
        flow: collections in braces: all, none, or, where it is None, the innermost.
    """
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100,
        default_flow_style=flow,
    )  # fmt: skip
    return text


@dataclass
class Document:
    """A mapping read from YAML, and where each of its values came from.

    Attributes:
        values: The mapping as plain Python values.
        lines: Place of each key or item -> its line, from 1.
        flags: Place of each value set on the command line -> the option as it was given.
        problems: What was wrong with the text itself: equal keys, keys that are no words.
    """

    values: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    flags: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, place: Place, sentence: str) -> Problem:
        """Make a problem at a place, with the nearest line or option known for it."""
        known = next((p for p in _upwards(place) if p in self.flags or p in self.lines), ())
        return Problem(
            0 if known in self.flags else self.lines.get(known, 0),
            dotted(place),
            sentence,
            self.flags.get(known, ""),
        )


def read_mapping(text: str, source: str) -> Document:
    """Read one YAML document whose root is a mapping.

    Raises:
        UserError: The text is not YAML, holds several documents, or its root is no mapping.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        document = Document({})
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise UserError(
                f"{source}: A sweep file must be a mapping of keys to values, as `method: maml`; "
                f"found {kind(_Walk(loader, document).value(node, ()))}."
            )
        if node is not None:
            document.values = _Walk(loader, document).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{source}: {where}This is not YAML: {_sentence(error)}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{source}: This is not YAML: {_sentence(error)}") from error
    return document


def read_value(text: str) -> Any:  # noqa: ANN401 - a YAML value can be anything
    """Read one value of the command line as YAML: ``16``, ``{int: [8, 64]}``, ``omniglot``.

    Raises:
        ValueError: The text is not YAML, or repeats a key.
    """
    document = Document({})
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else _Walk(loader, document).value(node, ())
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_sentence(error)) from error
    if document.problems:
        raise ValueError(document.problems[0].sentence)
    return value


def dotted(place: Place) -> str:
    """Write a place as people do: ``constraints[1]``, ``space.student.width``."""
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return parts.removeprefix(".")


def kind(value: object) -> str:
    """Name a value's kind and, where it is short, the value: ``the word 'five'``.

    Example:
        >>> kind([1]), kind(None), kind(True), kind("five"), kind(2.5)
        ('a list', 'nothing', 'true', "the word 'five'", '2.5')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the word {value[:40]!r}" if value else "an empty word"
    names: dict[type, str] = {type(None): "nothing", list: "a list", dict: "a mapping"}
    return names.get(type(value), str(value)[:60])


class _Walk:
    """Turns nodes into values, noting lines and problems; counts nodes to bound aliases."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._nodes = 0

    def value(self, node: yaml.Node, place: Place) -> Any:  # noqa: ANN401 - as above
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise yaml.YAMLError("it is far larger than a sweep file, or an alias holds itself")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {node.tag} is not read here", node.start_mark
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._document.lines[(*place, index)] = item.start_mark.line + 1
            return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                self._note(line, place, f"A key must be a word; found {kind([])}.")
                continue
            if key in values:
                first = self._document.lines[(*place, key)]
                self._note(
                    line, (*place, key), f"This key stands twice, first in line {first}. Keep one."
                )
                continue
            self._document.lines[(*place, key)] = line
            values[key] = self.value(value_node, (*place, key))
        return values

    def _scalar(self, node: yaml.Node) -> Any:  # noqa: ANN401 - as above
        try:
            value = self._loader.construct_object(node)
        except ValueError:  # a date that is none, as 2001-99-99
            return node.value
        plain = value is None or isinstance(value, bool | int | float | str)
        return value if plain else node.value

    def _note(self, line: int, place: Place, sentence: str) -> None:
        self._document.problems.append(Problem(line, dotted(place), sentence))


def _upwards(place: Place) -> Iterator[Place]:
    for length in range(len(place), 0, -1):
        yield place[:length]


def _sentence(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested without end, or an alias holds itself."
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{str(error).splitlines()[0]}."
    said = [part for part in (error.context, error.problem) if part]
    return f"{', '.join(said)}."
