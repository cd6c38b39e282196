"""One contract for every registered method; it never asks which one it is testing."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from search.metrics import EARLY
from search.registry import METHODS, learner
from trainables._core.student import Student
from trainables._learner import (
    ConfigError,
    Learner,
    RunSettings,
    TaskShape,
    flat_defaults,
    parse_config,
    score_on_test_classes,
)

TINY = {"student.width": 4, "student.depth": 2, "meta_batch": 2, "inner_steps": 2}
RUN = RunSettings(iterations=6, seed=3, validation_tasks=6, quick_tasks=3)
SHAPE = TaskShape(3, 1, 2)
METRICS = {
    "accuracy", "accuracy_ci95", "accuracy_full", "quality_drop", "pattern", "inner_steps",
    "adapt_ms", "adapt_speedup", "adapt_macs", "adapt_mib", "prediction_error", *EARLY,
    "train_seconds",
}  # fmt: skip
TIMES = {"adapt_ms", "adapt_speedup", "predicted_ms", "prediction_error", "train_seconds"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data():
    """Classes that differ in their mean image, so that there is something to learn."""
    rng = np.random.default_rng(0)

    def split(classes):
        means = rng.integers(40, 215, (classes, 1, 1, 12, 12))
        noise = rng.integers(-40, 41, (classes, 6, 1, 12, 12))
        images = (means + noise).astype(np.uint8).reshape(-1, 1, 12, 12)
        return SimpleNamespace(
            images=images, starts=np.arange(classes + 1) * 6, groups=np.arange(classes)
        )

    return SimpleNamespace(
        train=split(8),
        validation=split(5),
        test=split(5),
        mean=(0.5,),
        std=(0.25,),
        size=12,
        channels=1,
    )


def make(method, data, run=RUN, **more):
    kind = learner(method)
    known = flat_defaults(kind)
    config = {k: v for k, v in {**TINY, "teacher.width": 4, **more}.items() if k in known}
    return kind(config, data, SHAPE, run)


def test_there_are_methods():
    assert len(METHODS) >= 3


@pytest.mark.parametrize("method", METHODS)
def test_after_running_out_of_memory_fewer_tasks_go_together(method, data, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    sizes = []
    for halvings in (0, 1, 9):
        one = make(method, data, run=replace(RUN, halvings=halvings), meta_batch=6)
        rigs = [one.rig, one.teacher.rig] if getattr(one, "teacher", None) else [one.rig]
        sizes.append({rig.chunks.size for rig in rigs})
    assert sizes == [{6}, {3}, {1}]


@pytest.mark.parametrize("method", METHODS)
def test_a_learner_learns_and_ends_as_all_do(method, data, tmp_path):
    one = make(method, data)
    assert isinstance(one, Learner)
    losses = [one.step()["loss"] for _ in range(RUN.iterations)]
    assert all(math.isfinite(loss) for loss in losses)
    assert 0 <= one.validate()["accuracy"] <= 1
    outcome = one.finish()
    assert set(outcome.metrics) >= METRICS
    json.dumps([outcome.metrics, outcome.table], allow_nan=False)
    rows = {(r["pattern"], r["step"]): r for r in outcome.table}
    assert len(rows) == len(outcome.table) <= 7 * TINY["inner_steps"]
    chosen = rows[outcome.metrics["pattern"], outcome.metrics["inner_steps"]]
    assert chosen["tasks"] == RUN.validation_tasks
    assert chosen["accuracy"] == outcome.metrics["accuracy"]
    told: list[dict[str, Any]] = outcome.table
    assert all(row["predicted_ms"] > 0 and row["adapt_mib"] > 0 for row in told)
    errors = [abs(row["predicted_ms"] - row["adapt_ms"]) / row["adapt_ms"] for row in told]
    assert outcome.metrics["prediction_error"] == pytest.approx(sum(errors) / len(errors))
    drop = outcome.metrics["quality_drop"]
    assert isinstance(drop, float)
    assert drop <= 0.01 + 1e-9
    outcome.student.save(tmp_path)
    again = Student.load(tmp_path)
    assert score_on_test_classes(again, data, SHAPE, tasks=4, seed=0) == score_on_test_classes(
        outcome.student, data, SHAPE, tasks=4, seed=0
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_metrics(method, data):
    found = []
    for _ in range(2):
        one = make(method, data)
        for _ in range(3):
            one.step()
        outcome = one.finish()
        table = [{k: v for k, v in row.items() if k not in TIMES} for row in outcome.table]
        found.append(({k: v for k, v in outcome.metrics.items() if k not in TIMES}, table))
    assert found[0] == found[1]
    other = make(method, data, RunSettings(6, seed=4, validation_tasks=6, quick_tasks=3))
    assert other.step() != make(method, data).step()


@pytest.mark.parametrize("method", METHODS)
def test_a_race_ends_where_the_whole_table_does(method, data):
    run = RunSettings(iterations=6, seed=3, validation_tasks=60, quick_tasks=3)
    raced, whole = [
        make(method, data, run, **{"choice": by, "student.head": "shared"}).finish()
        for by in ("race", "table")
    ]
    assert len(whole.table) == 7 * TINY["inner_steps"]
    assert {r["tasks"] for r in whole.table} == {60}
    for name in set(whole.metrics) - TIMES:
        assert raced.metrics[name] == whole.metrics[name]
    all_rows = {(r["pattern"], r["step"]): r for r in whole.table}
    for row in raced.table:
        same = all_rows[row["pattern"], row["step"]]
        assert row["adapt_macs"] == same["adapt_macs"]
        if row["tasks"] == 60:
            assert (row["accuracy"], row["ci95"]) == (same["accuracy"], same["ci95"])


@pytest.mark.parametrize("method", METHODS)
def test_a_snapshot_goes_on_as_if_nothing_happened(method, data, tmp_path):
    one = make(method, data)
    for _ in range(2):
        one.step()
    torch.save(one.state_dict(), tmp_path / "state.pt")
    held = one.state_dict()
    before = torch.load(tmp_path / "state.pt", weights_only=True)
    expected = [one.step() for _ in range(3)]  # two more steps would show a lost optimiser
    for a, b in zip(tensors(held), tensors(before), strict=True):
        assert torch.equal(a, b)  # a snapshot shares no tensor with what goes on
    two = make(method, data)
    two.load_state_dict(before)
    assert [two.step() for _ in range(3)] == expected


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [t for v in state.values() for t in tensors(v)]
    return [t for v in state for t in tensors(v)] if isinstance(state, list) else []


@pytest.mark.parametrize("head", ["prototype", "shared", "linear"])
@pytest.mark.parametrize("baseline", ["tsmd", "oracle"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_known_before_training_is_what_comes_out(method, baseline, head, data):
    kind = learner(method)
    more = {"student.head": head, "baseline": baseline, "teacher.width": 4, "patterns": "suffixes"}
    config = {k: v for k, v in (TINY | more).items() if k in flat_defaults(kind)}
    known = kind.cheap(config, channels=1, size=12, ways=3)
    metrics = make(method, data, **more).finish().metrics
    assert known == {k: metrics[k] for k in EARLY}


@pytest.mark.parametrize("method", METHODS)
def test_wrong_settings_are_all_named_at_once(method):
    with pytest.raises(ConfigError) as caught:
        parse_config(learner(method), {"student.widht": 4, "iner_steps": 1})
    assert "did you mean student.width?" in str(caught.value)
    assert "did you mean inner_steps?" in str(caught.value)
    with pytest.raises(ConfigError, match=r"student\.width: .*found 'wide'"):
        parse_config(learner(method), {"student.width": "wide"})


@pytest.mark.parametrize("method", METHODS)
def test_training_beats_chance(method, data):
    run = RunSettings(iterations=40, seed=0, validation_tasks=40, quick_tasks=40)
    one = make(method, data, run, outer_rate=0.01, order="first")
    for _ in range(run.iterations):
        one.step()
    assert one.validate()["accuracy"] > 0.6  # chance is a third
