"""Stock asynchronous halving on one metric, as Ray has it; for those who want just that.

It keeps the best of one metric, so that with several objectives the small and fast students go
first; ``pareto`` is the default. Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning".
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from ray.tune.schedulers import AsyncHyperBandScheduler

from search.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ray.tune.experiment import Trial

    from search.config import SweepConfig
    from search.recorder import Record


def asha(config: SweepConfig, ended: Iterable[Record] = ()) -> AsyncHyperBandScheduler:
    """Return Ray's scheduler for a sweep.

    Args:
        config: The sweep, with ``early_stopping.metric``.
        ended: Trials of earlier sessions; their rungs count on.
    """
    early, iterations = config.early_stopping, config.budget.iterations
    mode = config.objectives.get(early.metric) or METRICS[early.metric].better or "max"
    scheduler = AsyncHyperBandScheduler(
        time_attr="iteration",
        metric=early.metric,
        mode=mode,
        max_t=iterations,
        grace_period=min(iterations, math.ceil(max(1.0, early.grace * iterations))),
        reduction_factor=early.reduction,
        stop_last_trials=False,  # a trial that has trained to the end is still to be scored
    )
    (bracket,) = scheduler._brackets  # noqa: SLF001 - no public way to go on with rungs
    sign = 1.0 if mode == "max" else -1.0
    for record in ended:
        trial = cast("Trial", SimpleNamespace(trial_id=f"earlier {record.id}"))
        for report in record.reports:
            if early.metric in report:
                bracket.on_result(trial, report["iteration"], sign * report[early.metric])
    return scheduler
