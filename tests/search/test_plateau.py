"""The plateau rule, against hypervolumes worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from search.constraints import Constraint
from search.plateau import Plateau
from search.recorder import Record

AIMS: Any = {"accuracy": "max"}
BOX = {"reference": {"accuracy": 0.0}, "ideal": {"accuracy": 1.0}}


def record(accuracy: float, state: str = "COMPLETE", **more: float) -> Record:
    return Record(0, {}, state, {"accuracy": accuracy, **more})


def run(values: list[float], trials: int = 3, gain: float = 0.01, **more: Any) -> list[bool]:
    rule = Plateau(trials, gain, AIMS, **{"box": BOX, **more})
    stopped = []
    for value in values:
        rule.finished(record(value))
        stopped.append(bool(rule.stands_still()))
    return stopped


def test_it_stops_when_the_last_trials_gained_too_little() -> None:
    assert run([0.5, 0.5, 0.5, 0.5]) == [False, False, False, True]
    assert run([0.5, 0.5, 0.5, 0.52, 0.52, 0.52, 0.52])[3:] == [False, False, False, True]


def test_the_gain_is_the_growth_of_the_hypervolume() -> None:
    assert run([0.5, 0.5, 0.5, 0.515], gain=0.01)[-1] is False
    assert run([0.5, 0.5, 0.5, 0.515], gain=0.02)[-1] is True


def test_the_sentence_says_how_much_it_grew() -> None:
    rule = Plateau(2, 0.1, AIMS, box=BOX)
    for value in (0.5, 0.5, 0.52):
        rule.finished(record(value))
    assert rule.stands_still() == (
        "the last 2 trials raised the hypervolume by 0.02, less than 0.1 (budget.plateau)"
    )


def test_without_a_kept_box_it_is_that_of_the_trials_so_far() -> None:
    # worst 0.2, moved out by a tenth of 0.3 to 0.17; best possible 1: the gain is 0.1 / 0.83
    values = [0.2, 0.4, 0.2, 0.5]
    assert run(values, trials=2, gain=0.12, box=None)[-1] is False
    assert run(values, trials=2, gain=0.121, box=None)[-1] is True


def test_trials_that_failed_count_and_infeasible_ones_gain_nothing() -> None:
    bound = (Constraint.parse("quality_drop <= 0.01"),)
    rule = Plateau(2, 0.01, AIMS, bound, BOX)
    rule.finished(record(0.5, quality_drop=0.0))
    rule.finished(record(0.9, quality_drop=0.5))
    assert not rule.stands_still()
    rule.finished(record(0.0, "FAIL"))
    assert rule.stands_still()


def test_while_nothing_is_feasible_it_waits() -> None:
    rule = Plateau(2, 0.01, AIMS, (Constraint.parse("quality_drop <= 0.01"),), BOX)
    for _ in range(9):
        rule.finished(record(0.5, quality_drop=0.5))
    assert not rule.stands_still()


def test_another_session_is_given_as_many_trials_again() -> None:
    rule = Plateau(3, 0.01, AIMS, (), BOX, [record(0.5)] * 9)
    for number in range(3):
        assert not rule.stands_still(), number
        rule.finished(record(0.5))
    assert rule.stands_still()


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_the_hypervolume_of_all_trials(seed: int) -> None:
    import numpy as np

    from search.pareto import front, losses
    from search.results import box_of, share_of_box

    aims: Any = {"accuracy": "max", "adapt_ms": "min"}
    generator = np.random.default_rng(seed)
    drawn = [record(float(a), adapt_ms=float(b)) for a, b in generator.random((40, 2))]
    rule = Plateau(5, 0.02, aims)
    for count, one in enumerate(drawn, 1):
        rule.finished(one)
        box = box_of([r.metrics for r in drawn[:count]], aims)
        assert box is not None

        def volume(records: list[Record], box: Any = box) -> float:
            points = [losses(r.metrics, aims) or () for r in records]
            return share_of_box([points[i] for i in front(points)], aims, box)

        if count > 5:
            grown = volume(drawn[:count]) - volume(drawn[: count - 5])
            assert rule._growth() == pytest.approx(grown)
