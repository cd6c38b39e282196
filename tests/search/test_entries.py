"""Entries of `space`: what people write, and the domains it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.entries import read_entry, samples, write_entry
from spaces._domains import Choice, Fixed, Float, Int, SpaceError, When

WHY = "set in the sweep file"
WORD = st.text(min_size=1, max_size=5)
DOMAINS = (
    st.builds(
        lambda pair, log: Int(*sorted(pair), log=log, why=WHY),
        st.tuples(st.integers(1, 99), st.integers(1, 99)),
        st.booleans(),
    )
    | st.builds(
        lambda pair, log: Float(*sorted(pair), log=log, why=WHY),
        st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)),
        st.booleans(),
    )
    | st.lists(WORD, min_size=1, unique=True).map(lambda w: Choice(tuple(w), why=WHY))
    | (WORD | st.integers() | st.booleans()).map(lambda v: Fixed(v, why=WHY))
)


@given(DOMAINS)
def test_written_and_read_back_is_the_same(domain):
    assert read_entry(write_entry(domain)) == domain


def test_an_entry_keeps_the_stage_and_the_condition_of_the_methods_own():
    own = Float(0, 0.05, why="own", stage="adaptation", when=When("a", (1,)))
    for raw in ({"float": [0, 1]}, {"choice": [0.1, 0.2]}):
        found = read_entry(raw, like=0.01, own=own)
        assert (found.stage, found.when) == ("adaptation", own.when)


def test_a_value_that_is_fixed_has_no_condition():
    own = Float(0, 0.05, why="own", stage="adaptation", when=When("a", (1,)))
    found = read_entry(0.01, like=0.01, own=own)
    assert (found.stage, found.when) == ("adaptation", None)


def test_whole_numbers_serve_as_real_ones_but_not_the_other_way():
    assert read_entry(1, like=0.5) == Fixed(1.0, why=WHY)
    assert read_entry({"float": [0, 1]}, like=0.5) == Float(0.0, 1.0, why=WHY)
    assert read_entry({"choice": [0, 1]}, like=0.5) == Choice((0.0, 1.0), why=WHY)
    assert read_entry(True, like=False) == Fixed(True, why=WHY)


@pytest.mark.parametrize(
    ("raw", "like", "says"),
    [
        ([8, 16], 8, "A list is no domain; write {choice: [8, 16]}."),
        ([1, 2, 3, 4, 5], 8, "write {choice: [1, 2, 3, 4, ...]}."),
        (None, 8, "Found nothing. Write a value to fix it, {int: [8, 64]}"),
        ({}, 8, "Exactly one of int, float and choice must be given; found none of them."),
        ({"log": True}, 8, "Exactly one of int, float and choice must be given"),
        ({"int": [1, 2], "float": [1, 2]}, 8, "found both int and float."),
        ({"itn": [1, 2]}, 8, "Unknown key itn. Did you mean int?"),
        ({"int": [1, 2], "step": 2}, 8, "Unknown key step."),
        ({"int": [1]}, 8, "int needs two bounds, as {int: [low, high]}; found 1 items."),
        ({"int": 5}, 8, "int needs two bounds, as {int: [low, high]}; found 5."),
        ({"int": [1, "x"]}, 8, "A bound must be a number; found the word 'x'."),
        ({"int": [1, True]}, 8, "A bound must be a number; found true."),
        ({"int": [1.5, 2]}, 8, "An int range needs two whole numbers as bounds"),
        ({"int": [9, 2]}, 8, "A range goes from low to high; found [9, 2]."),
        ({"float": [float("nan"), 1]}, 0.5, "two finite numbers as bounds"),
        ({"float": [0, 1], "log": True}, 0.5, "must start above 0"),
        ({"int": [1, 2], "log": 1}, 8, "log must be true or false; found 1."),
        ({"choice": "a"}, "a", "choice needs a list, as {choice: [a, b]}; found the word 'a'."),
        ({"choice": []}, "a", "at least one option"),
        ({"choice": ["a"], "log": True}, "a", "log belongs to a range of numbers"),
        ({"choice": [1]}, "a", "Expected a word; found 1."),
        ({"choice": [None]}, None, "Expected a number, a word or true/false; found nothing."),
        ({"int": [1, 2]}, "a", "takes words, not numbers; write {choice: [a, b]}."),
        ({"int": [1, 2]}, False, "takes true or false, not numbers"),
        ({"int": [1, 2]}, 0.5, "takes real numbers; write {float: [low, high]}."),
        ({"float": [1, 2]}, 5, "takes whole numbers; write {int: [low, high]}."),
        ("x", 5, "Expected a whole number; found the word 'x'."),
        (1.5, 5, "Expected a whole number; found 1.5."),
        ("x", 0.5, "Expected a number; found the word 'x'."),
        (1, False, "Expected true or false; found 1."),
        (True, 1, "Expected a whole number; found true."),
        (float("inf"), 0.5, "must be a finite number"),
    ],
)
def test_entries_that_are_refused(raw, like, says):
    with pytest.raises(SpaceError) as caught:
        read_entry(raw, like=like)
    assert says in str(caught.value)


def test_samples_are_the_corners():
    assert samples(Fixed(3, why=WHY)) == (3,)
    assert samples(Int(1, 9, why=WHY)) == (1, 9)
    assert samples(Choice(("a", "b", "c"), why=WHY)) == ("a", "b", "c")
