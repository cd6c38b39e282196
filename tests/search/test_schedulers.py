from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from search._schedulers import FEW, MANY, ParetoHalving
from search.constraints import Constraint
from search.pareto import front, losses

if TYPE_CHECKING:
    from search.metrics import Direction

OBJECTIVES: dict[str, Direction] = {
    "accuracy": "max", "student_params": "min", "adapt_ms": "min",
}  # fmt: skip


def make(iterations: int = 100, **changes: Any) -> ParetoHalving:
    return ParetoHalving(
        iterations, OBJECTIVES, **{"grace": 0.25, "reduction": 2.0, "tolerance": 0.0, **changes}
    )


def test_rungs_start_at_the_grace_and_grow_by_the_reduction() -> None:
    assert [r.iteration for r in make(100).rungs] == [25, 50]
    assert [r.iteration for r in make(100, grace=0.1, reduction=3).rungs] == [10, 30, 90]
    assert [r.iteration for r in make(1).rungs] == []


def test_only_what_is_known_during_training_ranks() -> None:
    assert make().objectives == {"accuracy": "max", "student_params": "min"}
    one: dict[str, Direction] = {"adapt_ms": "min"}
    halving = ParetoHalving(10, one, grace=0.25, reduction=2, tolerance=0)
    assert halving.objectives == {"accuracy": "max"}


def report(accuracy: float, params: float) -> dict[str, float]:
    return {"accuracy": accuracy, "student_params": params}


def test_the_small_fast_student_that_halving_by_accuracy_kills_survives() -> None:
    """Eight large students are more accurate than the small one, which is on the front."""
    by_rank = make()
    by_accuracy = ParetoHalving(100, {"accuracy": "max"}, grace=0.25, reduction=2, tolerance=0)
    large = [(str(i), report(0.80 + 0.01 * i, 60_000 + i)) for i in range(8)]
    for scheduler in (by_rank, by_accuracy):
        for name, values in large:
            scheduler.decide(name, 25, values)
    small = report(0.7, 5_000)
    assert by_rank.decide("small", 25, small)
    assert not by_accuracy.decide("small", 25, small)


def test_what_others_dominate_is_stopped() -> None:
    scheduler = make()
    for i in range(6):
        assert scheduler.decide(str(i), 25, report(0.7 + 0.01 * i, 1000 * (i + 1)))
    assert not scheduler.decide("worse", 25, report(0.5, 9000))


@pytest.mark.parametrize(("tolerance", "kept"), [(0.0, False), (0.1, True)])
def test_who_is_behind_by_a_few_errors_goes_on_where_that_is_tolerated(
    tolerance: float, kept: bool
) -> None:
    """The best makes 53 errors of a hundred; 58 less a tenth are fewer, 70 less a tenth are not."""
    scheduler = make(tolerance=tolerance)
    for i in range(8):
        scheduler.decide(str(i), 25, report(0.40 + 0.01 * i, 1000))
    assert scheduler.decide("slow", 25, report(0.42, 1000)) is kept
    assert not scheduler.decide("far behind", 25, report(0.30, 1000))


def test_a_few_errors_are_less_where_there_are_few() -> None:
    scheduler = make(tolerance=0.1)
    for i in range(8):
        scheduler.decide(str(i), 25, report(0.90 + 0.01 * i, 1000))
    assert scheduler.decide("near", 25, report(0.967, 1000))
    assert not scheduler.decide("as far as the slow one was", 25, report(0.92, 1000))


def test_the_first_few_of_a_rung_are_granted_nothing() -> None:
    """A sweep soon has a result: what is behind is told by one or two others already."""
    scheduler = make(tolerance=0.5)
    for i in range(FEW - 2):
        scheduler.decide(str(i), 25, report(0.5, 1000))
    assert not scheduler.decide("behind", 25, report(0.49, 1000))
    assert scheduler.decide("as far behind, in company", 25, report(0.49, 1000))


