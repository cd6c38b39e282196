from __future__ import annotations

import random
from dataclasses import dataclass, field

from search.pareto import front
from search.window import Window


@dataclass
class Trial:
    number: int
    constraints: dict[str, float] = field(default_factory=dict)


def numbers(found: list[Trial]) -> list[int]:
    return [trial.number for trial in found]


def test_up_to_the_limit_nothing_is_left_out() -> None:
    trials = [Trial(n) for n in range(10)]
    assert numbers(Window[Trial](10).look(trials, {0: (1.0, 1.0)})) == list(range(10))


def test_beyond_it_the_feasible_front_and_the_newest_are_seen() -> None:
    trials = [Trial(n) for n in range(12)]
    trials[1].constraints = {"small": 0.5}
    points = {n: (float(n), float(n)) for n in range(12)}
    points |= {0: (-1.0, 5.0), 1: (-9.0, -9.0), 2: (5.0, -1.0), 3: (5.0, 5.0)}
    assert numbers(Window[Trial](6).look(trials, points)) == [0, 2, 4, 9, 10, 11]


def test_of_a_large_front_the_loneliest_half_of_the_window() -> None:
    trials = [Trial(n) for n in range(20)]
    points = {n: (float(n**2), -float(n**2)) for n in range(20)}
    found = numbers(Window[Trial](8).look(trials, points))
    assert len(found) == 8
    assert {0, 19} <= set(found)


def test_looking_on_the_way_or_once_at_the_end_is_the_same() -> None:
    rng = random.Random(0)
    trials = [Trial(n) for n in range(60)]
    points = {n: (rng.random(), rng.random(), rng.random()) for n in range(60)}
    window, found = Window[Trial](30), list[Trial]()
    for count in range(1, 61):
        new = {n: points[n] for n in range(count) if window.new(n)}
        found = window.look(trials[:count], new)
    once = Window[Trial](30).look(trials, points)
    assert numbers(found) == numbers(once)
    best = front([points[n] for n in range(60)])
    assert len(best) > 15 or set(best) <= set(numbers(once))
