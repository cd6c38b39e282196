"""Tables of what there is: the same facts in JSON and on a narrow terminal."""

import io

import pytest
from rich.console import Console

from search.listing import (
    method_rows,
    print_methods,
    print_metrics,
    print_sources,
    print_space,
    source_rows,
    space_document,
)
from search.registry import METHODS, defaults, space


def printed(show, *words, width=80):
    console = Console(file=io.StringIO(), width=width)
    show(*words, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_methods_are_listed_with_their_papers():
    rows = method_rows()
    assert tuple(row["method"] for row in rows) == METHODS
    assert all("arXiv" in row["about"] and row["published"] for row in rows)
    shown = printed(print_methods)
    assert all(name in shown for name in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_space_document_tells_every_setting_once(method):
    document = space_document(method)
    names = [row["parameter"] for part in ("searched", "settable") for row in document[part]]
    assert sorted(names) == sorted(defaults(method))
    shown = printed(print_space, document)
    for name, domain in space(method).items():
        assert f"{name} " in shown
        assert domain.text() in shown
        assert domain.why.split()[0] in shown


def test_what_is_not_searched_says_what_is_allowed_and_what_it_does():
    document = space_document("meta_distillation")
    rows = {row["parameter"]: row for row in document["settable"]}
    assert rows["order"]["allowed"] == "second | first"
    assert rows["meta_batch"] == {
        "parameter": "meta_batch",
        "default": 8,
        "allowed": "1 to 1024",
        "about": "B, tasks of one meta-iteration.",
    }
    assert "second | first" in printed(print_space, document, width=160)


def test_conditions_are_shown_in_words():
    shown = printed(print_space, space_document("meta_distillation"), width=200)
    assert "if distillation.loss is kl or relational" in shown
    assert "if teacher.kind is conv4" in shown


def test_a_source_that_is_missing_says_what_to_do(monkeypatch):
    monkeypatch.delenv("FEWTUNE_DATA", raising=False)
    rows = {row["source"]: row for row in source_rows()}
    assert rows["glyphs"]["ready"]
    assert not rows["omniglot"]["ready"]
    assert "FEWTUNE_DATA" in rows["omniglot"]["missing"]
    assert "FEWTUNE_DATA" in printed(print_sources, list(rows.values()))


def test_brackets_in_a_message_are_not_taken_for_style():
    rows = [{"source": "s", "about": "[bold]x[/bold]", "ready": False, "missing": "[/oops]"}]
    shown = printed(print_sources, rows)
    assert "[bold]x[/bold]" in shown
    assert "[/oops]" in shown


def test_metrics_have_their_units_and_missing_ones_a_dash():
    metrics = {"accuracy": 0.91234, "adapt_ms": 2.0, "teacher_accuracy": None, "extra": "word"}
    shown = printed(print_metrics, metrics)
    assert "0.9123" in shown
    assert "2 ms" in shown
    assert "teacher_accuracy   -" in shown
    assert "word" in shown
