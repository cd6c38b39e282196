"""One trained model under many settings: each has what it would have alone, and little is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.clock import timeless
from tests.trainables.test_contract import SHAPE, data, make  # noqa: F401  the fixture
from trainables._core import evaluate
from trainables._core.again import Again, NotScoredError, stored_choice
from trainables._core.observe import adaptation_of
from trainables._core.scores import Scores, ScoresError
from trainables._learner import RunSettings, parse_config
from trainables.maml import Maml

RUN = RunSettings(iterations=3, seed=3, validation_tasks=40, quick_tasks=3)
OWN: dict[str, Any] = {
    "student.width": 4,
    "student.depth": 2,
    "meta_batch": 2,
    "inner_steps": 2,
    "student.head": "shared",
}
FURTHER: list[dict[str, Any]] = [
    {"test.steps": 4, "test.rate": 0.3, "epsilon": 0.0},
    {"test.steps": 3, "test.rate": 0.1, "epsilon": 0.0},
    {"test.steps": 2, "test.rate": 0.3, "epsilon": 0.05, "patterns": "suffixes"},
    {"test.steps": 2, "test.rate": 0.1, "epsilon": 0.01},  # the trial's own, spelt out
]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def outcome(data):  # noqa: F811
    torch.set_num_threads(1)
    return make("maml", data, RUN, **OWN).finish([{**OWN, **more} for more in FURTHER])


def untimed(table):
    return [timeless(row) for row in table]


def test_each_setting_has_the_numbers_it_would_have_alone(outcome, data):  # noqa: F811
    assert [one.number for one in outcome.further] == [0, 1, 2]
    for one in outcome.further:
        more = FURTHER[one.number]
        alone = make("maml", data, RUN, **OWN, **more).finish()
        assert timeless(one.metrics) == timeless(alone.metrics)
        assert untimed(one.table) == untimed(alone.table)
        assert one.spec == alone.student.spec
        assert one.spec.inner_rate == more["test.rate"]
        assert one.cost_s > 0
    alone = make("maml", data, RUN, **OWN).finish()
    assert timeless(outcome.metrics) == timeless(alone.metrics)
    assert untimed(outcome.table) == untimed(alone.table)


def test_settings_that_choose_the_same_are_one(data):  # noqa: F811
    same = [{**OWN, "epsilon": epsilon} for epsilon in (1.0, 0.99, 0.98)]
    outcome = make("maml", data, RUN, **OWN, epsilon=0.97).finish(same)
    assert outcome.further == ()


def test_nothing_is_scored_twice(data, monkeypatch):  # noqa: F811
    asked: list[tuple[Any, ...]] = []
    real = evaluate.Batches.score

    def watched(self, network, meta, setting, number, wanted):
        asked.extend((setting.rate, number, p, t) for p, steps in wanted.items() for t in steps)
        return real(self, network, meta, setting, number, wanted)

    monkeypatch.setattr(evaluate.Batches, "score", watched)
    make("maml", data, RUN, **OWN).finish([{**OWN, **more} for more in FURTHER])
    assert len(asked) > 20
    assert len(set(asked)) == len(asked)
    runs = {(rate, number, t) for rate, number, p, t in asked if p == "111"}
    assert {t for rate, _, t in runs if rate == 0.3} >= {2, 4}


def test_a_stored_model_is_not_scored_again(outcome, data, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "student").mkdir()
    outcome.student.save(tmp_path / "student")
    outcome.scores.save(tmp_path, "mine")
    again = Again.load(tmp_path, "mine")
    with pytest.raises(ScoresError, match="another training"):
        Again.load(tmp_path, "other")
    settings = [parse_config(Maml, {**OWN, **more}) for more in FURTHER[:3]]
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Batches, "score", None)  # nothing new is asked for
        patch.setattr(evaluate, "milliseconds", None)
        found = again.answer(settings, data, SHAPE, seed=3, tasks=40, device="cpu")
    metrics = [found.metrics, *(one.metrics for one in found.further)]
    for one, before in zip(metrics, outcome.further, strict=True):
        assert one["train_seconds"] == before.metrics["train_seconds"]
        assert timeless(one) == timeless(before.metrics)
    new = parse_config(Maml, {**OWN, "test.rate": 0.2})
    found = again.answer([new], data, SHAPE, seed=3, tasks=40, device="cpu")
    alone = make("maml", data, RUN, **OWN, **{"test.rate": 0.2}).finish()
    assert timeless(found.metrics) == timeless(alone.metrics)


def test_a_threshold_is_a_query(outcome, data):  # noqa: F811
    config = parse_config(Maml, OWN)
    one = adaptation_of(config, 2, 0.1)
    found = stored_choice(outcome.student, outcome.scores, one, SHAPE)
    assert found.exact
    assert (found.pattern, found.step) == (
        outcome.metrics["pattern"], outcome.metrics["inner_steps"],
    )  # fmt: skip
    assert found.accuracy == outcome.metrics["accuracy"]
    with pytest.raises(NotScoredError, match=r"at rate 0\.7"):
        stored_choice(outcome.student, outcome.scores, replace(one, rate=0.7), SHAPE)


def test_what_the_tables_do_not_decide_is_named_as_such(outcome):
    """Where cheaper entries met a part of the tasks, the best of those that met all is said."""
    table = outcome.scores.accuracies[0.1]
    full = ("111", 2)
    cut = {key: values if key == full else values[:8] for key, values in table.items()}
    scores = replace(outcome.scores, accuracies={0.1: cut})
    one = adaptation_of(parse_config(Maml, OWN), 2, 0.1)
    found = stored_choice(outcome.student, scores, replace(one, epsilon=1.0), SHAPE)
    assert not found.exact
    assert (found.pattern, found.step) == full
    assert found.open > 0


def test_torn_scores_are_named(tmp_path):
    (tmp_path / "scores.safetensors").write_bytes(b"torn")
    with pytest.raises(ScoresError, match=r"scores\.safetensors holds no readable scores"):
        Scores.load(tmp_path)
