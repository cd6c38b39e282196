"""The example of a method of one's own: it learns, goes on, and is swept, read and taken home."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from search import registry
from search.config import load_sweep
from tests import own
from trainables._data import load
from trainables._learner import RunSettings, TaskShape

ROOT = Path(__file__).parents[2]
CONFIG = {"student.width": 4, "student.depth": 2, "meta_batch": 2, "inner_steps": 2, "step": 0.5}
RUN = RunSettings(iterations=6, seed=3, validation_tasks=6, quick_tasks=3)


@pytest.fixture
def reptile():
    method = load_sweep(ROOT / "examples" / "own_method.yaml").method
    yield registry.learner(method)
    own.forget()


def test_it_learns_and_goes_on_from_a_snapshot(reptile):
    torch.set_num_threads(1)
    data, shape = load("glyphs", root=None), TaskShape(3, 1, 2)
    whole, begun = (reptile(CONFIG, data, shape, RUN) for _ in range(2))
    start = {name: p.clone() for name, p in whole.rig.meta.items()}
    said = [whole.step() for _ in range(RUN.iterations)]
    assert any(not p.equal(start[name]) for name, p in whole.rig.meta.items())
    assert [one["outer_rate"] for one in said] == pytest.approx(
        [0.5 * n / 6 for n in range(6, 0, -1)]
    )
    for _ in range(3):
        begun.step()
    again = reptile(CONFIG, data, shape, RUN)
    again.load_state_dict(begun.state_dict())
    assert [again.step()["loss"] for _ in range(3)] == [one["loss"] for one in said[3:]]
    assert 0 <= again.validate()["accuracy"] <= 1
    outcome = again.finish([{**CONFIG, "epsilon": 0.05}])
    assert outcome.metrics["accuracy"] > 0
    with pytest.raises(ValueError, match="step"):
        reptile({**CONFIG, "step": 2.0}, data, shape, RUN)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_it_is_swept_read_extended_and_taken_home(tmp_path):
    """On Ray's workers; nothing but going on with it needs the folder again."""
    own.folder(tmp_path, "own_method")
    shutil.copy(ROOT / "examples" / "own_method.yaml", tmp_path)
    small = ["budget.iterations=20", "evaluation.validation_tasks=20", "evaluation.test_tasks=0",
             "budget.trials=2"]  # fmt: skip

    def fewtune(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "search.cli", *words], check=False, capture_output=True,
            text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    given = [word for text in small for word in ("--set", text)]
    fewtune("sweep", "own_method.yaml", *given, "--storage", "runs", "--name", "own")
    away = (tmp_path / "own_method").rename(tmp_path / "away")
    found = json.loads(fewtune("results", "runs/own", "--json").stdout)
    assert found["method"] == "own_method"
    assert any(trial["state"] == "COMPLETE" for trial in found["trials"])
    fewtune("report", "runs/own")
    fewtune("export", "runs/own", "--pick", "best", "-o", "home")
    fewtune("verify", "home")
    assert yaml.safe_load((tmp_path / "home" / "config.yaml").read_text())["method"] == (
        "inputs/own_method"
    )
    fewtune("train", "home/config.yaml", "--set", "budget.iterations=2")
    lost = fewtune("extend", "runs/own", "--trials", "1", code=2)
    assert "own_method does not exist" in lost.stderr
    away.rename(tmp_path / "own_method")
    with (tmp_path / "own_method" / "space.py").open("a") as file:
        file.write("# changed\n")
    changed = fewtune("extend", "runs/own", "--trials", "1", code=2)
    assert "is not what it was when the run began" in changed.stderr
    shutil.rmtree(tmp_path / "own_method")
    own.folder(tmp_path, "own_method")
    fewtune("extend", "runs/own", "--trials", "1")
