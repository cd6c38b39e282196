"""Rows, result files and the command that holds all of them against their floors."""

import importlib
import json
import sys

import pytest

from benchmarks import __main__ as runner
from benchmarks import record
from benchmarks.record import RESULTS, ResultError, Row, read, save


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(runner, "COMMANDS", {"a": "a --tasks 3", "b": "b"})
    return tmp_path


def stored(monkeypatch, name, command, *rows):
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{command.split()[0]}.py", *command.split()[1:]])
    save(name, list(rows), settings={"tasks": 3})


def status(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    return runner.main()


@pytest.mark.parametrize(
    ("better", "value", "floor", "holds"),
    [
        ("higher", 1.5, 1.5, True),
        ("higher", 1.4, 1.5, False),
        ("lower", 1.4, 1.5, True),
        ("lower", 1.6, 1.5, False),
        ("lower", 9.0, None, True),
    ],
)
def test_a_row_holds_on_the_right_side_of_its_floor(better, value, floor, holds):
    row = Row("speed", value, "x", better, floor)
    assert row.holds() is holds
    assert row.line().startswith("ok  " if holds else "MISS")


def test_what_is_saved_is_read_back(folder, monkeypatch):
    rows = [Row("speed", 2.0, "x", "higher", 1.5, "a peer", "words"), Row("b", 1.0, "s", "lower")]
    stored(monkeypatch, "a", "a --tasks 3", *rows)
    result = read(folder / "a.json")
    assert result.rows == rows
    assert result.command == "python -m benchmarks.a --tasks 3"
    document = json.loads((folder / "a.json").read_text())
    assert {"torch", "python"} <= set(document["versions"])
    assert document["settings"] == {"tasks": 3}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"name": "a"}', '{"rows": [{"id": "speed"}]}', '{"rows": []}']
)
def test_another_form_is_refused_in_one_sentence(tmp_path, text):
    known = {"name": "a", "command": "", "commit": "", "machine": {}, "versions": {}}
    if '"rows"' in text:
        text = json.dumps(known | json.loads(text))
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ResultError, match=r"^A result file is JSON with name, .*; a\.json.*\.$"):
        read(tmp_path / "a.json")


def test_every_committed_result_has_the_form():
    files = sorted(RESULTS.glob("*.json"))
    assert len(files) >= 5
    for file in files:
        result = read(file)
        assert result.rows
        module = result.command.removeprefix("python -m benchmarks.").split()[0]
        assert (RESULTS.parent / f"{module}.py").is_file()


def test_the_readme_tells_the_commands_that_run():
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    for command in runner.COMMANDS.values():
        assert f"python -m benchmarks.{command}\n" in text


def test_the_status_says_whether_every_floor_held(folder, monkeypatch, capsys):
    good, bad = Row("x", 2.0, "x", "higher", 1.5), Row("y", 1.0, "x", "higher", 1.5)
    stored(monkeypatch, "a", "a --tasks 3", good)
    stored(monkeypatch, "b", "b", good)
    assert status(monkeypatch, "--check") == 0
    assert "2 results, every floor held." in capsys.readouterr().out
    stored(monkeypatch, "measured_once", "a --tasks 9", bad)
    assert status(monkeypatch, "--check") == 1
    assert "Short: measured_once." in capsys.readouterr().out
    stored(monkeypatch, "b", "b", good, bad)
    assert status(monkeypatch, "--check") == 1
    assert "Short: b, measured_once." in capsys.readouterr().out
    assert status(monkeypatch, "--check", "a") == 0


def test_a_missing_result_and_one_of_other_settings_fall_short(folder, monkeypatch, capsys):
    good = Row("x", 2.0, "x", "higher", 1.5)
    stored(monkeypatch, "a", "a --tasks 1", good)
    assert status(monkeypatch, "--check") == 1
    out = capsys.readouterr().out
    assert "taken with other settings, python -m benchmarks.a --tasks 1" in out
    assert "b.json" in out
    assert "Short: a, b." in out


def test_a_benchmark_that_breaks_falls_short_though_its_old_result_holds(
    folder, monkeypatch, capfd
):
    stored(monkeypatch, "b", "b", Row("x", 2.0, "x", "higher", 1.5))
    monkeypatch.setattr(runner, "OWN_IMAGES", ("a", "b"))
    assert status(monkeypatch, "b") == 1  # there is no module benchmarks.b
    assert "MISS b: the benchmark broke off" in capfd.readouterr().out


def test_missing_data_is_said_before_anything_runs(folder, monkeypatch, capsys):
    monkeypatch.delenv("FEWTUNE_DATA", raising=False)
    assert status(monkeypatch) == 1
    out = capsys.readouterr().out
    assert "FEWTUNE_DATA" in out
    assert "==" not in out


def test_an_unknown_name_is_refused(folder, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        status(monkeypatch, "c")
    assert "there are a, b; found c" in capsys.readouterr().err
    assert status(monkeypatch, "--list") == 0
    assert "a: python -m benchmarks.a --tasks 3" in capsys.readouterr().out


@pytest.mark.parametrize("module", sorted({words.split()[0] for words in runner.COMMANDS.values()}))
def test_every_benchmark_can_be_imported(module):
    assert callable(importlib.import_module(f"benchmarks.{module}").main)
