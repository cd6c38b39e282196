"""The vocabulary of a space: what a domain holds, and which ones contradict themselves."""

import math
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces._domains import (
    Choice,
    Fixed,
    Float,
    Int,
    SpaceError,
    When,
    active,
    check_space,
    spell,
)

WHY = "for the test"
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.tuples(st.integers(), st.integers()).map(sorted), st.integers())
def test_int_holds_exactly_what_lies_between_its_bounds(bounds, value):
    low, high = bounds
    domain = Int(low, high, why=WHY)
    assert domain.contains(low)
    assert domain.contains(high)
    assert domain.contains(value) is (low <= value <= high)


@given(st.tuples(FINITE, FINITE).map(sorted), FINITE)
def test_float_holds_exactly_what_lies_between_its_bounds(bounds, value):
    low, high = bounds
    domain = Float(low, high, why=WHY)
    assert domain.contains(low)
    assert domain.contains(high)
    assert domain.contains(value) is (low <= value <= high)


@pytest.mark.parametrize(
    ("domain", "strangers"),
    [
        (Int(0, 4, why=WHY), [True, 1.0, "1", None, math.nan]),
        (Float(0, 4, why=WHY), [True, "1", None, math.nan, math.inf]),
        (Choice((0, 1), why=WHY), [True, False, "0", None]),
        (Choice((True, False), why=WHY), [1, 0, "true"]),
        (Fixed(1, why=WHY), [True, "1", 2]),
    ],
)
def test_a_value_of_another_kind_is_outside(domain, strangers):
    assert [value for value in strangers if domain.contains(value)] == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Int(4, 1, why=WHY), "from low to high; found [4, 1]. Swap the bounds"),
        (lambda: Float(1.0, 0.5, why=WHY), "from low to high; found [1, 0.5]"),
        (
            lambda: Int(cast("int", 1.5), 2, why=WHY),
            "whole numbers as bounds; found [1.5, 2]. Use float",
        ),
        (lambda: Int(True, 2, why=WHY), "whole numbers as bounds; found [true, 2]"),
        (lambda: Float(0, math.inf, why=WHY), "two finite numbers as bounds; found [0, inf]"),
        (lambda: Float(math.nan, 1, why=WHY), "two finite numbers as bounds; found [nan, 1]"),
        (lambda: Float(0, 1, log=True, why=WHY), "must start above 0; found 0"),
        (lambda: Int(0, 8, log=True, why=WHY), "must start at 1 or above; found 0"),
        (lambda: Choice((), why=WHY), "at least one option; found none"),
        (lambda: Choice(("a", "a"), why=WHY), "must not repeat an option; found [a, a]"),
        (lambda: Choice(("a", 1), why=WHY), "all words, all numbers or all true/false"),
        (lambda: Choice((1, True), why=WHY), "all words, all numbers or all true/false"),
        (lambda: Choice((math.nan, 1.0), why=WHY), "a finite number, a word or true/false"),
        (lambda: Fixed(math.inf, why=WHY), "a finite number, a word or true/false; found inf"),
        (
            lambda: Fixed(cast("str", None), why=WHY),
            "a finite number, a word or true/false; found None",
        ),
        (lambda: Int(1, 2, why=" "), "must say why it has these bounds"),
    ],
)
def test_a_domain_that_contradicts_itself_is_refused_in_a_sentence(make, says):
    with pytest.raises(SpaceError) as caught:
        make()
    assert says in str(caught.value)
    assert str(caught.value).endswith(".")


def test_equal_bounds_are_a_range_of_one():
    assert Int(3, 3, why=WHY).contains(3)
    assert Float(0.5, 0.5, why=WHY).contains(0.5)


def test_a_condition_on_an_undrawn_parameter_switches_its_followers_off():
    temperature = Float(1, 8, why=WHY, when=When("loss", ("kl",)))
    assert active(temperature, {"loss": "kl"})
    assert not active(temperature, {"loss": "none"})
    assert not active(temperature, {})
    assert active(Int(1, 2, why=WHY), {})


def test_a_condition_does_not_take_one_for_true():
    domain = Int(1, 2, why=WHY, when=When("outer", (True,)))
    assert active(domain, {"outer": True})
    assert not active(domain, {"outer": 1})


def test_a_condition_must_name_an_earlier_parameter():
    late = {"a": Int(1, 2, why=WHY, when=When("b", (1,))), "b": Int(1, 2, why=WHY)}
    with pytest.raises(SpaceError, match="a depends on b, which must stand before it"):
        check_space(late)
    check_space(dict(reversed(late.items())))


def test_words_for_people():
    assert Int(8, 64, log=True, why=WHY).text() == "int [8, 64] log"
    assert Float(1e-5, 1, why=WHY).text() == "float [1e-05, 1]"
    assert Choice((False, True), why=WHY).text() == "false | true"
    assert Fixed("", why=WHY).text() == '= ""'
    assert When("loss", ("kl", "relational")).text() == "loss is kl or relational"
    assert spell(0.1) == "0.1"
