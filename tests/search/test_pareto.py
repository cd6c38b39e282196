from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto import crowding, dominates, front, hypervolume, losses, ranks

points = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 3), min_size=1, max_size=25)


def test_losses_turn_the_sign_of_what_is_maximised() -> None:
    assert losses({"a": 1, "b": 2}, {"a": "max", "b": "min"}) == (-1.0, 2.0)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, True, "1"])
def test_losses_refuse_what_is_no_finite_number(bad: object) -> None:
    assert losses({"a": bad}, {"a": "min"}) is None
    assert losses({}, {"a": "min"}) is None


@given(points)
def test_the_front_is_what_nothing_dominates(found: list[tuple[float, ...]]) -> None:
    plain = [i for i, p in enumerate(found) if not any(dominates(q, p) for q in found)]
    assert front(found) == plain


@given(points)
def test_each_rank_is_the_front_of_what_the_ranks_before_leave(
    found: list[tuple[float, ...]],
) -> None:
    rank = ranks(found)
    for level in range(max(rank) + 1):
        left = [i for i in range(len(found)) if rank[i] >= level]
        best = {left[i] for i in front([found[i] for i in left])}
        assert best == {i for i in left if rank[i] == level}


def test_the_ends_of_a_front_are_infinitely_lonely() -> None:
    lonely = crowding([(0.0, 3.0), (1.0, 1.0), (1.1, 0.9), (3.0, 0.0)])
    assert lonely[0] == lonely[3] == math.inf
    assert lonely[1] > 0
    assert crowding([]) == []


@given(points)
def test_hypervolume_counts_the_dominated_cells(found: list[tuple[float, ...]]) -> None:
    """On whole coordinates the volume is a number of unit cells."""
    cells = product(range(7), repeat=3)
    dominated = sum(any(all(p[i] <= cell[i] for i in range(3)) for p in found) for cell in cells)
    assert hypervolume(found, (7.0, 7.0, 7.0)) == pytest.approx(dominated)


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_hypervolume_of_one_point_is_its_box(axes: int) -> None:
    assert hypervolume([(0.5,) * axes], (1.0,) * axes) == pytest.approx(0.5**axes)


def test_points_beyond_the_reference_count_nothing() -> None:
    assert hypervolume([(2.0, 0.0)], (1.0, 1.0)) == 0.0
    assert hypervolume([], (1.0, 1.0)) == 0.0


@pytest.mark.reference
def test_hypervolume_agrees_with_optuna() -> None:
    import numpy as np
    from optuna._hypervolume import compute_hypervolume

    rng = random.Random(0)
    for axes, _ in product((2, 3, 4), range(5)):
        found = [tuple(rng.random() for _ in range(axes)) for _ in range(20)]
        theirs = compute_hypervolume(np.array(found), np.ones(axes))
        assert hypervolume(found, (1.0,) * axes) == pytest.approx(theirs)
