"""The simulated clock against what can be worked out by hand."""

from typing import Any

import pytest

from benchmarks.simulated_search import reached, rows_of_arms
from benchmarks.simulator import (
    Entry,
    Goal,
    Job,
    Lap,
    Moment,
    Reached,
    Setting,
    Table,
    compute_to,
    simulate,
    simulate_for,
)
from search.constraints import Constraint
from spaces._domains import Choice, Float, Int

OBJECTIVES: Any = {"accuracy": "max", "student_params": "min"}
UNIT = {
    "reference": {"accuracy": 0.0, "student_params": 100.0},
    "ideal": {"accuracy": 1.0, "student_params": 0.0},
}


def entry(accuracy, params, seconds=1.0, score_s=2.0):
    laps = tuple(Lap(seconds, i, {"accuracy": accuracy}) for i in (10, 20))
    tables = {"01": [accuracy - 0.1, accuracy - 0.02], "11": [accuracy - 0.01, accuracy]}
    macs = {"01": [10, 20], "11": [100, 200]}
    return Entry({"rate": accuracy}, {"student_params": params}, laps, score_s, tables, macs)


class InTurn:
    """Hands out every run of a table once; stops those it is told to at their first lap."""

    def __init__(self, entries, stopped=()):
        self.left, self.stopped, self.heard = list(enumerate(entries)), stopped, []

    def next(self):
        return Job(*self.left.pop(0)) if self.left else None

    def report(self, job, lap):
        self.heard.append((job.number, lap.iteration))
        return job.number not in self.stopped

    def finish(self, job):
        return [job.entry.answer(Setting(0.0, 2))]


@pytest.mark.parametrize(
    ("epsilon", "steps", "pattern", "step"),
    [(0.0, 2, "11", 2), (0.01, 2, "11", 1), (0.02, 2, "01", 2), (0.1, 1, "01", 1), (0, 1, "11", 1)],
)
def test_the_cheapest_within_epsilon_answers(epsilon, steps, pattern, step):
    found = entry(0.9, 50).answer(Setting(epsilon, steps))
    assert (found["pattern"], found["inner_steps"]) == (pattern, step)
    full = 0.9 if steps == 2 else 0.89
    assert found["quality_drop"] == pytest.approx(full - found["accuracy"])
    assert found["student_params"] == 50


def test_what_was_recorded_is_what_is_simulated():
    raw: dict[str, Any] = {
        "config": {"rate": 1.0}, "student_params": 5.0, "setup_s": 3.0, "score_s": 4.0,
        "curve": [
            {"iteration": 5, "accuracy": 0.5, "train_s": 1.0, "quick_s": 0.5},
            {"iteration": 9, "accuracy": 0.6, "train_s": 2.0, "quick_s": 0.25},
        ],
        "accuracies": {"1": [0.7]}, "adapt_macs": {"1": [9]},
    }  # fmt: skip
    read = Entry.of(raw)
    assert [lap.seconds for lap in read.laps] == [4.5, 2.25]
    assert read.seconds == 10.75
    rest = {k: v for k, v in raw.items() if k not in ("accuracies", "adapt_macs", "score_s")}
    sick = Entry.of({**rest, "curve": [], "spent_s": 6.0})
    assert (sick.seconds, sick.answer(Setting(0.0, 1))) == (9.0, None)


def test_the_nearest_untried_run_by_places_in_the_ranges():
    space: dict[str, Any] = {
        "rate": Float(0.01, 1.0, log=True, why="."),
        "width": Int(1, 11, why="."),
        "head": Choice(("a", "b"), why="."),
    }
    configs: list[dict[str, Any]] = [
        {"rate": 0.1, "width": 1, "head": "a"},
        {"rate": 0.01, "width": 1, "head": "a"},
        {"rate": 0.1, "width": 5, "head": "a"},
        {"rate": 0.1, "width": 1, "head": "b"},
    ]
    table = Table(space, tuple(Entry(c, {}, (), 0.0, {}, {}) for c in configs))
    wanted: dict[str, Any] = {"rate": 0.1, "width": 2, "head": "a"}
    tried: list[int] = []
    while (found := table.nearest(wanted, tried)) is not None:
        tried.append(found)  # distances: 0.1, 0.51, 0.3 and 1.005
    assert tried == [0, 2, 1, 3]


def test_compute_is_the_seconds_of_all_workers_together():
    entries = [entry(0.5, 50), entry(0.8, 80, seconds=5.0)]
    goal = Goal(OBJECTIVES, (), UNIT, whole=1.0)
    about: Any = pytest.approx(0.31)
    one = simulate(InTurn(entries), goal, workers=1)
    assert one == [Moment(0, 0), Moment(4.0, 0.25), Moment(16.0, about)]
    two = simulate(InTurn(entries), goal, workers=2)
    assert two == [Moment(0, 0), Moment(4.0, 0.25), Moment(16.0, about)]
    assert compute_to(one, 0.25) == 4.0
    assert compute_to(one, 0.3) == 16.0
    assert compute_to(one, 0.4) is None


