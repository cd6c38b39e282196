"""One configuration trained alone."""

import math

import pytest

from search.config import load_sweep
from search.errors import FailedError
from search.train import train
from trainables._learner import DivergedError

FILE = """
method: fake
data: {{size: 20, queries: 5}}
space: {{sick: {sick}}}
budget: {{iterations: 6}}
"""


@pytest.fixture(autouse=True)
def _method(fake_method, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path / "cache"))


def config(tmp_path, sick):
    file = tmp_path / "sweep.yaml"
    file.write_text(FILE.format(sick=sick), encoding="utf-8")
    return load_sweep(file)


def test_training_that_diverges_ends_with_when_and_why(tmp_path):
    said = "diverged at meta-iteration 3 of 6: the loss became nan. Lower the learning rates"
    with pytest.raises(FailedError, match=said):
        train(config(tmp_path, "nan"))


def test_what_a_method_says_of_its_divergence_is_passed_on(tmp_path, monkeypatch, fake_method):
    def step(_self):
        raise DivergedError("the meta-gradient is no finite number at meta-step 1")

    monkeypatch.setattr(fake_method.FakeLearner, "step", step)
    with pytest.raises(FailedError, match="meta-iteration 1 of 6: the meta-gradient is no finite"):
        train(config(tmp_path, "'no'"))


def test_progress_names_the_normalisation(tmp_path, capsys):
    metrics = train(config(tmp_path, "'no'"))
    assert math.isfinite(metrics["accuracy"])
    assert "accuracy (inductive) " in capsys.readouterr().err
