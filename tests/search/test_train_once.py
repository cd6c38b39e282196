"""Searcher, adapter and recorder together, as Tune calls them, without Tune: real models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from typing_extensions import override

from search import registry
from search._optuna import Study
from search._tune import StudySearcher
from search.adaptations import further_settings
from search.config import SweepConfig
from search.further import FurtherTrials
from search.progress import counted
from search.recorder import Recorder
from search.results import load_results
from search.rundir import RunDir
from search.sweep import resume, run_sweep
from search.threshold import answers
from spaces._domains import Choice, Fixed, Float, Int, Space
from tests.trainables.test_contract import SHAPE, data  # noqa: F401  the fixture
from trainables._core.student import Student
from trainables._learner import RunSettings
from trainables._ray import LearnerTrainable
from trainables._trial import TrialSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPACE: Space = {
    "student.width": Choice((4,), why="one training, so that it comes again"),
    "student.depth": Fixed(2, why="small"),
    "student.head": Fixed("shared", why="the inner loop has something to do"),
    "meta_batch": Fixed(2, why="small"),
    "inner_steps": Fixed(2, why="few"),
    "test.steps": Int(1, 4, stage="adaptation", why="few"),
    "test.rate": Float(0.05, 0.5, log=True, stage="adaptation", why="any"),
    "epsilon": Float(0.0, 0.05, stage="adaptation", why="small"),
}


class Local(LearnerTrainable):
    """The adapter without Ray: no files where Tune would put them."""

    @override
    def _setup_logdir(self) -> None:
        self._logdir = None


@pytest.fixture
def sweep(
    tmp_path: Path,
    data: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[Recorder, list[dict[str, Any]]]]:
    class Handle:
        fingerprint = "data"

        def open(self) -> Any:
            return data

    run_settings = RunSettings(iterations=4, seed=3, validation_tasks=24, quick_tasks=3)
    settings = TrialSettings(registry.learner("maml"), SHAPE, run_settings)
    monkeypatch.setattr(LearnerTrainable.setup, "__defaults__", (settings, Handle(), None))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)

    def drive(name: str, trials: int, count: int = 6) -> tuple[Recorder, list[dict[str, Any]]]:
        run = RunDir(tmp_path / name)
        (run.path / "trials").mkdir(parents=True, exist_ok=True)
        recorder = Recorder(run, Study(run.journal, "mine", SPACE, {"accuracy": "max"}))
        further = FurtherTrials(recorder)
        recorder.observers = (further,)

        def beside(config: dict[str, Any]) -> dict[str, Any]:
            if same := further.trained(config):
                return {"trained": same}
            return {"further": further_settings(config, SPACE, count, seed=0)}

        searcher = StudySearcher(recorder, [], lambda: "", beside)
        handed: list[dict[str, Any]] = []
        for trial in range(trials):
            given = searcher.suggest(f"tune{trial}")
            assert isinstance(given, dict)
            handed.append(given)
            one, row = Local(given), {"done": False}
            while not row["done"]:
                row = one.train()
                recorder.report(given["id"], {**row, "failure": row.get("failure")})
            folder = run.ray / "session-1" / f"trial-{given['id']:05d}-a" / "checkpoint_000001"
            folder.mkdir(parents=True)
            one.save_checkpoint(str(folder))
            recorder.checkpoint(given["id"], str(folder))
            recorder.finish(given["id"])
        return recorder, handed

    return drive


def told(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: metrics[k] for k in ("accuracy", "pattern", "inner_steps", "adapt_macs")}


def test_one_training_gives_many_trials_and_is_not_repeated(sweep: Any) -> None:
    recorder, handed = sweep("many", 2)
    records = recorder.records
    children = [r for r in records.values() if r.of == 0]
    assert len(children) >= 2
    assert {r.state for r in records.values()} == {"COMPLETE"}
    assert all(r.cost_s > 0 for r in records.values())
    assert len({(r.metrics["pattern"], r.metrics["inner_steps"], r.config["test.rate"])
                for r in [records[0], *children]}) == 1 + len(children)  # fmt: skip
    parent = Student.load(recorder.run.trial(0) / "student")
    for child in children:
        student = Student.load(recorder.run.trial(child.id) / "student")
        assert all(torch.equal(p, parent.params[n]) for n, p in student.params.items())
        assert student.spec.pattern == child.metrics["pattern"]
        assert student.spec.inner_rate == child.config["test.rate"]
    second = records[handed[1]["id"]]
    assert second.of is None
    assert handed[1]["trained"] == [str(recorder.run.trial(0))]
    assert any(note == "not trained: the model of trial 0, adapted anew" for note in second.notes)
    assert second.config != records[0].config
    assert second.metrics["train_seconds"] == records[0].metrics["train_seconds"]


def test_the_same_seed_gives_the_same_observations_with_one_setting_or_many(sweep: Any) -> None:
    many, handed = sweep("many", 1)
    again, _ = sweep("again", 1)
    alone, _ = sweep("alone", 1, count=1)
    assert set(alone.records) == {0}
    assert told(alone.records[0].metrics) == told(many.records[0].metrics)
    assert {i: (r.config, told(r.metrics)) for i, r in many.records.items()} == {
        i: (r.config, told(r.metrics)) for i, r in again.records.items()
    }
    asked = [handed[0]["config"], *handed[0]["further"]]
    assert [r.config for r in many.records.values()] == [
        c for c in asked if c in [r.config for r in many.records.values()]
    ]


def test_a_torn_store_is_named_and_the_model_trained_again(sweep: Any) -> None:
    recorder, _ = sweep("torn", 1)
    (recorder.run.trial(0) / "scores.safetensors").write_bytes(b"torn")
    again, handed = sweep("torn", 1)
    record = again.records[handed[0]["id"]]
    assert record.state == "COMPLETE"
    assert any("it is trained again" in note for note in record.notes)


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_here")
def test_further_adaptations_are_trials_beside_the_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep counts each training once, whatever it was scored under, also on resume."""
    values = {"student.width": 4, "student.depth": 2, "meta_batch": 2, "inner_steps": 1}
    small: dict[str, Any] = {
        **values,
        "student.head": "shared",
        "outer_rate": 0.01,
        "order": "first",
    }
    plain: dict[str, Any] = {
        "method": "maml",
        "data": {"source": "glyphs", "queries": 5},
        "space": {name: Fixed(value, why="small") for name, value in small.items()},
        "budget": {"trials": 2, "iterations": 30},
        "evaluation": {"validation_tasks": 40, "test_tasks": 5, "settings": 8},
        "early_stopping": {"enabled": False},
    }
    path = run_sweep(SweepConfig(**plain), name="once", storage=tmp_path)
    results = load_results(path)
    own = [t for t in results.trials if t["of"] is None]
    beside = [t for t in results.trials if t["of"] is not None]
    assert len(own) == 2
    assert beside
    said = f"2 trials and {counted(len(beside), 'further adaptation')} of their models, "
    assert said in "".join(capsys.readouterr())
    assert {t["of"] for t in beside} <= {t["id"] for t in own}
    assert {t["state"] for t in results.trials} == {"COMPLETE"}
    for trial in results.trials:
        kept = {file.name for file in RunDir.open(path).trial(trial["id"]).iterdir()}
        scores = {"scores.safetensors"} if trial["of"] is None else set[str]()
        assert kept == {"result.json", "table.json", "tasks.json", "student"} | scores
    resume(path)
    assert len(load_results(path).trials) == len(results.trials)
    rows = answers(load_results(path), [0.01])["thresholds"][0]["models"]
    assert rows
    assert {row["trial"] for row in rows} <= {t["id"] for t in results.front()}
