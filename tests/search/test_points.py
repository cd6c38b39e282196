"""Points at the limits of a space."""

from search.points import corners
from spaces._domains import Choice, Domain, Fixed, Float, Int, Value, When

SPACE: dict[str, Domain] = {
    "depth": Int(1, 8, why="any"),
    "down": Choice(("stride", "pool"), why="both"),
    "rate": Float(0.1, 1.0, why="any", when=When("down", ("pool",))),
    "order": Fixed("first", why="cheap"),
}
DEFAULTS: dict[str, Value] = {"depth": 4, "down": "stride", "rate": 0.5, "order": "second"}


def test_corners_start_at_the_first_point_and_come_once():
    found = list(corners(SPACE, DEFAULTS))
    assert found[0].settings == {"depth": 4, "down": "stride", "order": "first"}
    assert found[0].moved == {}
    keys = [tuple(corner.settings.items()) for corner in found]
    assert len(set(keys)) == len(keys)


def test_two_limits_meet_and_conditions_hold():
    found = [corner.settings for corner in corners(SPACE, DEFAULTS)]
    assert {"depth": 8, "down": "stride", "order": "first"} in found
    assert {"depth": 8, "down": "pool", "rate": 0.5, "order": "first"} in found
    assert {"depth": 8, "down": "pool", "rate": 1.0, "order": "first"} in found
    assert all(("rate" in settings) == (settings["down"] == "pool") for settings in found)


def test_a_large_space_is_not_tried_pair_by_pair():
    large: dict[str, Domain] = {f"p{n}": Int(0, 9, why="any") for n in range(100)}
    assert len(list(corners(large, {}))) == 1 + 200 + 2


def test_what_sets_a_corner_apart_is_told():
    told = [corner.moved for corner in corners(SPACE, DEFAULTS)]
    assert {"depth": 8} in told
    assert {"depth": 8, "down": "pool", "rate": 0.5} in told
