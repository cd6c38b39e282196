from __future__ import annotations

import random

import pytest

from search.pareto import front, ranks
from search.rungs import Rung, levels


@pytest.mark.parametrize("seed", range(10))
def test_levels_are_the_ranks(seed: int) -> None:
    rng = random.Random(seed)
    points = [tuple(float(rng.randint(0, 6)) for _ in range(3)) for _ in range(60)]
    assert levels(points).tolist() == ranks(points)


def fill(rung: Rung, points: list[tuple[float, float]]) -> list[bool]:
    kept = []
    for i, point in enumerate(points):
        rung.enter(str(i), point, 0.0)
        kept.append(rung.keeps(str(i), 2.0))
    return kept


def drawn(count: int, seed: int = 0) -> list[tuple[float, float]]:
    rng = random.Random(seed)
    return [(rng.random(), rng.random()) for _ in range(count)]


def test_a_rung_holds_no_more_than_its_peers_and_remembers_who_came() -> None:
    rung = Rung(10, peers=40)
    fill(rung, drawn(500))
    assert 20 <= len(rung.points) <= 40
    assert rung.points.keys() == rung.violations.keys()
    assert len(rung.entered) == 500


def test_up_to_its_peers_a_rung_decides_as_if_there_were_no_limit() -> None:
    points = drawn(40)
    assert fill(Rung(10, peers=40), points) == fill(Rung(10, peers=10**6), points)


def test_beyond_its_peers_the_front_goes_on_and_about_as_many_as_before() -> None:
    few = many = 0
    for seed in range(6):
        points = drawn(200, seed)
        kept = fill(Rung(10, peers=60), points)
        assert all(kept[i] for i in front(points))
        few, many = few + sum(kept), many + sum(fill(Rung(10, peers=10**6), points))
    assert few == pytest.approx(many, rel=0.1)


def test_what_was_let_go_is_spread_over_the_sweep() -> None:
    rung = Rung(10, peers=40)
    fill(rung, [(float(i), float(i)) for i in range(41)])  # each is dominated by those before
    assert list(map(int, rung.points)) == [*range(0, 40, 2), 40]
    rung.enter("41", (0.0, 0.0), 0.0)
    rung.enter("42", (0.0, 0.0), 0.0)
    assert list(map(int, rung.points)) == [*range(0, 42, 2), 42]
