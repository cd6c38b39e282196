"""Constraints as people write them, and by how much a trial breaks them."""

import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.constraints import Constraint, contradictions, read_bound
from search.errors import UserError
from search.metrics import USABLE

OPS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
REAL = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from(USABLE), st.sampled_from(sorted(OPS)), st.floats(0.001, 0.999))
def test_written_and_read_back_is_the_same(metric, op, bound):
    constraint = Constraint(metric, op, bound)
    assert Constraint.parse(str(constraint)) == constraint


@given(st.sampled_from(sorted(OPS)), REAL, st.floats(allow_nan=False))
def test_violation_is_positive_exactly_where_the_comparison_fails(op, bound, value):
    constraint = Constraint("adapt_ms", op, bound)
    assert constraint.holds({"adapt_ms": value}) is OPS[op](value, bound)


@pytest.mark.parametrize("metrics", [{}, {"adapt_ms": None}, {"adapt_ms": math.nan}])
def test_a_metric_that_is_missing_breaks_without_limit(metrics):
    assert Constraint.parse("adapt_ms <= 5").violation(metrics) == math.inf


def test_violations_of_different_sizes_are_comparable():
    small = Constraint.parse("student_params <= 60000").violation({"student_params": 90000})
    drop = Constraint.parse("quality_drop <= 0.02").violation({"quality_drop": 0.03})
    assert small == pytest.approx(0.5)
    assert drop == pytest.approx(0.5)
    assert Constraint.parse("quality_drop <= 0").violation({"quality_drop": 0.03}) == 0.03


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("student_params <= 60000", Constraint("student_params", "<=", 60000.0)),
        ("  student_params<=60_000 ", Constraint("student_params", "<=", 60000.0)),
        ("quality_drop <= 1e-2", Constraint("quality_drop", "<=", 0.01)),
        ("quality_drop >= -.5", Constraint("quality_drop", ">=", -0.5)),
        ("accuracy >= 95%", Constraint("accuracy", ">=", 0.95)),
        ("adapt_ms<2.5", Constraint("adapt_ms", "<", 2.5)),
    ],
)
def test_forms_that_are_understood(text, constraint):
    assert Constraint.parse(text) == constraint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("student_parms <= 4", "student_parms is unknown. Did you mean student_params?"),
        ("latency <= 4", "latency is unknown. There are accuracy,"),
        ("student_params 4", "A constraint reads `metric <= number`"),
        ("<= 4", "A constraint reads `metric <= number`"),
        ("", "A constraint reads `metric <= number`"),
        ("student_params == 4", "compares with <=, >=, < or >; `student_params == 4` has =="),
        ("student_params <= many", "must end in a finite number; found `many`"),
        ("student_params <= 1e999", "must end in a finite number; found `1e999`"),
        ("student_params <= nan", "must end in a finite number; found `nan`"),
        ("accuracy >= 95", "`accuracy >= 95` can never hold: accuracy lies in [0, 1]"),
        ("student_params < 0", "can never hold: student_params lies in [0, infinity)"),
        ("accuracy > 1", "`accuracy > 1` can never hold"),
        ("test_accuracy >= 0.9", "measured on test classes, once, after the search"),
        ("pattern <= 3", "pattern is a word, not a number"),
    ],
)
def test_forms_that_are_refused(text, says):
    with pytest.raises(UserError) as caught:
        Constraint.parse(text)
    assert says in str(caught.value)
    assert str(caught.value).endswith((".", "?"))


@given(st.text())
def test_any_text_is_read_or_refused_in_a_sentence(text):
    said, metric = "read.", "accuracy"
    try:
        metric = Constraint.parse(text).metric
    except UserError as error:
        said = str(error)
    assert said.endswith((".", "?"))
    assert metric in USABLE


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["adapt_ms <= 1", "adapt_ms >= 2"], ["`adapt_ms >= 2` and `adapt_ms <= 1` cannot"]),
        (["adapt_ms < 1", "adapt_ms >= 1"], ["`adapt_ms >= 1` and `adapt_ms < 1` cannot"]),
        (["adapt_ms <= 1", "adapt_ms >= 1"], []),
        (["adapt_ms <= 1", "adapt_ms < 1", "adapt_ms >= 1"], ["and `adapt_ms < 1` cannot"]),
        (["adapt_ms >= 1", "adapt_ms > 1", "adapt_ms <= 1"], ["`adapt_ms > 1` and"]),
        (["adapt_ms <= 1", "accuracy >= 0.5"], []),
    ],
)
def test_constraints_that_cannot_hold_together(texts, found):
    said = contradictions([Constraint.parse(text) for text in texts])
    assert len(said) == len(found)
    assert all(part in whole for part, whole in zip(found, said, strict=True))


def test_bounds_of_the_command_line():
    assert read_bound("adapt_ms=2.5") == ("adapt_ms", 2.5)
    for text, says in [
        ("adapt_ms", "A bound reads `metric=number`"),
        ("adapt_m=1", "Did you mean adapt_ms?"),
        ("adapt_ms=fast", "must end in a finite number; found `fast`"),
    ]:
        with pytest.raises(UserError) as caught:
            read_bound(text)
        assert says in str(caught.value)