@pytest.mark.parametrize(
    ("company", "behind", "kept"),
    [(FEW, 5, True), (FEW, 8, False), (MANY, 5, True), (MANY, 8, False),
     (4 * MANY, 3, True), (4 * MANY, 5, False)],
)  # fmt: skip
def test_in_much_company_less_is_granted(company: int, behind: int, kept: bool) -> None:
    """Up to 20 seven of 55 errors are forgiven, among 80 half of that."""
    scheduler = make(tolerance=7 / 55)
    for i in range(company - 1):
        scheduler.decide(str(i), 25, report(0.5, 1000))
    assert scheduler.decide("behind", 25, report(0.5 - behind / 100, 1000)) is kept


def test_company_is_all_that_came_not_who_is_compared_with() -> None:
    scheduler = make(tolerance=7 / 55)
    scheduler.rungs[0].peers = MANY
    for i in range(4 * MANY):
        scheduler.decide(str(i), 25, report(0.5, 1000))
    assert len(scheduler.rungs[0].points) <= MANY
    assert not scheduler.decide("behind", 25, report(0.45, 1000))


def test_an_accuracy_that_is_to_be_small_is_granted_nothing() -> None:
    scheduler = ParetoHalving(100, {"accuracy": "min"}, grace=0.25, reduction=2, tolerance=0.1)
    for i in range(FEW):
        scheduler.decide(str(i), 25, {"accuracy": 0.40 + 0.01 * i})
    assert not scheduler.decide("worse", 25, {"accuracy": 0.44})


def test_the_grace_is_left_alone() -> None:
    scheduler = make()
    for i in range(6):
        scheduler.decide(str(i), 25, report(0.9, 1000))
    assert scheduler.decide("late", 24, report(0.1, 9000))
    assert not scheduler.decide("late", 25, report(0.1, 9000))


def test_a_known_constraint_comes_before_everything() -> None:
    scheduler = make(constraints=(Constraint.parse("student_params <= 5000"),))
    for i in range(4):
        assert scheduler.decide(str(i), 25, report(0.6 + 0.01 * i, 1000 * (i + 1)))
    assert not scheduler.decide("best but too large", 25, report(0.99, 6000))


def test_where_nothing_is_feasible_the_least_violation_leads() -> None:
    scheduler = make(constraints=(Constraint.parse("student_params <= 100"),))
    for i in range(4):
        scheduler.decide(str(i), 25, report(0.9, 1000 * (i + 1)))
    assert scheduler.decide("nearest", 25, report(0.1, 500))
    assert not scheduler.decide("farthest", 25, report(0.99, 90_000))


def test_constraints_not_known_yet_stop_nobody() -> None:
    scheduler = make(constraints=(Constraint.parse("adapt_ms <= 1"),))
    assert scheduler.constraints == []


@pytest.mark.parametrize("value", [math.nan, None])
def test_a_report_without_a_number_decides_nothing(value: float | None) -> None:
    scheduler = make()
    for i in range(6):
        scheduler.decide(str(i), 25, report(0.9, 1000))
    assert scheduler.decide("odd", 25, {"accuracy": value, "student_params": 1.0})


def test_earlier_sessions_are_remembered() -> None:
    scheduler = make()
    for i in range(6):
        reports: list[Any] = [
            {"iteration": 25, **report(0.9, 1000)},
            {"iteration": 50, "accuracy": None},
        ]
        scheduler.remember(str(i), reports)
    assert not scheduler.decide("new", 25, report(0.1, 9000))


def test_the_first_front_of_all_is_never_stopped_and_much_else_is() -> None:
    """30 seeds of 40 trials: what is on the final front goes on; at least a quarter is saved."""
    stopped = total = 0
    for seed in range(30):
        rng = random.Random(seed)
        scheduler = make()
        reports = [report(rng.random(), float(rng.randint(1, 50))) for _ in range(40)]
        kept = {i for i, r in enumerate(reports) if scheduler.decide(str(i), 25, r)}
        points = [losses(r, {"accuracy": "max", "student_params": "min"}) or () for r in reports]
        assert set(front(points)) <= kept
        stopped += 40 - len(kept)
        total += 40
    assert stopped > total / 4
