"""The report: what it tells, that it asks for nothing, and that its commands repeat a trial."""

from __future__ import annotations

import base64
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from search import contents as told
from search import stills
from search._importances import importances
from search.cli import main
from search.config import load_sweep
from search.contents import contents, repeat
from search.errors import UserError
from search.history import history
from search.report import page, report
from search.results import load_results
from search.rundir import RunDir
from search.train import configuration
from spaces._domains import Choice, Domain, Fixed, Float, Int, When
from tests import bundles

if TYPE_CHECKING:
    from pathlib import Path

POINTS = [(0.60, 1000, 1.0), (0.80, 3000, 2.0), (0.85, 9000, 6.0), (0.70, 9500, 7.0)]
SPACE = {"student.width": {"int": [4, 64]}, "inner_rate": {"float": [0.01, 1.0], "log": True}}
EVIL = "broken </script><img src=x onerror=alert(1)> layer"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    sweep = {"space": SPACE, "constraints": ["quality_drop <= 0.05"]}
    config = {"student.width": 8, "inner_rate": 0.1234567890123}
    run = bundles.run(tmp_path / "run", POINTS, sweep=sweep, config=config)
    place = RunDir.open(run)
    for number, kind in ((4, "diverged"), (5, "out of memory"), (6, "diverged")):
        failure = {"kind": kind, "reason": EVIL, "iteration": 2}
        bundles.add(place, number, state="FAIL", failure=failure, config=config)
    bundles.add(place, 7, state="PRUNED", stopped="stopped early at meta-iteration 1")
    bundles.add(place, 8, metrics=bundles.metrics(0.9, 20, 0.1, quality_drop=0.5), config=config)
    return run


def document_of(file: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', file.read_text())
    assert found is not None
    return dict(json.loads(found[1]))


# ------------------------------------------------------------------ the file


def test_the_page_asks_for_nothing_and_holds_the_whole_document(run):
    (file,) = report(run)
    assert file == run / "report.html"
    text = file.read_text()
    assert "default-src 'none'" in text
    assert not re.search(
        r"<(script|img|iframe)[^>]*\ssrc=(?!\"data:)|<link[^>]*href=\"(?!data:)", text
    )
    assert EVIL not in text
    assert "window.Plotly" in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert file.stat().st_size < 6 * 2**20
    document = document_of(file)
    assert document["failures"][0]["reason"] == EVIL
    assert document == json.loads(json.dumps(contents(load_results(run), str(run))))


def test_a_picture_of_the_front_is_there_before_any_script_that_takes_time(run):
    text = report(run)[0].read_text()
    before, mark, after = text.partition('<script type="text/plain" id="plotly">')
    assert mark
    assert "window.Plotly" in after.partition("</script>")[0]
    assert len(before) < 2**20
    (still,) = re.findall(r'id="f-front"><img class="still" [^>]*base64,([^"]*)"', before)
    assert base64.b64decode(still).startswith(b"\x89PNG")


def test_where_nothing_is_complete_there_is_no_picture(tmp_path):
    run = RunDir.open(bundles.run(tmp_path / "run", []))
    bundles.add(run, 0, state="PRUNED")
    assert 'class="still"' not in report(run.path)[0].read_text()


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be written at .*file.*Give another place"):
        report(run, tmp_path / "file" / "report.html")


def test_a_run_without_trials_has_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="has no trial yet, so there is nothing to report"):
        report(bundles.run(tmp_path / "new", []))


def test_a_template_without_a_place_is_found(run, monkeypatch):
    monkeypatch.setattr("search.report._part", lambda name: "")
    with pytest.raises(RuntimeError, match="no place for title"):
        page(contents(load_results(run), "run"))


def test_the_command_writes_page_and_figures_and_names_them(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "-o", str(tmp_path / "a.html"), "--figures", str(tmp_path / "f")])
    assert ended.value.code == 0
    names = capsys.readouterr().out.split()
    assert names[0] == str(tmp_path / "a.html")
    assert {name.rsplit("/", 1)[1] for name in names[1:]} == {
        f"{name}.{kind}" for name in ("front", "patterns", "hypervolume") for kind in ("png", "svg")
    }
    assert (tmp_path / "f" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "f" / "patterns.svg").read_text()


# ------------------------------------------------------------------ what it tells


def test_trials_front_and_failures(run):
    document = contents(load_results(run), "RUN")
    assert document["front"] == [2, 1, 0]
    states = {t["id"]: (t["state"], t["feasible"]) for t in document["trials"]}
    assert states[0] == ("COMPLETE", True)
    assert states[8] == ("COMPLETE", False)
    assert states[7] == ("PRUNED", False)
    assert [(f["kind"], f["trials"]) for f in document["failures"]] == [
        ("diverged", [4, 6]), ("out of memory", [5]),
    ]  # fmt: skip
    assert document["trials"][7]["why"] == "stopped early at meta-iteration 1"
    assert document["head"]["trials"] == "9 trials: 5 complete, 1 stopped early, 3 failed"
    assert document["space"]["inner_rate"] == {"low": 0.01, "high": 1.0, "log": True}
    assert document["metrics"]["accuracy"]["share"]
    assert "test_accuracy" not in document["metrics"]
    assert document["thresholds"]["why"].startswith("No model of the front")
    assert document["importances"] == {"why": "Fewer than 10 complete trials: too few to say."}
    assert document["tables"]["of"]["2"] == [["011", 2, 0.85, None, None]]


