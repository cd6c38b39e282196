"""Early stopping that keeps the whole front: asynchronous halving by Pareto rank.

Successive halving on accuracy kills the small fast students, which are never the most accurate of
their rung. Here a trial at a rung goes on if it is in the best 1/reduction of those that reached
the rung, ordered by (violation of the constraints known so far, non-dominated rank, crowding), or
if it lies on the first front, or would with a few of its errors gone (``tolerance``): small
students learn slowly, and one that is a little behind may lie on the front in the end. The first
few of a rung are granted nothing, so that a sweep soon has a result, and with much company a trial
is granted less and less, since another like it is there or will come. Objectives known by then are
the quick accuracy and those fixed by the configuration (parameters, stored size, multiply-
accumulates).

After Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (asynchronous
halving) and Deb et al. 2002 (order); keeping all of the first front, and what is near it, is our
default.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from typing_extensions import override

from search.metrics import EARLY
from search.pareto import losses
from search.rungs import Rung

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from search.constraints import Constraint
    from search.metrics import Direction
    from search.pareto import Point


FEW, MANY = 6, 20
"""Trials of a rung from which a tolerance holds, and from which on it shrinks; our default."""


class ParetoHalving(FIFOScheduler):
    """Stop trials that are neither on or near the first front of their rung nor among its best.

    Args:
        iterations: Meta-iterations of a full trial.
        objectives: Those of the sweep; the ones not yet known are left out.
        constraints: Those of the sweep; the ones not yet known count as kept.
        grace: Share of the meta-iterations that every trial gets.
        reduction: Of this many trials at a rung, one goes on.
        tolerance: Share of a trial's errors that it is granted when it is held against the front,
            in full in a rung of ``FEW`` to ``MANY`` trials, in a larger one by the root of ``MANY``
            over their number, in a smaller one not at all.
    """

    def __init__(
        self,
        iterations: int,
        objectives: Mapping[str, Direction],
        *,
        constraints: Sequence[Constraint] = (),
        grace: float,
        reduction: float,
        tolerance: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        known = ("accuracy", *EARLY)
        self.objectives = {k: d for k, d in objectives.items() if k in known}
        self.objectives.setdefault("accuracy", "max")
        self.constraints = [c for c in constraints if c.metric in EARLY]
        self.reduction, self.tolerance = reduction, tolerance
        self.rungs: list[Rung] = []
        at = max(1.0, grace * iterations)
        while at < iterations:
            self.rungs.append(Rung(math.ceil(at)))
            at *= reduction

    @override
    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Let Tune stop the trial, or go on."""
        if result.get("done") or "accuracy" not in result:
            return str(TrialScheduler.CONTINUE)
        goes_on = self.decide(str(trial.config["id"]), int(result["iteration"]), result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def decide(self, trial: str, iteration: int, metrics: Mapping[str, object]) -> bool:
        """Note a report and tell whether the trial goes on."""
        point = losses(metrics, self.objectives)
        if point is None:
            return True
        violation = max([0.0, *(c.violation(metrics) for c in self.constraints)])
        kept = True
        for rung in self.rungs:
            if rung.iteration <= iteration and trial not in rung.entered:
                rung.enter(trial, point, violation)
                kept = rung.keeps(trial, self.reduction, self._granted(point, len(rung.entered)))
        return kept

    def _granted(self, point: Point, company: int) -> Point:
        """The same with a share of its errors gone; of so many trials at the rung it is one."""
        share = self.tolerance * min(1.0, math.sqrt(MANY / company)) if company >= FEW else 0.0
        return tuple(
            loss - share * (1 + loss) if (name, aim) == ("accuracy", "max") else loss
            for (name, aim), loss in zip(self.objectives.items(), point, strict=True)
        )

    def remember(self, trial: str, reports: Sequence[Mapping[str, object]]) -> None:
        """Enter the reports of a trial of an earlier session, without deciding anything."""
        for report in reports:
            point = losses(report, self.objectives)
            iteration = report.get("iteration")
            if point is None or not isinstance(iteration, int):
                continue
            violation = max([0.0, *(c.violation(report) for c in self.constraints)])
            for rung in self.rungs:
                if rung.iteration <= iteration and trial not in rung.entered:
                    rung.enter(trial, point, violation)
