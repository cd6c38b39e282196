"""The nearest right word, and all problems at once."""

import pytest

from search.errors import Problem, UserError, nearest, raise_problems, suggest


@pytest.mark.parametrize(
    ("word", "options", "right"),
    [
        ("student.widht", ["student.width", "student.depth"], "student.width"),
        ("Inner-Steps", ["inner_steps", "inner_rate"], "inner_steps"),
        ("width", ["teacher.width", "epsilon"], "teacher.width"),
        ("width", ["student.width", "teacher.width"], "student.width"),
        ("temperture", ["distillation.temperature", "epsilon"], "distillation.temperature"),
        ("zzz", ["accuracy"], None),
        ("x", [], None),
    ],
)
def test_nearest(word, options, right):
    assert nearest(word, options) == right


def test_where_nothing_is_near_all_are_listed():
    assert suggest("zzz", ["a", "b"]) == "There are a, b."


def test_no_problem_raises_nothing():
    raise_problems("x.yaml", [])


def test_one_problem_is_one_line():
    with pytest.raises(UserError) as caught:
        raise_problems("x.yaml", [Problem(3, "data.ways", "Must be at least 2; found 1.")])
    assert str(caught.value) == "x.yaml: line 3, data.ways: Must be at least 2; found 1."


def test_problems_come_in_the_order_of_the_file_and_the_options_last():
    with pytest.raises(UserError) as caught:
        raise_problems(
            "x.yaml",
            [
                Problem(0, "seed", "Four.", "--set seed=x"),
                Problem(7, "b", "Three."),
                Problem(2, "a", "Two."),
                Problem(2, "a", "Two."),
                Problem(0, "method", "One."),
            ],
        )
    assert str(caught.value).splitlines() == [
        "x.yaml has 4 errors:",
        "  method: One.",
        "  line 2, a: Two.",
        "  line 7, b: Three.",
        "  --set seed=x: Four.",
    ]
