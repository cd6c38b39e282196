"""Entries of a sweep file's ``space``: what people write, and the domains it means.

``16`` fixes a parameter, ``{int: [8, 64], log: true}`` and ``{float: [0.0, 0.05]}`` give it a
range, ``{choice: [kl, none]}`` a few values.

Example:
    >>> read_entry({"int": [8, 64], "log": True}, like=32).text()
    'int [8, 64] log'
    >>> write_entry(read_entry({"float": [0, 1]}, like=0.5))
    {'float': [0.0, 1.0]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from search.documents import kind
from search.errors import suggest
from spaces._domains import (
    Choice,
    Domain,
    Fixed,
    Float,
    Int,
    SpaceError,
    Stage,
    Value,
    When,
    is_number,
    is_whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = ("int", "float", "choice")
_FORMS = (
    "Write a value to fix it, {int: [8, 64]} or {float: [0.0, 0.05]} for a range "
    "(with log: true where factors matter), or {choice: [a, b]}."
)
_WHY = "set in the sweep file"


def read_entry(raw: object, *, like: Value | None = None, own: Domain | None = None) -> Domain:
    """Turn one entry into a domain.

    Args:
        raw: The entry as YAML gives it.
        like: The parameter's default, whose type the entry must have; None skips that check.
        own: The method's own domain; the entry keeps its stage, and a range or choice its
            condition. A value that the user fixes has none: it is taken as it stands.

    Raises:
        SpaceError: The entry has no known form, contradicts itself or has the wrong type.
    """
    stage: Stage = own.stage if own is not None else "training"
    when = own.when if own is not None else None
    if isinstance(raw, bool | int | float | str):
        return Fixed(_typed(raw, like), why=_WHY, stage=stage)
    if isinstance(raw, list):
        raise SpaceError(f"A list is no domain; write {{choice: [{_sample(raw)}]}}.")
    if not isinstance(raw, dict):
        raise SpaceError(f"Found {kind(raw)}. {_FORMS}")
    word = _word(raw)
    if word == "choice":
        return _choice(raw, like, stage, when)
    return _range(word, raw, like, stage, when)


def write_entry(domain: Domain) -> Any:  # noqa: ANN401 - the form depends on the domain
    """Return the entry that ``read_entry`` turns into this domain (reason and stage aside)."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return {"choice": list(domain.options)}
    word = "int" if isinstance(domain, Int) else "float"
    log = {"log": True} if domain.log else {}
    return {word: [domain.low, domain.high], **log}


def samples(domain: Domain) -> tuple[Value, ...]:
    """Return the values of a domain that decide whether all of it is allowed.

    Example:
        >>> samples(Int(8, 64, why="example")), samples(Choice(("kl", "none"), why="example"))
        ((8, 64), ('kl', 'none'))
    """
    if isinstance(domain, Fixed):
        return (domain.value,)
    return domain.options if isinstance(domain, Choice) else (domain.low, domain.high)


def _word(raw: Mapping[object, object]) -> str:
    words = [key for key in raw if key in _KINDS]
    for key in raw:
        if key not in (*_KINDS, "log"):
            raise SpaceError(f"Unknown key {key}. {suggest(str(key), (*_KINDS, 'log'))} {_FORMS}")
    if len(words) != 1:
        found = f"both {' and '.join(map(str, words))}" if words else "none of them"
        raise SpaceError(f"Exactly one of int, float and choice must be given; found {found}.")
    if "log" in raw and not isinstance(raw["log"], bool):
        raise SpaceError(f"log must be true or false; found {kind(raw['log'])}.")
    return words[0]


def _range(
    word: str, raw: Mapping[str, object], like: Value | None, stage: Stage, when: When | None
) -> Domain:
    bounds = raw[word]
    if not isinstance(bounds, list) or len(bounds) != 2:
        found = f"{len(bounds)} items" if isinstance(bounds, list) else kind(bounds)
        raise SpaceError(f"{word} needs two bounds, as {{{word}: [low, high]}}; found {found}.")
    wrong = next((bound for bound in bounds if not is_number(bound)), None)
    if wrong is not None:
        raise SpaceError(f"A bound must be a number; found {kind(wrong)}.")
    _check_range_type(word, like)
    low, high = bounds
    log = bool(raw.get("log", False))
    if word == "int":
        return Int(low, high, log=log, why=_WHY, stage=stage, when=when)
    return Float(float(low), float(high), log=log, why=_WHY, stage=stage, when=when)


def _choice(
    raw: Mapping[str, object], like: Value | None, stage: Stage, when: When | None
) -> Choice:
    options = raw["choice"]
    if not isinstance(options, list):
        raise SpaceError(f"choice needs a list, as {{choice: [a, b]}}; found {kind(options)}.")
    if "log" in raw:
        raise SpaceError("log belongs to a range of numbers; a choice has no scale.")
    typed = tuple(_typed(option, like) for option in options)
    return Choice(typed, why=_WHY, stage=stage, when=when)


def _check_range_type(word: str, like: Value | None) -> None:
    if like is None:
        return
    if isinstance(like, bool | str):
        wanted = "true or false" if isinstance(like, bool) else "words"
        raise SpaceError(f"This parameter takes {wanted}, not numbers; write {{choice: [a, b]}}.")
    right = "int" if is_whole(like) else "float"
    if word != right:
        numbers = "whole numbers" if right == "int" else "real numbers"
        raise SpaceError(f"This parameter takes {numbers}; write {{{right}: [low, high]}}.")


def _typed(value: object, like: Value | None) -> Value:
    """Return a value with the type of the default; a whole number serves as a real one."""
    if like is None and isinstance(value, bool | int | float | str):
        return value
    if isinstance(like, bool) and isinstance(value, bool):
        return value
    if isinstance(like, str) and isinstance(value, str):
        return value
    if is_whole(like) and is_whole(value):
        return cast("int", value)
    if isinstance(like, float) and is_number(value):
        return float(cast("float", value))
    raise SpaceError(f"Expected {_expected(like)}; found {kind(value)}.")


def _expected(like: Value | None) -> str:
    if isinstance(like, bool):
        return "true or false"
    if isinstance(like, str):
        return "a word"
    if like is None:
        return "a number, a word or true/false"
    return "a whole number" if isinstance(like, int) else "a number"


def _sample(items: list[object]) -> str:
    shown = ", ".join(str(item) for item in items[:4])
    return f"{shown}, ..." if len(items) > 4 else shown
