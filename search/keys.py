"""The keys of a configuration by dotted name: kind, default, what is allowed, what each one does.

Kinds and bounds are those of the JSON schema that pydantic makes of a model. What a key does stands
under ``Attributes:`` in the docstring of the model that has it.

Example:
    >>> from search.config import PlateauConfig
    >>> first, second = keys(PlateauConfig)
    >>> first.name, first.kind, first.default, first.allowed, second.default, second.allowed
    ('trials', 'whole number', None, 'from 1', '0.001', 'above 0, below 1')
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from spaces._domains import spell

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_OUT = "left out"
_KINDS = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "object": "mapping",
    "string": "word",
}
_ONE = re.compile(r"^    (\w+): (.+?)(?=^    \w|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: Dotted, as ``budget.plateau.trials``.
        kind: What YAML gives for it, in words.
        default: As a sweep file writes it; ``left out`` where the key's absence means something;
            None where it must be given.
        allowed: The values it takes; empty where the kind says it all.
        about: What it does, as Markdown.
    """

    name: str
    kind: str
    default: str | None
    allowed: str
    about: str


def keys(model: type[BaseModel], prefix: str = "") -> list[Key]:
    """Return every key of a model, those of its sections in their places."""
    found: list[Key] = []
    schema, said = model.model_json_schema(), descriptions(model)
    for name, shape in schema["properties"].items():
        section = section_of(model, name)
        if section is None or "anyOf" in shape:  # a section that may be left out is a key too
            required = name in schema.get("required", ())
            default = None if required else _default(model, name)
            found.append(_key(f"{prefix}{name}", shape, default, said.get(name, "")))
        if section is not None:
            found += keys(section, f"{prefix}{name}.")
    return found


def section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model of a key that holds keys itself; None where it holds a value."""
    kind = model.model_fields[name].annotation
    for one in (kind, *get_args(kind)):
        if inspect.isclass(one) and issubclass(one, BaseModel):
            return one
    return None


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a model and its bases say of its keys, in one line each."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if one is BaseModel or not issubclass(one, BaseModel):
            continue
        text = inspect.cleandoc(one.__doc__ or "")
        _, _, listed = text.replace("``", "`").partition("\nAttributes:\n")
        found |= {name: " ".join(said.split()) for name, said in _ONE.findall(listed)}
    return found


def _key(name: str, shape: Mapping[str, Any], default: str | None, about: str) -> Key:
    chosen = next((one for one in shape.get("anyOf", ()) if one.get("type") != "null"), shape)
    kind = "path" if chosen.get("format") == "path" else _KINDS[chosen.get("type", "object")]
    return Key(name, kind, default, _allowed(chosen), about)


def _default(model: type[BaseModel], name: str) -> str:
    value = model.model_fields[name].get_default(call_default_factory=True)
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {spell(one)}" for key, one in value.items())
        return f"{{{inner}}}"
    return LEFT_OUT if value is None else "[]" if value == () else spell(value)


def _allowed(shape: Mapping[str, Any]) -> str:
    if "enum" in shape:
        return " | ".join(map(spell, shape["enum"]))
    if {"minimum", "maximum"} <= shape.keys():
        return f"{spell(shape['minimum'])} to {spell(shape['maximum'])}"
    words = {"minimum": "from", "exclusiveMinimum": "above",
             "maximum": "up to", "exclusiveMaximum": "below"}  # fmt: skip
    return ", ".join(f"{word} {spell(shape[key])}" for key, word in words.items() if key in shape)
