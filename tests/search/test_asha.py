"""Ray's own halving on one metric, as a sweep file asks for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search._asha import asha
from search.config import SweepConfig
from search.recorder import Record

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def config(**early: Any) -> SweepConfig:
    return SweepConfig(
        method="maml",
        budget={"iterations": 100},  # type: ignore[arg-type]  # pydantic reads it
        early_stopping={"by": "asha", "grace": 0.2, "reduction": 2.0, **early},  # type: ignore[arg-type]
    )


def report(scheduler: Any, name: str, at: int, **metrics: float) -> str:
    trial = SimpleNamespace(trial_id=name)
    if name not in scheduler._trial_info:
        scheduler.on_trial_add(None, trial)
    return str(scheduler.on_trial_result(None, trial, {"iteration": at, **metrics}))


def test_the_worse_half_of_a_rung_stops() -> None:
    scheduler = asha(config())
    assert report(scheduler, "a", 20, accuracy=0.8) == CONTINUE
    assert report(scheduler, "b", 20, accuracy=0.9) == CONTINUE
    assert report(scheduler, "c", 10, accuracy=0.1) == CONTINUE, "it has its grace"
    assert report(scheduler, "c", 20, accuracy=0.7) == STOP


def test_a_cheap_metric_is_minimised() -> None:
    scheduler = asha(config(metric="student_params"))
    assert report(scheduler, "a", 20, student_params=100.0) == CONTINUE
    assert report(scheduler, "b", 20, student_params=200.0) == STOP


def test_what_has_no_such_metric_goes_on_and_so_does_the_last_iteration() -> None:
    scheduler = asha(config())
    assert report(scheduler, "a", 20, loss=0.8) == CONTINUE
    assert report(scheduler, "a", 100, accuracy=0.8) == CONTINUE, "it is still to be scored"


def test_rungs_of_earlier_sessions_count_on() -> None:
    reports = [{"iteration": 10, "accuracy": 0.1}, {"iteration": 20, "accuracy": 0.9}]
    scheduler = asha(config(), [Record(0, {}, "COMPLETE", reports=reports)])
    assert report(scheduler, "new", 20, accuracy=0.5) == STOP
    assert report(asha(config()), "new", 20, accuracy=0.5) == CONTINUE


@pytest.mark.parametrize("metric", ["adapt_ms", "test_accuracy", "speed"])
def test_a_metric_that_training_does_not_tell_is_refused(metric: str) -> None:
    with pytest.raises(ValueError, match="metric"):
        config(metric=metric)
