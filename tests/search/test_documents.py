"""YAML with places: lines, equal keys, numbers, and texts that are no sweep file."""

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from search import documents
from search.documents import Document, dotted, dump, kind, read_mapping, read_value
from search.errors import UserError

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NESTED = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner), max_leaves=8
)


@given(st.dictionaries(st.text(min_size=1), NESTED), st.sampled_from([None, True, False]))
@example({"0e0": ["0E0", "-1e5", 1e-5, "1e"]}, None)  # words that read as numbers of YAML 1.2
@example({"\x85": ["a\u2028b", "\u2029"]}, None)
def test_reads_what_it_writes(values, flow):
    assert read_mapping(dump(values, flow=flow), "x").values == values


@given(st.dictionaries(st.text(min_size=1), NESTED))
def test_reads_what_yaml_writes(values):
    """But for words that are numbers in YAML 1.2, which PyYAML leaves bare."""
    text = yaml.safe_dump(values)
    assume(yaml.dump(values, Dumper=documents._Dumper) == text)
    assert read_mapping(text, "x").values == values


def test_every_key_and_item_knows_its_line():
    document = read_mapping("a: 1\nb:\n  c: 2\n  d:\n  - x\n  - y\n", "x")
    assert document.lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "d"): 4,
        ("b", "d", 0): 5,
        ("b", "d", 1): 6,
    }
    assert document.problem(("b", "d", 1, "deep"), "no").line == 6
    assert document.problem(("unheard of",), "no").line == 0


def test_numbers_are_those_of_yaml_1_2():
    values = read_mapping("a: 1e-3\nb: [1E5, -2e+1, 1.5e3]\nc: e5\nd: 1_000\n", "x").values
    assert values == {"a": 0.001, "b": [1e5, -20.0, 1500.0], "c": "e5", "d": 1000}


def test_equal_keys_are_reported_with_both_lines():
    document = read_mapping("a: 1\nb: {c: 1, c: 2}\na: 3\n", "x")
    assert [problem.text() for problem in document.problems] == [
        "line 2, b.c: This key stands twice, first in line 2. Keep one.",
        "line 3, a: This key stands twice, first in line 1. Keep one.",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "line 1, column 6: This is not YAML"),
        ("a: b: c", "line 1, column 5: This is not YAML: mapping values are not allowed here."),
        ("\ta: 1", "line 1, column 1: This is not YAML"),
        ("- 1\n- 2\n", "must be a mapping of keys to values, as `method: maml`; found a list."),
        ("maml", "must be a mapping of keys to values, as `method: maml`; found the word 'maml'."),
        ("a: 1\n---\nb: 2\n", "This is not YAML: expected a single document"),
        ("a: !!python/object:os.system {}", "This is not YAML: the tag"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: &x [*x]", "an alias holds itself"),
        ("[" * 5000, "it is nested without end"),
        ("a: *nowhere", "found undefined alias"),
        ("a: \x00", "This is not YAML"),
    ],
)
def test_texts_that_are_no_sweep_file(text, says):
    with pytest.raises(UserError) as caught:
        read_mapping(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_of_aliases_do_not_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match="far larger than a sweep file"):
        read_mapping("\n".join(lines), "x")


@given(st.text())
def test_any_text_is_read_or_refused(text):
    said, values = "x: read", {}
    try:
        values = read_mapping(text, "x").values
    except UserError as error:
        said = str(error)
    assert said.startswith("x: ")
    assert isinstance(values, dict)


def test_an_empty_file_is_an_empty_mapping():
    assert read_mapping("", "x").values == {}
    assert read_mapping("# only words\n", "x").values == {}


def test_keys_that_are_no_words():
    document = read_mapping("? [1, 2]\n: 3\n", "x")
    assert document.problems[0].sentence == "A key must be a word; found a list."


def test_values_yaml_makes_into_something_else_stay_words():
    values = read_mapping("a: 2001-12-14\nb: 2001-99-99\n", "x").values
    assert values == {"a": "2001-12-14", "b": "2001-99-99"}


def test_values_of_the_command_line():
    assert read_value("16") == 16
    assert read_value("1e-3") == 0.001
    assert read_value("{int: [8, 64], log: true}") == {"int": [8, 64], "log": True}
    assert read_value("omniglot") == "omniglot"
    assert read_value("") is None
    with pytest.raises(ValueError, match="expected ',' or ']'"):
        read_value("[1")
    with pytest.raises(ValueError, match="stands twice"):
        read_value("{a: 1, a: 2}")


def test_places_and_kinds_in_words():
    assert dotted(("space", "student.width")) == "space.student.width"
    assert dotted(("constraints", 1)) == "constraints[1]"
    assert kind({}) == "a mapping"
    assert kind("") == "an empty word"
    assert Document({}).problem((), "It is so.").text() == "It is so."