def test_what_runs_beside_the_deciding_run_is_paid_for():
    entries = [entry(0.9, 10, seconds=3.0), entry(0.5, 50, seconds=1.0, score_s=9.0)]
    goal = Goal(OBJECTIVES, (), UNIT, whole=0.81)
    trace = simulate(InTurn(entries), goal, workers=2, until=1.0)
    assert trace[-1].share == pytest.approx(1.0)
    assert trace[-1].seconds == 10.0  # 3 + 3 + 2, and two laps of the other


def test_a_stopped_run_costs_its_laps_and_answers_nothing():
    search = InTurn([entry(0.9, 10), entry(0.5, 50)], stopped=(0,))
    trace = simulate(search, Goal(OBJECTIVES, (), UNIT, whole=1.0), workers=1)
    assert trace == [Moment(0, 0), Moment(1.0, 0.0), Moment(5.0, 0.25)]
    assert search.heard == [(0, 10), (1, 10), (1, 20)]


def test_only_what_is_feasible_counts():
    small = Constraint.parse("student_params <= 60")
    reached = Reached(Goal(OBJECTIVES, (small,), UNIT))
    reached.add({"accuracy": 0.9, "student_params": 70})
    assert reached.volume == 0.0
    reached.add({"accuracy": 0.5, "student_params": 50})
    reached.add({"accuracy": 0.4, "student_params": 50})
    assert (reached.volume, len(reached.front)) == (0.25, 1)


def test_the_whole_table_is_the_goal():
    table = Table({}, (entry(0.9, 50), entry(0.8, 10)))
    goal = Goal.of(table, [Setting(0.0, 2), Setting(0.1, 1)], OBJECTIVES, ())
    trace = simulate(InTurn(table.entries), goal, workers=1)
    assert trace[-1].share == pytest.approx(1.0)
    assert 0 < goal.whole < 1


def test_several_goals_see_what_each_would_see_alone():
    table = Table({}, (entry(0.7, 40), entry(0.9, 50), entry(0.8, 10), entry(0.95, 500)))
    small, settings = Constraint.parse("student_params <= 60"), [Setting(0.0, 2)]
    goals = [
        Goal.of(table, settings, OBJECTIVES, (small,), within=within)
        for within in ("everything", "front")
    ]
    both = simulate_for(goals, InTurn(table.entries), workers=2)
    for goal, trace in zip(goals, both, strict=True):
        assert trace == simulate(InTurn(table.entries), goal, workers=2)
    assert both[0] != both[1]
    early = simulate_for(goals, InTurn(table.entries), workers=1, until=0.5)
    assert min(trace[-1].share for trace in early) >= 0.5 > min(t[-2].share for t in early)


def test_a_box_is_drawn_around_what_is_asked_for():
    table = Table({}, (entry(0.9, 50), entry(0.8, 10), entry(0.7, 40), entry(0.95, 500)))
    small, settings = Constraint.parse("student_params <= 60"), [Setting(0.0, 2)]
    wide, held, near = (
        Goal.of(table, settings, OBJECTIVES, (small,), within=within)
        for within in ("everything", "feasible", "front")
    )
    assert wide.box["reference"]["student_params"] > 500
    assert held.box["reference"] == pytest.approx({"accuracy": 0.68, "student_params": 54})
    assert near.box["reference"] == pytest.approx({"accuracy": 0.79, "student_params": 54})
    shares = []
    for goal in (wide, held, near):
        reached = Reached(goal)
        reached.add({"accuracy": 0.8, "student_params": 10})
        shares.append(reached.volume / goal.whole)
    assert shares == pytest.approx([0.5745, 0.9296, 0.5238], abs=1e-4)


def test_a_search_that_never_got_there_is_charged_with_what_it_might_still_train():
    there, never = [Moment(0.0, 0.0), Moment(5.0, 0.9)], [Moment(0.0, 0.0), Moment(7.0, 0.8)]
    assert reached([there, never], 0.9) == [5.0, 7.0]
    assert reached([there, never], 0.9, 100.0) == [5.0, 107.0]
    ours, others = [there, there, never], [never, never, there]
    rows = rows_of_arms({"ours": ours, "random": others}, 1.0, 100.0, "x_")
    (row,) = (row for row in rows if row.floor is not None)
    assert row.id == "x_compute_to_90_percent"
    assert row.value == pytest.approx(5 / 7)
    assert "ours in 1, random in 2 of 3" in row.detail
