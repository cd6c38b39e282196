"""What a run cost, and what early stopping saved."""

from __future__ import annotations

from typing import Any

import pytest

from search.spending import saved_s, spending


def trial(state: str = "COMPLETE", cost_s: float = 3600.0, **more: Any) -> dict[str, Any]:
    return {"state": state, "cost_s": cost_s, "stopped": "", "reports": [], **more}


STOPPED = trial(
    "PRUNED", 900.0, stopped="stopped early at meta-iteration 25: others were better",
    reports=[{"iteration": 10}, {"iteration": 25}],
)  # fmt: skip


def test_a_stopped_trial_saved_the_rest_at_its_own_pace() -> None:
    assert saved_s(STOPPED, 100) == 2700.0
    assert saved_s({**STOPPED, "state": "COMPLETE"}, 100) is None
    assert saved_s({**STOPPED, "stopped": "the wall-clock budget is used up"}, 100) is None
    assert saved_s({**STOPPED, "reports": []}, 100) is None


def test_the_compute_is_added_up_in_what_a_trial_holds() -> None:
    trials = [trial(), STOPPED, trial("REFUSED", 0.0), trial("FAIL", 900.0)]
    found = spending(trials, iterations=100, cpu=2.0, gpu=0.5, hypervolume=0.6)
    assert (found.trial_hours, found.cpu_hours, found.gpu_hours) == (1.5, 3.0, 0.75)
    assert found.hypervolume_per_hour == pytest.approx(0.8)
    assert (found.saved_hours, found.stopped, found.refused) == (0.75, 1, 1)
    cost, saved = found.lines()
    assert cost == "cost: 0.75 GPU-hours; hypervolume 0.8 per GPU-hour"
    assert saved.startswith("early stopping saved about 33 % of the trial time without it (0.75 h;")
    assert "an estimate from each stopped trial's own pace" in saved


def test_on_cpus_the_hour_is_a_cpu_hour() -> None:
    found = spending([trial()], iterations=10, cpu=2.0, gpu=0.0, hypervolume=0.5)
    assert found.lines() == ["cost: 2 CPU-hours; hypervolume 0.25 per CPU-hour"]


def test_a_run_without_trials_says_nothing() -> None:
    found = spending([], iterations=10, cpu=1.0, gpu=0.0, hypervolume=None)
    assert found.hypervolume_per_hour is None
    assert found.lines() == []