def test_a_further_adaptation_is_told_apart(run):
    place = RunDir.open(run)
    bundles.add(place, 9, metrics=bundles.metrics(0.5, 10, 1.0), of=1)
    document = contents(load_results(run), "RUN")
    assert document["trials"][9]["of"] == 1
    assert document["head"]["trials"].endswith("; and 1 further adaptation of their models")


def test_tables_that_would_make_the_file_too_large_are_left_out(run, monkeypatch):
    monkeypatch.setattr(told, "CELLS", 2)
    tables = contents(load_results(run), "RUN")["tables"]
    assert list(tables["of"]) == ["2", "1"]
    assert tables["left_out"] == 1


def test_the_command_of_a_trial_repeats_its_configuration_to_the_last_digit(run):
    results = load_results(run)
    trial = {**results.trials[1]}
    words = shlex.split(repeat(results, str(run), trial))
    assert words[:3] == ["fewtune", "train", str(run / "sweep.yaml")]
    again = configuration(load_sweep(run / "sweep.yaml", words[4::2]))
    assert {name: again[name] for name in trial["config"]} == trial["config"]


def test_the_hypervolume_grows_to_that_of_the_run(run):
    results = load_results(run)
    rows = history(results)
    volumes = [row["hypervolume"] for row in rows]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(results.hypervolume())
    assert [row["trials"] for row in rows] == list(range(1, 10))
    assert rows[-1]["hours"] == pytest.approx(9 / 3600)


def test_a_run_without_a_complete_trial_still_has_a_report(tmp_path):
    run = bundles.run(tmp_path / "run", [])
    bundles.add(RunDir.open(run), 0, state="FAIL", failure={"kind": "diverged", "reason": "nan"})
    assert history(load_results(run)) == []
    written = report(run, tmp_path / "report.html", tmp_path / "figures")
    assert written == [tmp_path / "report.html"]
    assert document_of(written[0])["front"] == []


# ------------------------------------------------------------------ which parameters matter

DRAWN: dict[str, Domain] = {
    "width": Int(1, 64, why="decides"),
    "kind": Choice(("a", "b"), why="says nothing"),
    "depth": Int(1, 8, why="where there is one", when=When("kind", ("b",))),
    "noise": Float(0.0, 1.0, why="says nothing"),
    "fixed": Fixed(3, why="cannot matter"),
}


def drawn(number: int) -> dict[str, Any]:
    width, kind = 1 + (number * 37) % 64, "ab"[number % 2]
    config = {"width": width, "kind": kind, "noise": (number * 0.618) % 1, "fixed": 3}
    depth = {"depth": 1 + (number // 2) % 8} if kind == "b" else {}
    return {"config": {**config, **depth}, "metrics": {"accuracy": width / 64, "adapt_ms": 1.0}}


def test_what_an_objective_hangs_on_comes_first():
    trials = [drawn(n) for n in range(60)]
    found = importances(DRAWN, {"accuracy": "max"}, trials)["accuracy"]
    assert next(iter(found)) == "width"
    assert found["width"] > 0.5
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {"width", "kind", "depth", "noise"}


def test_the_direction_of_an_objective_counts():
    """Where only the best are alike, the worst being anything, the sign decides."""
    trials = [drawn(n) for n in range(60)]
    for number, trial in enumerate(trials):
        best = number < 8
        trial["config"]["noise"] = 0.5 if best else trial["config"]["noise"]
        trial["metrics"]["accuracy"] = 0.9 if best else number / 100
    up = importances(DRAWN, {"accuracy": "max"}, trials)["accuracy"]
    down = importances(DRAWN, {"accuracy": "min"}, trials)["accuracy"]
    assert up["noise"] > 2 * down["noise"]


def test_too_few_trials_or_values_outside_the_space_say_nothing():
    assert importances(DRAWN, {"accuracy": "max"}, [drawn(n) for n in range(9)]) == {}
    outside = [drawn(n) for n in range(12)]
    for trial in outside[:3]:
        trial["config"]["width"] = 99
    assert importances(DRAWN, {"accuracy": "max"}, outside) == {}


# ------------------------------------------------------------------ figures as files


def test_the_picture_of_importances_has_a_bar_for_each_objective():
    found = {"of": {"accuracy": {"a": 0.9, "b": 0.1}, "adapt_ms": {"b": 1.0}}, "share": 0.1}
    figure = stills.importances(found)
    assert figure is not None
    (axes,) = figure.axes
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert widths == [[90.0, 10.0], [0.0, 100.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_a_heat_map_writes_numbers_where_there_is_room():
    few = [("01", 1, 0.5), ("11", 2, 0.25)]
    for cells, numbers in ((few, 2), ([(f"{n:07b}", 1, 1.0) for n in range(70)], 0)):
        figure, axes = stills._empty(3.0)
        stills.heat(axes, cells, "ms", "viridis")
        assert len(axes.texts) == numbers
        assert len(figure.axes) == 2
