"""One configuration and one seed give one result, whatever runs beside it."""

import json

import pytest

from search.config import load_sweep
from search.results import load_results
from search.sweep import run_sweep
from search.train import train
from tests.clock import timeless

FILE = {
    "method": "meta_distillation",
    "data": {"source": "glyphs", "ways": 5, "shots": 1, "queries": 5},
    "space": {
        "student.width": 8, "student.depth": 2, "inner_steps": 2, "inner_rate": 0.1,
        "outer_rate": 0.01, "order": "first", "meta_batch": 2, "teacher.kind": "conv4",
        "teacher.width": 8, "teacher.inner_steps": 1, "teacher.inner_rate": 0.1,
        "teacher.pretrain": 0.25, "distillation.loss": "kl", "distillation.weight": 0.3,
        "distillation.temperature": 2.0, "distillation.outer": 1.0, "views": 1, "epsilon": 0.01,
        "test.steps": 0, "test.rate": 0.0,
    },
    "budget": {"trials": 3, "iterations": 12},
    "evaluation": {"validation_tasks": 30, "test_tasks": 20, "settings": 1},
    "early_stopping": {"enabled": False},
    "resources": {"cpu": 1},
}  # fmt: skip


def untold(metrics):
    """Without times, and without the scores that only a sweep's front gets."""
    late = ("test_", "fresh_")
    return {k: v for k, v in timeless(metrics).items() if not k.startswith(late)}


@pytest.mark.cluster
@pytest.mark.slow
def test_side_by_side_and_alone(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(FILE), encoding="utf-8")  # JSON is YAML
    config = load_sweep(file)
    run = run_sweep(config, name="twins", storage=tmp_path)
    trials = load_results(run).to_json()["trials"]
    assert [t["state"] for t in trials] == ["COMPLETE"] * 3
    first, *others = [untold(t["metrics"]) for t in trials]
    alone = untold(train(config))
    assert "accuracy" in alone
    for other in others:
        assert other == first
    assert {k: first[k] for k in alone} == alone
