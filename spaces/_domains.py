"""The vocabulary of a search space: domains, their conditions and their reasons.

A space is data. It maps dotted parameter names (``"student.width"``) to domains, in the order in
which they are drawn; bounds are inclusive. Nothing here imports a framework, so that listing a
space costs nothing; the one translation to a sampler lives in ``search``.

Example:
    >>> width = Int(8, 64, log=True, why="below 8 filters accuracy collapses")
    >>> width.contains(64), width.contains(65), width.contains(16.0)
    (True, False, False)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

Value: TypeAlias = bool | int | float | str
Stage: TypeAlias = Literal["training", "adaptation"]


class SpaceError(ValueError):
    """A domain or a space that contradicts itself; the message is a finished sentence."""


@dataclass(frozen=True)
class When:
    """A condition: draw a parameter only if an earlier one has one of these values."""

    parameter: str
    one_of: tuple[Value, ...]

    def text(self) -> str:
        """Say the condition in words, as ``fewtune space`` shows it."""
        return f"{self.parameter} is {' or '.join(spell(value) for value in self.one_of)}"


@dataclass(frozen=True)
class Float:
    """Real numbers from ``low`` to ``high``, both included.

    Raises:
        SpaceError: The bounds are inverted, not finite, or not positive where ``log`` is set.
    """

    low: float
    high: float
    _: KW_ONLY
    log: bool = False
    why: str
    stage: Stage = "training"
    when: When | None = None

    def __post_init__(self) -> None:
        if not all(is_number(bound) and math.isfinite(bound) for bound in (self.low, self.high)):
            raise SpaceError(
                "A float range needs two finite numbers as bounds; "
                f"found [{spell(self.low)}, {spell(self.high)}]."
            )
        _check_order(self.low, self.high)
        if self.log and self.low <= 0:
            raise SpaceError(
                f"A logarithmic range must start above 0; found {spell(self.low)}. "
                "Raise the lower bound or leave log out."
            )
        _check_why(self.why)

    def contains(self, value: object) -> bool:
        """Tell whether a number lies within the bounds; a bool is no number."""
        return _is_real(value) and self.low <= value <= self.high  # type: ignore[operator]

    def text(self) -> str:
        """Write the range as ``float [0.001, 1] log``."""
        return f"float [{spell(self.low)}, {spell(self.high)}]{' log' * self.log}"


@dataclass(frozen=True)
class Int:
    """Whole numbers from ``low`` to ``high``, both included.

    Raises:
        SpaceError: The bounds are inverted, not whole, or below 1 where ``log`` is set.
    """

    low: int
    high: int
    _: KW_ONLY
    log: bool = False
    why: str
    stage: Stage = "training"
    when: When | None = None

    def __post_init__(self) -> None:
        if not (is_whole(self.low) and is_whole(self.high)):
            raise SpaceError(
                "An int range needs two whole numbers as bounds; "
                f"found [{spell(self.low)}, {spell(self.high)}]. Use float for real numbers."
            )
        _check_order(self.low, self.high)
        if self.log and self.low < 1:
            raise SpaceError(
                f"A logarithmic int range must start at 1 or above; found {self.low}. "
                "Raise the lower bound or leave log out."
            )
        _check_why(self.why)

    def contains(self, value: object) -> bool:
        """Tell whether a whole number lies within the bounds; 16.0 and True are none."""
        return is_whole(value) and self.low <= value <= self.high  # type: ignore[operator]

    def text(self) -> str:
        """Write the range as ``int [8, 64] log``."""
        return f"int [{self.low}, {self.high}]{' log' * self.log}"


@dataclass(frozen=True)
class Choice:
    """One of a few values, without an order.

    Raises:
        SpaceError: There is no option, one comes twice, or words and numbers are mixed.
    """

    options: tuple[Value, ...]
    _: KW_ONLY
    why: str
    stage: Stage = "training"
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.options:
            raise SpaceError("A choice needs at least one option; found none.")
        for option in self.options:
            _check_value(option)
        kinds = {str if isinstance(o, str) else bool if isinstance(o, bool) else float
                 for o in self.options}  # fmt: skip
        if len(kinds) > 1:
            raise SpaceError(
                "The options of a choice must be all words, all numbers or all true/false; "
                f"found {_listing(self.options)}."
            )
        if len(set(self.options)) < len(self.options):
            raise SpaceError(f"A choice must not repeat an option; found {_listing(self.options)}.")
        _check_why(self.why)

    def contains(self, value: object) -> bool:
        """Tell whether a value is one of the options; True is not 1."""
        return any(_same(option, value) for option in self.options)

    def text(self) -> str:
        """Write the options as ``a | b | c``."""
        return " | ".join(spell(option) for option in self.options)


@dataclass(frozen=True)
class Fixed:
    """A parameter held at one value; it is set, never drawn.

    Raises:
        SpaceError: The value is not a finite number, a word or true/false.
    """

    value: Value
    _: KW_ONLY
    why: str
    stage: Stage = "training"
    when: When | None = None

    def __post_init__(self) -> None:
        _check_value(self.value)
        _check_why(self.why)

    def contains(self, value: object) -> bool:
        """Tell whether a value is the fixed one; True is not 1."""
        return _same(self.value, value)

    def text(self) -> str:
        """Write the value as ``= conv4``."""
        return f"= {spell(self.value)}"


Domain: TypeAlias = Float | Int | Choice | Fixed
Space: TypeAlias = Mapping[str, Domain]


def active(domain: Domain, drawn: Mapping[str, Value]) -> bool:
    """Tell whether a domain is to be drawn, given the values of the parameters before it.

    A parameter whose condition names a parameter that was itself not drawn is not drawn either.

    Example:
        >>> rate = Float(1, 8, why="softens", when=When("loss", ("kl",)))
        >>> active(rate, {"loss": "kl"}), active(rate, {"loss": "none"}), active(rate, {})
        (True, False, False)
    """
    if domain.when is None:
        return True
    parent = drawn.get(domain.when.parameter)
    return any(_same(option, parent) for option in domain.when.one_of)


def check_space(space: Space) -> None:
    """Hold every condition of a space against the parameters that come before it.

    Raises:
        SpaceError: A condition names a parameter that is unknown or comes later.
    """
    seen: set[str] = set()
    for name, domain in space.items():
        if domain.when is not None and domain.when.parameter not in seen:
            raise SpaceError(
                f"{name} depends on {domain.when.parameter}, which must stand before it in the "
                "space; it stands later or is missing."
            )
        seen.add(name)


def spell(value: object) -> str:
    """Write a value as a sweep file would: ``true``, ``0.001``, ``conv4``, ``""``.

    Example:
        >>> spell(True), spell(1e-05), spell(2.0), spell("")
        ('true', '1e-05', '2', '""')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}"
    return '""' if value == "" else str(value)


def is_whole(value: object) -> bool:
    """Tell whether a value is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell whether a value is an int or a float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return is_number(value) and math.isfinite(value)  # type: ignore[arg-type]


def _same(option: Value, value: object) -> bool:
    return isinstance(option, bool) == isinstance(value, bool) and option == value


def _listing(options: tuple[Value, ...]) -> str:
    return f"[{', '.join(spell(option) for option in options)}]"


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise SpaceError(
            f"A range goes from low to high; found [{spell(low)}, {spell(high)}]. Swap the bounds."
        )


def _check_value(value: object) -> None:
    if isinstance(value, str | bool) or (is_number(value) and _is_real(value)):
        return
    raise SpaceError(
        f"A value must be a finite number, a word or true/false; found {spell(value)}."
    )


def _check_why(why: str) -> None:
    if not why.strip():
        raise SpaceError("A domain must say why it has these bounds; found no reason.")
