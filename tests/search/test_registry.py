"""The methods by name; adding one is two files and one word."""

import subprocess
import sys
from pathlib import Path

import pytest

import spaces
import trainables
from search.errors import UserError
from search.registry import METHODS, about, check_settings, defaults, learner, published, space


def modules(package):
    return tuple(sorted(path.stem for path in Path(package.__file__).parent.glob("[!_]*.py")))


def test_names_are_sorted_and_single():
    assert list(METHODS) == sorted(set(METHODS))
    assert len(METHODS) >= 3


def test_a_method_is_two_files_and_one_word():
    assert modules(spaces) == METHODS
    assert modules(trainables) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_each_name_leads_to_a_learner_a_space_and_a_paper(method):
    assert learner(method).__module__ == f"trainables.{method}"
    assert len(space(method)) >= 5
    assert "arXiv" in about(method)
    assert published(method)
    check_settings(method, defaults(method))


@pytest.mark.parametrize("ask", [learner, space, about, published, defaults])
def test_an_unknown_method_names_the_nearest(ask):
    with pytest.raises(UserError, match=r"There is no method 'mmal'\. Did you mean maml\?"):
        ask("mmal")


def test_a_setting_that_is_wrong_is_refused():
    with pytest.raises(ValueError, match=r"student\.widht"):
        check_settings("maml", {"student.widht": 8})


def test_reading_the_spaces_imports_no_framework():
    code = """
import sys
from search.registry import METHODS, about, published, space
assert all(space(name) and about(name) and published(name) for name in METHODS)
print(sorted({"torch", "ray", "optuna", "numpy", "pydantic"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
