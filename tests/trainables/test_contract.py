"""One contract for every registered method; it never asks which one it is testing."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from typing_extensions import override

from search.metrics import EARLY
from search.registry import METHODS, learner
from tests.clock import timeless
from trainables._core import ending, evaluate, guidance, rig
from trainables._core.episodes import Sampler
from trainables._core.lease import Lease, node
from trainables._core.student import Student
from trainables._learner import (
    ConfigError,
    Learner,
    RunSettings,
    TaskShape,
    flat_defaults,
    parse_config,
    score_on_fresh_tasks,
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
    metrics, answers = outcome.metrics, cast("dict[str, Any]", outcome.tasks)
    images = SHAPE.ways * SHAPE.queries
    assert len(answers["right"]) == len(answers["right_full"]) == RUN.validation_tasks
    for name, key in (("accuracy", "right"), ("accuracy_full", "right_full")):
        assert sum(answers[key]) / images / RUN.validation_tasks == pytest.approx(metrics[name])
    assert -1 <= cast("float", metrics["quality_drop_worst"]) <= 1
    if (teacher := cast("float | None", metrics.get("teacher_accuracy"))) is not None:
        lost = teacher - cast("float", metrics["accuracy"])
        assert metrics["quality_drop_teacher"] == lost
    assert metrics["adapt_timing"] in ("steady", "noisy", "rejected")
    assert str(metrics["timed_on"]).startswith("cpu ")
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
        table = [timeless(row) for row in outcome.table]
        found.append((timeless(outcome.metrics), table))
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
    for name in timeless(whole.metrics):
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


@pytest.mark.parametrize("method", METHODS)
def test_training_and_scoring_share_the_node_and_times_have_it_alone(method, data, monkeypatch):
    held = []

    class Noted(Lease):
        @override
        @contextmanager
        def shared(self):
            held.append("shared" if not self._held else "inside")
            with super().shared() as had:
                yield had

        @override
        @contextmanager
        def exclusive(self):
            held.append("exclusive" if not self._held else "inside")
            with super().exclusive() as had:
                yield had

    mine = Noted(node().folder)
    for home in (ending, evaluate, guidance, rig):
        monkeypatch.setattr(home, "node", lambda: mine)
    one = make(method, data)
    one.step()
    assert set(held) <= {"shared", "inside"}
    assert "shared" in held or method == "lambda_adaptation"
    held.clear()
    one.validate()
    assert held[0] == "shared"
    held.clear()
    one.finish()
    assert held.count("exclusive") >= 1


def test_fresh_tasks_are_neither_those_of_the_search_nor_of_the_test(data):
    student = make("maml", data).finish().student
    found = score_on_fresh_tasks(student, data, SHAPE, tasks=8, seed=0)
    assert found == score_on_fresh_tasks(student, data, SHAPE, tasks=8, seed=0)
    assert set(found) == {"fresh_accuracy", "fresh_accuracy_ci95"}
    sampler = Sampler(data.validation, data, SHAPE, "cpu")
    seeds = (ending.VALIDATION_SEED, ending.TEST_SEED, ending.FRESH_SEED)
    drawn = [sampler.parts(seed, 8, 8)[0].tolist() for seed in seeds]
    assert len({str(tasks) for tasks in drawn}) == 3
    values = ending.student_accuracies(student, sampler, ending.FRESH_SEED, 8)
    assert found["fresh_accuracy"] == pytest.approx(float(values.mean()))
