"""Trials are compared on the same tasks; equals are tied, and what is not comparable is not."""

import json
import math

import pytest
from rich.console import Console

from search.paired import TASKS_FILE, Tally, compare, difference
from search.results import load_results
from search.rundir import RunDir
from tests import bundles

# accuracy, student_params, adapt_ms: all on the front
POINTS = [(0.90, 9000, 9.0), (0.88, 3000, 6.0), (0.70, 2000, 3.0), (0.69, 1000, 1.0)]
RIGHT = [[9, 10, 8, 9, 9, 9], [9, 10, 8, 8, 9, 8], [7, 8, 6, 7, 7, 7], [7, 8, 6, 7, 7, 7]]


@pytest.fixture
def run(tmp_path):
    place = RunDir.open(bundles.run(tmp_path / "run", POINTS))
    for number, right in enumerate(RIGHT):
        say(place, number, right)
    return place


def say(place, number, right, seed=1, images=10):
    known = {"seed": seed, "images": images, "right": right, "right_full": right}
    (place.trial(number) / TASKS_FILE).write_text(json.dumps(known))


def test_the_interval_is_that_of_the_paired_differences():
    found = difference([0.1, 0.0, 0.2, 0.1])
    assert found.mean == pytest.approx(0.1)
    assert found.ci95 == pytest.approx(1.96 * math.sqrt(0.02 / 3) / 2)
    assert not found.tied


def test_an_identical_pair_is_a_tie_and_a_constant_difference_is_none():
    one, other = Tally(1, 10, (9, 8, 7)), Tally(1, 10, (8, 7, 6))
    same = one.against(one)
    assert same is not None
    assert (same.mean, same.ci95, same.tied) == (0.0, 0.0, True)
    less = other.against(one)
    assert less is not None
    assert less.mean == pytest.approx(-0.1)
    assert not less.tied


def test_pairing_tells_apart_what_intervals_of_their_own_do_not():
    hard = [2, 9, 4, 10, 3, 8, 5, 9]
    one, other = Tally(1, 10, tuple(hard)), Tally(1, 10, (*(n - 1 for n in hard[:-1]), 9))
    found = other.against(one)
    assert found is not None
    assert not found.tied
    assert found.ci95 < 0.1  # each alone: about 0.2


@pytest.mark.parametrize(
    "other", [Tally(2, 10, (9, 8)), Tally(1, 5, (9, 8)), Tally(1, 10, (9,)), None]
)
def test_other_tasks_are_not_compared(other):
    one = Tally(1, 10, (9, 8))
    assert other is None or one.against(other) is None
    assert Tally(1, 10, ()).against(Tally(1, 10, ())) is None


def test_one_task_says_nothing():
    assert difference([0.5]).tied


def test_a_run_names_its_incumbent_the_differences_and_tied_neighbours(run):
    found = load_results(run.path).paired()
    assert found.incumbent == 0
    assert found.tied == ((0, 1), (2, 3))
    assert found.differences[1].tied
    assert not found.differences[2].tied
    assert found.cell(0) == "best"
    assert found.cell(2).startswith("-20.0 ± 0.0")
    assert found.cell(1).endswith("=")


def test_what_is_printed_and_what_is_in_json(run):
    results, console = load_results(run.path), Console(width=160, record=True, quiet=True)
    results.print(console, front_only=True)
    document = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert document["paired"]["incumbent"] == 0
    assert document["paired"]["tied"] == [[0, 1], [2, 3]]
    assert [d["trial"] for d in document["paired"]["differences"]] == [1, 2, 3]
    lines = results.paired().lines()
    assert "against trial 0" in lines[0]
    assert "0 = 1, 2 = 3" in lines[1]


def test_trials_that_kept_no_answers_are_not_compared(run):
    (run.trial(1) / TASKS_FILE).unlink()
    found = load_results(run.path).paired()
    assert set(found.differences) == {2, 3}
    assert found.tied == ((2, 3),)
    (run.trial(0) / TASKS_FILE).unlink()
    assert load_results(run.path).paired().lines() == []
    assert compare(run, [], []).to_json() == {"incumbent": None, "differences": [], "tied": []}
