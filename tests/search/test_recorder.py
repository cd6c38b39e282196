from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from search._optuna import Study
from search.constraints import Constraint
from search.recorder import Record, Recorder
from search.rundir import RunDir
from spaces._domains import Int
from trainables._core.digests import write_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SPACE = {"width": Int(4, 32, why="small")}
METRICS = {"accuracy": 0.8, "adapt_ms": 2.0, "pattern": "011"}


class Watcher:
    """An observer that remembers what it is told, and that the files were there by then."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.seen = run, list[str]()

    def started(self, record: Record) -> None:
        self.seen.append(f"started {record.id}")

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        self.seen.append(f"reported {record.id} at {row['iteration']}")

    def finished(self, record: Record) -> None:
        written = self.run.result(record.id)
        assert written is not None
        assert written["state"] == record.state
        self.seen.append(f"finished {record.id} {record.state}")


@pytest.fixture
def open_run(tmp_path: Path) -> Callable[[], Recorder]:
    def make() -> Recorder:
        run = RunDir(tmp_path)
        (tmp_path / "trials").mkdir(exist_ok=True)
        bound = (Constraint.parse("adapt_ms <= 5"),)
        study = Study(run.journal, "mine", SPACE, {"accuracy": "max"}, bound)
        return Recorder(run, study, (Watcher(run),))

    return make


def save_student(recorder: Recorder, number: int, name: str = "checkpoint_000001") -> None:
    folder = recorder.run.ray / "session-1" / f"trial-{number:05d}-abc" / name
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "model.safetensors").write_bytes(b"weights")
    write_digest(folder, "identity")
    recorder.checkpoint(number, str(folder))


def end(recorder: Recorder, metrics: Mapping[str, Any] = METRICS) -> int:
    number = recorder.study.ask().number
    return end_again(recorder, number, metrics)


def end_again(recorder: Recorder, number: int, metrics: Mapping[str, Any] = METRICS) -> int:
    from search._optuna import Suggestion

    recorder.start(Suggestion(number, {"width": 8}))
    recorder.report(number, {"iteration": 5, "accuracy": 0.5, "loss": 1.0, "cost_s": 1.5})
    save_student(recorder, number)
    table = json.dumps([{"pattern": "011"}])
    row = {**metrics, "iteration": 10, "cost_s": 3.0, "finished": True, "table": table}
    recorder.report(number, {**row, "notes": ["went on from meta-iteration 5"]})
    recorder.finish(number)
    return number


def test_a_curve_is_written_once_a_second_and_at_every_checkpoint(
    open_run: Callable[[], Recorder],
) -> None:
    from search._optuna import Suggestion

    recorder, now = open_run(), 0.0
    recorder._clock = lambda: now
    recorder.start(Suggestion(recorder.study.ask().number, {"width": 8}))

    def known() -> list[int]:
        result = recorder.run.result(0)
        assert result is not None
        return [point["iteration"] for point in result["reports"]]

    def report(iteration: int) -> None:
        recorder.report(0, {"iteration": iteration, "accuracy": 0.5})

    report(1)
    assert known() == [], "it was written when the trial began"
    now = 1.0
    report(2)
    assert known() == [1, 2]
    report(3)
    assert known() == [1, 2]
    save_student(recorder, 0)
    assert known() == [1, 2, 3], "a trial that goes on from here does not report them again"
    recorder.lose(0, "process died", "no word")
    assert known() == [1, 2, 3]


def test_a_complete_trial_leaves_its_result_its_table_and_its_student(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    number = end(recorder)
    result = recorder.run.result(number)
    assert result is not None
    assert result["state"] == "COMPLETE"
    assert result["metrics"] == METRICS, "not mixed with quick values of the training"
    assert result["cost_s"] == 3.0
    assert result["notes"] == ["went on from meta-iteration 5"]
    assert result["reports"] == [{"iteration": 5, "accuracy": 0.5, "loss": 1.0}]
    folder = recorder.run.trial(number)
    assert (folder / "student" / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "table.json").read_text()) == [{"pattern": "011"}]
    assert recorder.study.states() == {number: "COMPLETE"}
    assert not recorder.run.checkpoints(number)
    assert recorder.observers[0].seen == [  # type: ignore[attr-defined]
        "started 0", "reported 0 at 5", "reported 0 at 10", "finished 0 COMPLETE",
    ]  # fmt: skip


def test_a_trial_without_a_usable_number_fails_and_says_which(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    end(recorder, {**METRICS, "adapt_ms": math.nan})
    (record,) = recorder.of_state("FAIL")
    assert record.failure == {
        "kind": "no result",
        "reason": "the metric adapt_ms is nan, which is no finite number.",
    }
    assert recorder.study.states() == {0: "FAIL"}
    result = recorder.run.result(0)
    assert result is not None
    assert result["metrics"]["adapt_ms"] is None


def test_a_trial_stopped_early_is_pruned(open_run: Callable[[], Recorder]) -> None:
    recorder = open_run()
    suggestion = recorder.study.ask()
    recorder.start(suggestion)
    recorder.report(0, {"iteration": 5, "accuracy": 0.5, "cost_s": 1.0})
    recorder.finish(0)
    (record,) = recorder.of_state("PRUNED")
    assert record.metrics == {"accuracy": 0.5}
    assert record.stopped == "stopped early at meta-iteration 5: others were better"
    assert recorder.study.states() == {0: "PRUNED"}


def test_a_failed_tell_is_an_error(open_run: Callable[[], Recorder]) -> None:
    recorder = open_run()
    end(recorder)
    with pytest.raises(Exception, match=r"COMPLETE|finished|already"):
        recorder.lose(0, "process died", "told once more")


def test_a_finished_trial_without_its_student_is_an_error(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    recorder.start(recorder.study.ask())
    recorder.report(0, {**METRICS, "iteration": 9, "finished": True, "table": "[]"})
    with pytest.raises(RuntimeError, match="student is in none of"):
        recorder.finish(0)


def test_a_resumed_trial_gets_its_two_last_checkpoints_newest_first(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    suggestion = recorder.study.ask()
    assert recorder.start(suggestion) == []
    for name in ("checkpoint_000000", "checkpoint_000001", "checkpoint_000002"):
        save_student(recorder, 0, name)
    again = open_run()
    assert again.reconcile() == [0]
    paths = again.start(again.study.ask_again(0))
    assert [p.rsplit("/", 1)[1] for p in paths] == ["checkpoint_000002", "checkpoint_000001"]
    assert all(p.startswith(str(again.run.path)) for p in paths)


def test_a_checkpoint_that_nobody_noted_is_gone_on_from_first(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    recorder.start(recorder.study.ask())
    for number in range(3):
        save_student(recorder, 0, f"checkpoint_{number:06}")
    noted = (recorder.run.trial(0) / "checkpoint.json").read_text()
    save_student(recorder, 0, "checkpoint_000003")  # the disk was full when it was to be noted
    (recorder.run.trial(0) / "checkpoint.json").write_text(noted)
    again = open_run()
    paths = again.start(again.study.ask_again(0))
    assert [p[-1] for p in paths] == ["3", "2", "1"], "the oldest is no longer wanted"


def test_the_report_of_a_checkpoint_that_nobody_noted_is_not_lost(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    recorder.start(recorder.study.ask())
    recorder.report(0, {"iteration": 5, "accuracy": 0.1})
    before = {"iteration": 10, "accuracy": 0.2, "cost_s": 3.0}
    recorder.report(0, {"iteration": 15, "accuracy": 0.3, "cost_s": 4.0, "before": before})
    assert recorder.records[0].reports == [
        {"iteration": 5, "accuracy": 0.1},
        {"iteration": 10, "accuracy": 0.2},
        {"iteration": 15, "accuracy": 0.3},
    ]
    assert "before" not in recorder.records[0].metrics


@pytest.mark.parametrize("damaged", ['{"checkpoints": ["ra', "{}", "[]"])
def test_a_damaged_list_of_checkpoints_is_named_and_they_are_found_by_themselves(
    open_run: Callable[[], Recorder], damaged: str
) -> None:
    recorder = open_run()
    recorder.start(recorder.study.ask())
    for name in ("checkpoint_000002", "checkpoint_000010"):
        save_student(recorder, 0, name)
    (recorder.run.trial(0) / "checkpoint.json").write_text(damaged)
    again = open_run()
    paths = again.start(again.study.ask_again(0))
    assert [p.rsplit("/", 1)[1] for p in paths] == ["checkpoint_000010", "checkpoint_000002"]
    (note,) = again.records[0].notes
    assert "0/checkpoint.json is damaged" in note


def test_a_student_that_is_torn_is_not_kept_and_the_trial_not_complete(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    recorder.start(recorder.study.ask())
    save_student(recorder, 0)
    (saved,) = recorder.run.checkpoints(0)
    (saved / "student" / "model.safetensors").write_bytes(b"weightz")
    recorder.report(0, {**METRICS, "iteration": 9, "finished": True, "table": "[]"})
    with pytest.raises(RuntimeError, match=r"is torn: student/model\.safetensors .*fewtune resume"):
        recorder.finish(0)
    assert open_run().reconcile() == [0]


def test_reports_that_a_resumed_trial_repeats_are_replaced(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    recorder.start(recorder.study.ask())
    for iteration, accuracy in ((5, 0.1), (10, 0.2), (5, 0.3)):
        recorder.report(0, {"iteration": iteration, "accuracy": accuracy})
    save_student(recorder, 0)
    again = open_run()
    assert again.records[0].reports == [{"iteration": 5, "accuracy": 0.3}]


def test_what_is_final_on_disk_and_not_in_the_study_is_told(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    number = end(recorder)
    logs = recorder.run.journal.read_text("utf-8").splitlines(keepends=True)
    recorder.run.journal.write_text("".join(logs[:-1]), "utf-8")  # the tell is the last line
    again = open_run()
    assert again.study.states() == {number: "RUNNING"}
    assert again.reconcile() == []
    assert again.study.states() == {number: "COMPLETE"}


def fail(recorder: Recorder, reason: str) -> None:
    suggestion = recorder.study.ask()
    recorder.start(suggestion)
    failure = {"kind": "error", "reason": reason, "iteration": 3, "traceback": "Traceback ..."}
    recorder.report(suggestion.number, {"iteration": 3, "failure": failure})
    recorder.finish(suggestion.number)


def test_three_failures_alike_and_nothing_else_are_hopeless(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    for number in range(2):
        fail(recorder, f"ValueError: layer {number} is 0.{number}")
        assert not recorder.hopeless()
    fail(recorder, "ValueError: layer 2 is 0.2")
    assert "first 3 trials all failed in the same way" in recorder.hopeless()
    assert str(recorder.run.trial(2) / "error.txt") in recorder.hopeless()
    assert (recorder.run.trial(2) / "error.txt").read_text() == "Traceback ..."


def test_failures_of_different_kinds_or_beside_a_success_are_not(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    for reason in ("ValueError: a", "KeyError: b", "ValueError: a"):
        fail(recorder, reason)
    assert not recorder.hopeless()
    end(recorder)
    for _ in range(4):
        fail(recorder, "ValueError: a")
    assert not recorder.hopeless()


def test_what_an_earlier_session_failed_at_is_not_held_against_this_one(
    open_run: Callable[[], Recorder],
) -> None:
    recorder = open_run()
    for _ in range(3):
        fail(recorder, "ValueError: a")
    assert recorder.hopeless()
    assert not open_run().hopeless()
