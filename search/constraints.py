"""Constraints as people write them: ``student_params <= 60000``.

Example:
    >>> small = Constraint.parse("student_params <= 60_000")
    >>> str(small), small.violation({"student_params": 30000}), small.holds({})
    ('student_params <= 60000', -0.5, False)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from typing_extensions import override

from search.errors import UserError, suggest
from search.metrics import METRICS, USABLE, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Op: TypeAlias = Literal["<=", ">=", "<", ">"]

_FORM = re.compile(r"\s*([A-Za-z]\w*)\s*([<>=!]+)\s*(\S.*?)\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Constraint:
    """A bound on one metric of a finished trial."""

    metric: str
    op: Op
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``name op number``, with ``<=``, ``>=``, ``<`` or ``>``; ``2%`` is 0.02.

        Raises:
            UserError: The form, the metric or the number is wrong, or it can never hold.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise UserError(
                "A constraint reads `metric <= number`, as in `student_params <= 60000`; "
                f"found `{text.strip()}`."
            )
        metric, op, number = form.groups()
        _check_metric(metric, text)
        if op not in ("<=", ">=", "<", ">"):
            raise UserError(
                f"A constraint compares with <=, >=, < or >; `{text.strip()}` has {op}."
            )
        constraint = cls(metric, cast("Op", op), _number(number, text))
        _check_possible(constraint)
        return constraint

    def violation(self, metrics: Mapping[str, object]) -> float:
        """Return by how much the constraint is broken; 0 or less means that it holds.

        The unit is the bound itself, so that constraints on parameters and on accuracy can be
        added up; where the bound is 0 it is the metric's own. A metric that is missing, null or
        not a number breaks the constraint without limit: the result is ``inf``.
        """
        value = metrics.get(self.metric)
        if not isinstance(value, int | float) or math.isnan(value):
            return math.inf
        excess = value - self.bound if self.op[0] == "<" else self.bound - value
        scaled = excess / abs(self.bound) if self.bound else excess
        return math.ulp(0.0) if excess == 0 and len(self.op) == 1 else scaled

    def holds(self, metrics: Mapping[str, object]) -> bool:
        """Tell whether the metrics of a trial keep the constraint."""
        return self.violation(metrics) <= 0

    @override
    def __str__(self) -> str:
        """Write the constraint so that ``parse`` reads it back."""
        whole = self.bound.is_integer() and abs(self.bound) < 1e15
        return f"{self.metric} {self.op} {int(self.bound) if whole else repr(self.bound)}"


def read_bound(text: str) -> tuple[str, float]:
    """Read ``metric=number`` as the command line gives it.

    Raises:
        UserError: The form, the metric or the number is wrong.

    Example:
        >>> read_bound("adapt_ms=2.5")
        ('adapt_ms', 2.5)
    """
    metric, equals, number = (part.strip() for part in text.partition("="))
    if not equals or not metric:
        raise UserError(f"A bound reads `metric=number`, as `adapt_ms=2.5`; found `{text}`.")
    _check_metric(metric, text)
    return metric, _number(number, text)


def _check_metric(metric: str, text: str) -> None:
    if metric not in METRICS:
        raise UserError(
            f"`{text.strip()}` names no metric: {metric} is unknown. {suggest(metric, USABLE)}"
        )
    if reason := refusal(metric):
        raise UserError(reason)


def _check_possible(constraint: Constraint) -> None:
    metric = METRICS[constraint.metric]
    below, strict = constraint.op[0] == "<", len(constraint.op) == 1
    limit = metric.low if below else metric.high
    beyond = constraint.bound < limit if below else constraint.bound > limit
    if beyond or (strict and constraint.bound == limit):
        raise UserError(
            f"`{constraint}` can never hold: {constraint.metric} lies in "
            f"{_interval(metric.low, metric.high)}."
        )


def contradictions(constraints: Iterable[Constraint]) -> list[str]:
    """Return a sentence for each metric whose constraints cannot hold together.

    Example:
        >>> contradictions([Constraint.parse("adapt_ms < 1"), Constraint.parse("adapt_ms >= 1")])
        ['`adapt_ms >= 1` and `adapt_ms < 1` cannot both hold.']
    """
    floors: dict[str, Constraint] = {}
    ceilings: dict[str, Constraint] = {}
    for one in constraints:
        if one.op[0] == ">":
            known = floors.setdefault(one.metric, one)
            floors[one.metric] = max(known, one, key=lambda c: (c.bound, c.op == ">"))
        else:
            known = ceilings.setdefault(one.metric, one)
            ceilings[one.metric] = min(known, one, key=lambda c: (c.bound, c.op != "<"))
    found = []
    for metric in floors.keys() & ceilings.keys():
        floor, ceiling = floors[metric], ceilings[metric]
        strict = floor.op == ">" or ceiling.op == "<"
        if floor.bound > ceiling.bound or (strict and floor.bound == ceiling.bound):
            found.append(f"`{floor}` and `{ceiling}` cannot both hold.")
    return sorted(found)


def _number(text: str, whole: str) -> float:
    digits, percent = (text[:-1].rstrip(), True) if text.endswith("%") else (text, False)
    if _NUMBER.fullmatch(digits):
        number = float(digits.replace("_", "")) / (100 if percent else 1)
        if math.isfinite(number):
            return number
    raise UserError(f"`{whole.strip()}` must end in a finite number; found `{text}`.")


def _interval(low: float, high: float) -> str:
    return f"[{low:g}, {high:g}]" if math.isfinite(high) else f"[{low:g}, infinity)"
