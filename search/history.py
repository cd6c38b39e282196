"""How the hypervolume of a run grew: with its trials, and with what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.pareto import dominates, losses
from search.results import share_of_box
from search.rundir import FINISHED

if TYPE_CHECKING:
    from search.pareto import Point
    from search.results import RunResults


def history(results: RunResults) -> list[dict[str, Any]]:
    """Return the hypervolume after each trial that ended, in the order in which they ended.

    Returns:
        For each: ``trials``, its place in that order from 1; ``hours``, of trial time so far;
        ``hypervolume``, a share of the run's box. Empty without a complete trial.
    """
    box = results.box()
    if box is None:
        return []
    objectives = results.config.objectives
    feasible = {t["id"] for t in results.feasible()}
    ended = [t for t in results.trials if t["state"] in FINISHED]
    ended.sort(key=lambda t: (t["ended"], t["id"]))
    front: list[Point] = []
    rows: list[dict[str, Any]] = []
    hours, volume = 0.0, 0.0
    for count, trial in enumerate(ended, 1):
        hours += float(trial["cost_s"]) / 3600
        point = losses(trial["metrics"], objectives)
        better = trial["id"] in feasible and point is not None
        if (
            better
            and point is not None
            and not any(p == point or dominates(p, point) for p in front)
        ):
            front = [*(p for p in front if not dominates(point, p)), point]
            volume = share_of_box(front, objectives, box)
        rows.append({"trials": count, "hours": hours, "hypervolume": volume})
    return rows
