"""Further adaptations become trials of their own; no kill loses or repeats one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from search._optuna import Study, Suggestion
from search.constraints import Constraint
from search.further import FurtherTrials
from search.recorder import Record, Recorder
from search.rundir import RunDir
from spaces._domains import Choice, Float, Int, Space, Value
from trainables._core.digests import write_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SPACE: Space = {
    "width": Int(4, 32, why="small"),
    "patterns": Choice(("all", "suffixes"), stage="adaptation", why="both"),
    "epsilon": Float(0.0, 0.05, stage="adaptation", why="small"),
}
OWN: dict[str, Value] = {"width": 8, "patterns": "all", "epsilon": 0.01}


class KilledError(Exception):
    """Stands for SIGKILL."""


class Watcher:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def started(self, record: Record) -> None:
        self.seen.append(f"started {record.id}")

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        self.seen.append(f"reported {record.id} at {row['iteration']}")

    def finished(self, record: Record) -> None:
        self.seen.append(f"finished {record.id}")


@pytest.fixture
def open_run(tmp_path: Path) -> Callable[[], tuple[Recorder, FurtherTrials, Watcher]]:
    def make() -> tuple[Recorder, FurtherTrials, Watcher]:
        run, watcher = RunDir(tmp_path), Watcher()
        (tmp_path / "trials").mkdir(exist_ok=True)
        bounds = (Constraint.parse("adapt_ms <= 5"),)
        study = Study(run.journal, "mine", SPACE, {"accuracy": "max"}, bounds, startup=2)
        recorder = Recorder(run, study)
        further = FurtherTrials(recorder, (watcher,))
        recorder.observers = (further,)
        return recorder, further, watcher

    return make


def entry(epsilon: float, accuracy: float, **metrics: Any) -> dict[str, Any]:
    return {
        "config": {**OWN, "epsilon": epsilon},
        "metrics": {"accuracy": accuracy, "adapt_ms": 1.0, **metrics},
        "table": [{"pattern": "011", "step": 1}],
        "spec": {"pattern": "011"},
        "cost_s": 0.25,
    }


ENTRIES = [entry(0.02, 0.7), entry(0.03, 0.6), entry(0.04, 0.5)]


def train(recorder: Recorder, entries: list[dict[str, Any]] = ENTRIES) -> int:
    number = recorder.study.ask().number
    recorder.start(Suggestion(number, OWN))
    folder = recorder.run.ray / "session-1" / f"trial-{number:05d}-abc" / "checkpoint_000001"
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "model.safetensors").write_bytes(b"weights")
    (folder / "scores.safetensors").write_bytes(b"scores")
    write_digest(folder, "identity")
    recorder.checkpoint(number, str(folder))
    row = {"accuracy": 0.8, "adapt_ms": 2.0, "iteration": 10, "cost_s": 3.0, "finished": True}
    recorder.report(number, {**row, "table": "[]", "further": json.dumps(entries)})
    recorder.finish(number)
    return number


def test_each_is_a_complete_trial_with_all_its_files(open_run: Any) -> None:
    recorder, _, watcher = open_run()
    assert train(recorder) == 0
    assert recorder.study.states() == dict.fromkeys(range(4), "COMPLETE")
    for number, told in zip((1, 2, 3), ENTRIES, strict=True):
        folder, result = recorder.run.trial(number), recorder.run.result(number)
        assert result["of"] == 0
        assert result["state"] == "COMPLETE"
        assert result["config"] == told["config"]
        assert result["metrics"] == told["metrics"]
        assert result["cost_s"] == 0.25
        assert (folder / "student" / "model.safetensors").read_bytes() == b"weights"
        assert json.loads((folder / "student" / "pattern.json").read_text()) == told["spec"]
        assert json.loads((folder / "table.json").read_text()) == told["table"]
    assert not (recorder.run.trial(0) / "further.json").exists()
    assert (recorder.run.trial(0) / "scores.safetensors").read_bytes() == b"scores"
    assert watcher.seen[:3] == ["started 1", "reported 1 at 0", "finished 1"]
    assert recorder.records[0].of is None


def test_the_study_learns_from_each(open_run: Any) -> None:
    recorder, _, _ = open_run()
    train(recorder, [entry(0.02, 0.7, adapt_ms=9.0)])
    told = recorder.study._study.trials[1]
    assert told.params == {**OWN, "epsilon": 0.02}
    assert told.values == [0.7]
    assert told.constraints == {"adapt_ms <= 5": pytest.approx(0.8)}
    assert told.user_attrs["of"] == 0


def test_they_do_not_change_what_is_drawn_at_random(open_run: Any, tmp_path: Path) -> None:
    recorder, _, _ = open_run()
    train(recorder)
    drawn = recorder.study.ask().config
    other = Study(tmp_path / "other.journal", "mine", SPACE, {"accuracy": "max"}, startup=2)
    other.ask()
    assert other.ask().config == drawn


def test_one_without_a_usable_number_is_no_observation(open_run: Any) -> None:
    recorder, _, _ = open_run()
    train(recorder, [entry(0.02, float("nan")), entry(0.03, 0.6)])
    assert recorder.study.states() == dict.fromkeys(range(2), "COMPLETE")
    assert recorder.records[1].config["epsilon"] == 0.03


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("where", ["weights", "result", "study"])
def test_a_kill_anywhere_loses_none_and_repeats_none(
    open_run: Any, monkeypatch: pytest.MonkeyPatch, before: int, where: str
) -> None:
    """Killed at one of the three writes of a trial, after none, one or two are told."""
    recorder, _, _ = open_run()
    at = {"weights": 0}

    def killer(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if recorder.records.get(0) and recorder.records[0].state == "COMPLETE":
                at["weights"] += 1
                if at["weights"] > before:
                    raise KilledError
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        if where == "weights":
            patch.setattr("search.further._share", killer(__import__("os").link))
        elif where == "result":
            real = RunDir.write_result

            def write(run: RunDir, result: dict[str, Any]) -> None:
                kill = result.get("of") is not None
                (killer(real) if kill else real)(run, result)

            patch.setattr(RunDir, "write_result", write)
        else:
            patch.setattr(recorder.study, "add", killer(recorder.study.add))
        with pytest.raises(KilledError):
            train(recorder)
    again, further, _ = open_run()
    assert again.reconcile() == []
    further.reconcile()
    assert again.study.states() == dict.fromkeys(range(4), "COMPLETE")
    found = sorted(r.config["epsilon"] for r in again.records.values())
    assert found == [0.01, 0.02, 0.03, 0.04]
    assert [t.values[0] for t in again.study._study.trials] == [0.8, 0.7, 0.6, 0.5]
    assert not list(again.run.path.rglob("further.json"))
    assert open_run()[1].reconcile() == 0


def test_the_same_training_is_found_by_its_content(open_run: Any) -> None:
    recorder, further, _ = open_run()
    train(recorder)
    place = str(recorder.run.trial(0))
    assert further.trained({**OWN, "epsilon": 0.0, "patterns": "suffixes"}) == [place]
    assert further.trained({**OWN, "width": 9}) == []
    assert open_run()[1].trained(OWN) == [place], "also after a restart"
