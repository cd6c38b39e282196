"""Lambda patterns: which layers adaptation updates, and the choice among them.

Khabarlak 2022 (arXiv 2206.05930). A pattern is a string of bits, input side first, head last;
"00011" updates the last convolution and the head of a Conv-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PATTERN_SETS = ("all", "suffixes")


def full(layers: int) -> str:
    """The pattern that updates every layer."""
    return "1" * layers


def first_updated(pattern: str) -> int:
    """l0, the lowest updated layer: nothing is propagated below it.

    >>> first_updated("00011")
    3
    """
    return pattern.index("1")


def candidates(layers: int, which: str = "all") -> list[str]:
    """Every pattern but the empty one, or only those that update the last layers.

    >>> candidates(3, "suffixes")
    ['001', '011', '111']

    Raises:
        ValueError: ``which`` is not one of ``PATTERN_SETS``.
    """
    if which == "suffixes":
        return ["0" * (layers - n) + "1" * n for n in range(1, layers + 1)]
    if which == "all":
        return ["".join(bits) for bits in product("01", repeat=layers)][1:]
    msg = f"A set of patterns is one of {', '.join(PATTERN_SETS)}; found {which!r}."
    raise ValueError(msg)


@lru_cache(maxsize=256)
def check(pattern: str, layers: tuple[str, ...]) -> None:
    """One bit per layer, at least one of them 1.

    Raises:
        ValueError: it is not such a pattern.
    """
    if len(pattern) != len(layers) or set(pattern) - {"0", "1"} or "1" not in pattern:
        msg = (
            f"A pattern here has {len(layers)} bits, one for each of {', '.join(layers)}, at "
            f"least one of them 1; found {pattern!r}."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class Score:
    """One row of the (pattern, step) table, measured on meta-validation tasks."""

    pattern: str
    step: int
    accuracy: float
    ci95: float  # half-width over tasks
    adapt_ms: float  # median, one task at a time
    predicted_ms: float  # from the profile of the device, for comparison
    adapt_macs: int
    adapt_mib: float  # peak of any number of steps
    tasks: int  # how many it was scored on: fewer than the reference where a race dropped it
    adapt_ms_p95: float = 0.0  # 95th percentile of the laps behind adapt_ms
    adapt_ms_spread: float = 0.0  # of them, quartile to quartile over the median, after T steps


SLACK = 1e-9  # accuracies are sums of floats


def within(accuracy: float, against: float, epsilon: float) -> bool:
    """Whether no more than epsilon is lost against the reference's accuracy."""
    return against - accuracy <= epsilon + SLACK


def choose(
    table: Iterable[Score],
    epsilon: float,
    *,
    reference: str | None = None,
    cost: Callable[[Score], float] = lambda row: row.adapt_macs,
) -> tuple[Score, Score]:
    """The cheapest (pattern, step) whose accuracy is within epsilon of the full pattern's.

    The full pattern at its last step is the reference, so the choice is never empty. Cost is
    multiply-accumulates unless told otherwise: the same configuration then chooses the same
    pattern however busy the machine is [our choice; the paper says time]. Ties go to the higher
    accuracy, then to fewer steps. Rows of fewer tasks than the reference's are what a race has
    dropped; their accuracies are of other tasks and are not compared.

    Args:
        table: scores of the same tasks, the full pattern among them.
        epsilon: allowed loss of accuracy, in [0, 1].
        reference: the pattern accuracy is compared with; the full one if left out.
        cost: what is minimised.

    Returns:
        The chosen row and the reference row.

    Raises:
        ValueError: the table lacks the reference pattern.
    """
    rows = list(table)
    name = reference or full(len(rows[0].pattern)) if rows else reference
    against = max((row for row in rows if row.pattern == name), key=lambda r: r.step, default=None)
    if against is None:
        msg = (
            f"The table of patterns must hold the one that accuracy lost is measured against, "
            f"{name}; it holds {', '.join(sorted({row.pattern for row in rows})) or 'nothing'}."
        )
        raise ValueError(msg)
    comparable = [row for row in rows if row.tasks == against.tasks]
    feasible = [row for row in comparable if within(row.accuracy, against.accuracy, epsilon)]
    chosen = min(feasible, key=lambda row: (cost(row), -row.accuracy, row.step))
    return chosen, against
