"""Which parameters an objective hangs on, by Optuna's PED-ANOVA.

Watanabe, Bansal and Hutter 2023, "PED-ANOVA: efficiently quantifying hyperparameter importance in
arbitrary subspaces", in Optuna's form for conditional spaces: how far the values of a parameter
among the best trials are from those among all. The trials come from the run's files, not from its
study, which a driver may be writing, or which may lie in a database with a password.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from search._optuna import distribution_of
from search.pareto import losses
from spaces._domains import Fixed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.metrics import Direction
    from spaces._domains import Space

BEST = 0.1  # the share of trials that counts as the best; Optuna's default
FEWEST_BEST = 5  # trials among the best that Optuna asks for
FEWEST = 2 * FEWEST_BEST  # trials below which nothing is said


def best_share(trials: int) -> float:
    """Return the share of the trials that counts as the best: ``BEST``, five trials at least.

    Example:
        >>> best_share(500), best_share(20)
        (0.1, 0.25)
    """
    return max(BEST, FEWEST_BEST / trials)


def importances(
    space: Space, objectives: Mapping[str, Direction], trials: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return how much each objective hangs on each parameter, in shares that add up to 1.

    Args:
        space: Of the sweep; what it fixes is no parameter.
        objectives: Metric to direction.
        trials: Complete ones as their ``result.json`` has them; those outside the space, as after
            it was narrowed by hand, are left out.

    Returns:
        Objective to parameter to share, the largest first; empty below ``FEWEST`` trials.
    """
    drawn = {name: domain for name, domain in space.items() if not isinstance(domain, Fixed)}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * len(objectives))
    for trial in trials:
        point = losses(trial["metrics"], objectives)
        params = {name: value for name, value in trial["config"].items() if name in drawn}
        if point is None or not all(drawn[n].contains(v) for n, v in params.items()):
            continue
        distributions = {name: distribution_of(drawn[name]) for name in params}
        study.add_trial(
            optuna.trial.create_trial(values=point, params=params, distributions=distributions)
        )
    count = len(study.get_trials(deepcopy=False))
    if count < FEWEST:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best_share(count))
    return {name: _of(study, evaluator, i) for i, name in enumerate(objectives)}


def _of(
    study: optuna.Study, evaluator: PedAnovaImportanceEvaluator, objective: int
) -> dict[str, float]:
    with warnings.catch_warnings():  # that it minimises, which is what was meant
        warnings.simplefilter("ignore")
        found = get_param_importances(
            study, evaluator=evaluator, target=lambda trial: trial.values[objective]
        )
    return {name: float(share) for name, share in found.items()}
