from __future__ import annotations

import pytest

from search.adaptations import SHARE, further_settings, training_key
from spaces._domains import Choice, Domain, Fixed, Float, Int, Space, Value, When

SPACE: Space = {
    "width": Int(4, 32, log=True, why="small"),
    "epsilon": Float(0.0, 0.05, stage="adaptation", why="small"),
    "test.steps": Int(1, 10, stage="adaptation", why="few"),
    "test.rate": Float(0.001, 1.0, log=True, stage="adaptation", why="any"),
    "patterns": Choice(("all", "suffixes"), stage="adaptation", why="both"),
}
OWN: dict[str, Value] = {
    "width": 8,
    "epsilon": 0.01,
    "test.steps": 5,
    "test.rate": 0.1,
    "patterns": "all",
}


def test_they_share_the_training_and_lie_inside() -> None:
    found = further_settings(OWN, SPACE, 8, seed=0)
    assert len(found) == 7
    assert [one["width"] for one in found] == [8] * 7
    assert all(SPACE[name].contains(value) for one in found for name, value in one.items())
    assert len({tuple(one.items()) for one in [OWN, *found]}) == 8
    assert {one["patterns"] for one in found} == {"all", "suffixes"}
    steps = [int(one["test.steps"]) for one in found]
    assert max(steps) - min(steps) >= 5, "spread over the range"


def test_a_few_settings_share_a_rate_and_the_first_of_them_the_drawn_one() -> None:
    rates = [OWN["test.rate"], *(o["test.rate"] for o in further_settings(OWN, SPACE, 8, seed=0))]
    assert rates[:SHARE] == [0.1] * SHARE
    assert len(set(rates)) == 8 // SHARE


def test_they_follow_from_the_seed_and_the_training_alone() -> None:
    found = further_settings(OWN, SPACE, 8, seed=0)
    assert further_settings({name: OWN[name] for name in reversed(OWN)}, SPACE, 8, seed=0) == [
        {name: one[name] for name in reversed(OWN)} for one in found
    ]
    assert further_settings(OWN, SPACE, 8, seed=1) != found
    other = further_settings({**OWN, "width": 9}, SPACE, 8, seed=0)
    assert [one["epsilon"] for one in other] != [one["epsilon"] for one in found]


def test_the_key_of_a_training_leaves_adaptation_aside() -> None:
    key = training_key(OWN, SPACE)
    assert training_key({**OWN, "epsilon": 0.02, "test.steps": 1}, SPACE) == key
    assert training_key({**OWN, "width": 9}, SPACE) != key


@pytest.mark.parametrize("count", [1, 2, 5])
def test_there_are_as_many_as_asked_for_with_the_drawn_one(count: int) -> None:
    assert len(further_settings(OWN, SPACE, count, seed=3)) == count - 1


def test_what_is_fixed_or_not_drawn_stays() -> None:
    space: dict[str, Domain] = {
        "kind": Fixed("none", why="fixed"),
        "epsilon": Fixed(0.01, stage="adaptation", why="fixed"),
        "test.steps": Int(1, 3, stage="adaptation", why="few", when=When("kind", ("wide",))),
    }
    assert further_settings({"kind": "none", "epsilon": 0.01}, space, 8, seed=0) == []
    space["patterns"] = Choice(("all", "suffixes"), stage="adaptation", why="both")
    own: dict[str, Value] = {"kind": "none", "epsilon": 0.01, "patterns": "all"}
    assert further_settings(own, space, 8, seed=0) == [{**own, "patterns": "suffixes"}]
