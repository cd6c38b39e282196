"""Which trial to take home: the words of ``--pick``, the knee, and what to say where none is left.

A bound given with ``--max`` or ``--min`` comes first and the front is that of the trials it leaves,
so that a trial which only lost against trials beyond the bound can be picked too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from search.constraints import Constraint, contradictions
from search.errors import UserError, suggest
from search.pareto import dominates, front, losses
from search.progress import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.pareto import Point
    from search.results import RunResults

Trial: TypeAlias = dict[str, Any]

WORDS = ("best", "knee", "fastest", "smallest")
ALL_FRONT = "all-front"
_BY_METRIC = {
    "best": ("accuracy", -1.0, "the most accurate"),
    "fastest": ("adapt_ms", 1.0, "the fastest to adapt"),
    "smallest": ("student_params", 1.0, "the smallest"),
}
_SAME_DIRECTION = 0.1  # extremes that differ by less of the widest spread are one: our default
_NAMED = 3  # trials named in a message


@dataclass(frozen=True)
class Pick:
    """A chosen trial.

    Attributes:
        trial: Its ``result.json``.
        why: What makes it the one, as ``the knee of 5 trials on the front``.
        next_best: What would have been taken without it; None where nothing is left.
        next_why: What the next best is; empty where it is the second by the same measure.
    """

    trial: Trial
    why: str
    next_best: Trial | None
    next_why: str = ""


def choose(
    results: RunResults, word: str, maxima: Mapping[str, float], minima: Mapping[str, float]
) -> Pick:
    """Choose one trial of a run.

    Args:
        results: The run.
        word: best (highest accuracy), knee, fastest (lowest adapt_ms), smallest (fewest
            student_params), each on the feasible front; or the number of any complete trial.
        maxima: Metric -> the largest value allowed.
        minima: Metric -> the smallest value allowed.

    Raises:
        UserError: A word, a metric or a number is wrong, or no trial is left; in the last case the
            trials that come closest are named.
    """
    bounds = _bounds(maxima, minima)
    if word.isdecimal():
        return _numbered(results, int(word), bounds)
    check_word(word)
    left = _left(results, bounds)
    scores, what = _scores(results, word, left)
    order = sorted(range(len(left)), key=lambda i: scores[i])  # stable: best first objective first
    left = [left[i] for i in order]
    if len(left) == 1:
        return Pick(left[0], f"the only trial on the front{_with(bounds)}", None)
    return Pick(left[0], f"{what} of {len(left)} trials on the front{_with(bounds)}", left[1])


def choose_all(
    results: RunResults, maxima: Mapping[str, float], minima: Mapping[str, float]
) -> list[Pick]:
    """Choose every trial of the front, best first objective first; otherwise as ``choose``.

    Raises:
        UserError: As ``choose``.
    """
    bounds = _bounds(maxima, minima)
    left = _left(results, bounds)
    why = f"one of {len(left)} trials on the front{_with(bounds)}"
    return [Pick(trial, why, None) for trial in left]


def check_word(word: str) -> None:
    """Refuse what is neither a word for a trial nor a number.

    Raises:
        UserError: The word; the nearest right one is named.
    """
    known = (*WORDS, ALL_FRONT)
    if word not in known and not word.isdecimal():
        raise UserError(
            f"A pick is {', '.join(known)} or the number of a trial; found {word!r}. "
            f"{suggest(word, known)}"
        )


def knee_distances(points: Sequence[Point]) -> list[float]:
    """Return how far each point of a front lies beyond the plane through its extremes.

    Every objective is scaled to [0, 1] over the front, 0 being best; one that is the same
    everywhere is left out. The extremes are the best points of each objective, and the knee is the
    point farthest from the plane through them on the side of the ideal point 0 (Das 1999, "On
    characterizing the knee of the Pareto curve"). Where fewer extremes differ than there are
    objectives, as when the smallest student is also the fastest, many planes pass through them and
    the one farthest from the ideal point is taken, so that such objectives share one weight.
    Where that plane would reward a worse value, all objectives weigh the same [our default].

    Args:
        points: Objectives of trials none of which dominates another, smaller is better.

    Returns:
        Distances in scaled units; the extremes have about 0, negative ones lie behind the plane.

    Example:
        >>> [round(d, 2) for d in knee_distances([(0, 10), (1, 1), (10, 0)])]
        [0.0, 0.57, 0.0]
    """
    values = np.array(points, dtype=float)
    spread = values.max(0) - values.min(0)
    unit = (values - values.min(0))[:, spread > 0] / spread[spread > 0]
    if unit.shape[1] == 0:
        return [0.0] * len(points)
    total = unit.sum(1)
    extremes = [int(np.lexsort((total, column))[0]) for column in unit.T]
    rows = unit[sorted(set(extremes))]
    normal = np.linalg.pinv(rows, rcond=_SAME_DIRECTION) @ np.ones(len(rows))
    if (normal <= 0).any():
        normal = np.ones(unit.shape[1])
    return [round(float(d), 9) for d in (1 - unit @ normal) / np.linalg.norm(normal)]


def _scores(results: RunResults, word: str, left: list[Trial]) -> tuple[list[float], str]:
    """Return a score for each trial, smaller is better, and what the first one is."""
    if word == "knee":
        points = [losses(t["metrics"], results.config.objectives) or () for t in left]
        return [-distance for distance in knee_distances(points)], "the knee"
    metric, sign, what = _BY_METRIC[word]
    values = [t["metrics"].get(metric) for t in left]
    if all(value is None for value in values):
        raise UserError(
            f"--pick {word} goes by {metric}, which no trial of this run reports. Pick knee or the "
            "number of a trial."
        )
    return [math.inf if v is None else sign * float(v) for v in values], what


def _bounds(maxima: Mapping[str, float], minima: Mapping[str, float]) -> list[Constraint]:
    bounds = [
        Constraint.parse(f"{name} {op} {bound!r}")
        for op, limits in (("<=", maxima), (">=", minima))
        for name, bound in limits.items()
    ]
    if problems := contradictions(bounds):
        raise UserError(" ".join(problems))
    return bounds


def _with(bounds: Sequence[Constraint]) -> str:
    return f" with {_and([str(b) for b in bounds])}" if bounds else ""


def _left(results: RunResults, bounds: Sequence[Constraint]) -> list[Trial]:
    left = _front(results, bounds)
    if not left:
        raise UserError(_nothing_left(results, bounds))
    return left


def _front(results: RunResults, bounds: Sequence[Constraint]) -> list[Trial]:
    """Return the front of the feasible trials within the bounds, best first objective first."""
    kept = [t for t in results.feasible() if all(b.holds(t["metrics"]) for b in bounds)]
    points = [losses(t["metrics"], results.config.objectives) or () for t in kept]
    return [kept[i] for i in sorted(front(points), key=lambda i: points[i])]


def _numbered(results: RunResults, number: int, bounds: Sequence[Constraint]) -> Pick:
    trial = next((t for t in results.trials if t["id"] == number), None)
    complete = [str(t["id"]) for t in results.trials if t["state"] == "COMPLETE"]
    there = f"Complete are {_and(complete)}." if complete else "No trial is complete yet."
    if trial is None:
        raise UserError(f"There is no trial {number} in {results.run.path}. {there}")
    if trial["state"] != "COMPLETE":
        raise UserError(f"Trial {number} has no student: {_fate(trial)}. {there}")
    broken = [f"`{b}` ({_value(trial, b.metric)})" for b in bounds if not b.holds(trial["metrics"])]
    if broken:
        raise UserError(
            f"Trial {number} does not keep {_and(broken)}. Leave the bound out, or pick by a word "
            "to get a trial that keeps it."
        )
    others = _front(results, ())
    knee = choose(results, "knee", {}, {}).trial if others else None
    if knee is None or knee["id"] == number:
        return Pick(trial, f"asked for by its number, {_standing(results, trial)}", None)
    why = f"asked for by its number, {_standing(results, trial)}"
    return Pick(trial, why, knee, "the knee of the front")


def _standing(results: RunResults, trial: Trial) -> str:
    """Say where a trial stands among the others."""
    broken = [f"`{c}`" for c in results.config.constraints if not c.holds(trial["metrics"])]
    if broken:
        return f"which breaks the constraint {_and(broken)}"
    objectives = results.config.objectives
    own = losses(trial["metrics"], objectives)
    for other in results.front():
        point = losses(other["metrics"], objectives)
        if own is not None and point is not None and dominates(point, own):
            return f"which trial {other['id']} beats or equals in every objective"
    return "which is on the front"


def _nothing_left(results: RunResults, bounds: Sequence[Constraint]) -> str:
    """Say why no trial can be picked, and which ones come closest."""
    where = results.run.path
    complete = [t for t in results.trials if t["state"] == "COMPLETE"]
    if not complete:
        return (
            f"No trial of {where} is complete, so there is nothing to export; "
            f"`fewtune results {where}` shows how far it is."
        )
    feasible = results.feasible()
    limits = [*([] if feasible else results.config.constraints), *bounds]
    pool = feasible or complete
    excess = [sum(max(0.0, b.violation(t["metrics"])) for b in limits) for t in pool]
    order = [i for i in sorted(range(len(pool)), key=lambda i: excess[i]) if excess[i] < math.inf]
    names = list(dict.fromkeys(b.metric for b in limits))
    close = [
        f"trial {pool[i]['id']} ({', '.join(_value(pool[i], name) for name in names)})"
        for i in order[:_NAMED]
    ]
    told = f"the closest: {_and(close)}" if close else f"none reports {_and(names, 'or')}"
    kind = "feasible" if feasible else "complete"
    loosen = "the bound" if feasible else "the constraint, or give the number of a trial"
    return f"No {kind} trial keeps {_and([f'`{b}`' for b in limits])}; {told}. Loosen {loosen}."


def _fate(trial: Trial) -> str:
    if failure := trial.get("failure"):
        return f"it failed ({failure['kind']}: {str(failure['reason']).rstrip('.')})"
    return str(trial.get("stopped") or "it has not finished")


def _value(trial: Trial, metric: str) -> str:
    return f"{metric} {show(metric, trial['metrics'].get(metric))}"


def _and(words: Sequence[str], last: str = "and") -> str:
    """Join words as a sentence does.

    Example:
        >>> _and(["a", "b", "c"]), _and(["a"])
        ('a, b and c', 'a')
    """
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
