"""One configuration, in this process, without Ray: for debugging and for repeating a trial.

The same learner, seed, threads and numbers of tasks as in a sweep, so the same metrics, times
aside.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from search import registry
from search.errors import FailedError
from search.metrics import named, normalisation_of
from search.outlets import echo
from search.points import first_point
from search.preflight import check_gpu, check_network, load_data
from search.progress import duration, show
from search.session import run_settings
from trainables._core.lease import node
from trainables._learner import DivergedError, TaskShape

if TYPE_CHECKING:
    from pathlib import Path

    from search.config import SweepConfig
    from spaces._domains import Value
    from trainables._learner import Learner


def train(config: SweepConfig, *, out: Path | None = None) -> dict[str, Any]:
    """Train one configuration and score it.

    Args:
        config: What its space fixes is taken; what it leaves open has the method's default,
            brought into the space.
        out: Where to write the student; None: it is not kept.

    Returns:
        The metrics, as a trial of a sweep has them.

    Raises:
        DataError: The data is missing, or cannot fill the tasks.
        ConfigError: A parameter is unknown or has an impossible value.
        UserError: The network does not fit the images, or there is no GPU where one is asked for.
        FailedError: Training diverged.
    """
    check_gpu(config)
    settings = configuration(config)
    data, run = load_data(config), run_settings(config)
    check_network(config, settings, data)
    waited = node().waited_s
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
    learner = registry.learner(config.method)(settings, data, shape, run)
    mode = normalisation_of({}, settings)
    _train(learner, run.iterations, config.evaluation.reports, mode)
    outcome = learner.finish()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        outcome.student.save(out)
    return {**outcome.metrics, "lease_s": node().waited_s - waited}


def configuration(config: SweepConfig) -> dict[str, Value]:
    """Return the one configuration that a sweep file means when it is trained alone."""
    return first_point(config.resolved_space(), registry.defaults(config.method))


def _train(learner: Learner, iterations: int, reports: int, mode: str) -> None:
    began, every = time.monotonic(), max(1, iterations // reports)
    for done in range(1, iterations + 1):
        loss = _loss(learner, done, iterations)
        if done % every == 0:
            quick = learner.validate()
            words = ", ".join(f"{named(n, mode)} {show(n, v)}" for n, v in quick.items())
            took = duration(time.monotonic() - began)
            echo(f"{done}/{iterations}: loss {loss:.3f}, {words} ({took})", to_stderr=True)


def _loss(learner: Learner, done: int, iterations: int) -> float:
    """Take one step; what a sweep records as diverged ends training here."""
    try:
        loss = learner.step()["loss"]
        why = "" if math.isfinite(loss) else f"the loss became {loss}"
    except DivergedError as error:
        loss, why = math.nan, str(error)
    if why:
        raise FailedError(
            f"Training diverged at meta-iteration {done} of {iterations}: {why}. Lower the "
            "learning rates (inner_rate, outer_rate)."
        )
    return loss
