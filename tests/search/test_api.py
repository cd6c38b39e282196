"""The calls of notebooks: a run read, a bundle written and opened, pictures in, predictions out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import api
from search.adapt import adapt
from search.errors import UserError
from tests import bundles
from trainables._data import DataError

ROOT = Path(__file__).parents[2]
POINTS = [(0.50, 1000, 1.0), (0.80, 3000, 2.0), (0.40, 4000, 3.0)]


@pytest.fixture
def home(tmp_path):
    return api.bundle(bundles.bundle(tmp_path / "bundle"))


@pytest.fixture
def known(tmp_path):
    folder = bundles.folders(tmp_path / "known")
    return sorted(folder.rglob("*.png"))


def test_a_run_is_read_and_exported(tmp_path):
    run = api.results(bundles.run(tmp_path / "run", POINTS))
    assert [trial.number for trial in run.trials()] == [0, 1, 2]
    assert [trial.number for trial in run.front()] == [1, 0]
    assert run.front()[0].metrics["accuracy"] == 0.8
    assert run.trials()[0].state == "COMPLETE"
    small = run.export("best", tmp_path / "out", most={"adapt_ms": 1.5}, programs=False)
    assert small.metrics["accuracy"] == 0.5
    assert small.path == tmp_path / "out"
    with pytest.raises(UserError, match="No feasible trial"):
        run.export("best", tmp_path / "none", least={"accuracy": 0.95}, programs=False)


def test_predictions_are_those_of_the_command(home, known, tmp_path):
    query = bundles.folders(tmp_path / "query", images=3, seed=1000)
    report = adapt(home.path, tmp_path / "known", query)
    adapted = home.adapt(known, [file.parent.name for file in known])
    assert adapted.classes == report.classes
    found = adapted.predict([query / p.file for p in report.predictions])
    assert [p.label for p in found] == [p.label for p in report.predictions]
    assert [p.confidence for p in found] == pytest.approx(
        [p.confidence for p in report.predictions], abs=1e-5
    )
    assert np.allclose(adapted.probabilities(known).sum(1), 1, atol=1e-5)


def test_a_picture_is_a_file_its_bytes_an_image_or_an_array(home, known):
    adapted = home.adapt(known, [file.parent.name for file in known])
    with Image.open(known[0]) as image:
        same = [known[0], str(known[0]), known[0].read_bytes(), image.copy(), np.asarray(image)]
    chances = adapted.probabilities(same)
    assert np.allclose(chances, chances[0])


def test_what_cannot_be_adapted_to_is_said(home, known, tmp_path):
    for pictures, labels, said in (
        (known, ["a"], "found 6 pictures and 1 labels"),
        (known[:2], ["a", "a"], "needs at least 2; found 1"),
    ):
        with pytest.raises(UserError, match=said):
            home.adapt(pictures, labels)
    linear = api.bundle(bundles.bundle(tmp_path / "linear", head="linear"))
    with pytest.raises(UserError, match="trained for 5 classes, and the labels have 2"):
        linear.adapt(known[:2], ["a", "b"])
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        home.adapt([tmp_path / "gone.png", known[0]], ["a", "b"])
    with pytest.raises(UserError, match="found none"):
        home.adapt(known[:2], ["a", "b"]).predict([])


def test_a_sweep_takes_changes_by_name(monkeypatch, tmp_path):
    seen = []

    def run_sweep(config, **words):
        seen.append((config, words))
        return bundles.run(tmp_path / "run", POINTS[:1])

    monkeypatch.setattr("search.sweep.run_sweep", run_sweep)
    changes = {"budget.trials": 3, "data.source": "glyphs", "constraints": []}
    run = api.sweep(None, changes, name="n", storage=tmp_path)
    assert len(run.trials()) == 1
    config, words = seen[0]
    assert (config.budget.trials, config.constraints) == (3, ())
    assert words == {"name": "n", "storage": tmp_path, "address": None}
    with pytest.raises(UserError, match="Did you mean trials"):
        api.sweep(None, {"budget.trails": 3})


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_example_of_own_photos_runs(tmp_path):
    words = ["--trials", "2", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "own_photos.py"), *words], check=False,
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ring/0.png: " in done.stdout
    assert (tmp_path / "out" / "my-student" / "adaptation.pt2").is_file()
