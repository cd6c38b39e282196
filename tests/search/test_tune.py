from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from search._limits import Limits
from search._schedulers import ParetoHalving
from search._tune import LOSSES, RESTARTS, Reporter, StudySearcher, _scheduler, died
from search.config import SweepConfig
from search.errors import FailedError
from search.remote import away
from search.storage import StorageError

if TYPE_CHECKING:
    from pathlib import Path

KILLED = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory"
GONE = "The actor is dead because its node has died. Node Id: 1f"
UNREACHED = "The actor 1f is unavailable: The actor is temporarily unavailable: RpcError: RPC error"
CRASHED = "The actor died unexpectedly before finishing this task."
FULL = "ray::LearnerTrainable.save() OSError: [Errno 28] No space left on device: '/runs/a'"


class Notes:
    """A recorder that notes what it is told, or fails."""

    def __init__(self, path: Path, error: Exception | None = None) -> None:
        self.run, self.error = SimpleNamespace(path=path), error
        self.records, self.told = {0: SimpleNamespace(state="RUNNING")}, list[str]()
        self.last = False

    def report(self, number: int, row: dict[str, Any]) -> None:
        self._note(f"report {number} {sorted(row)}")

    def checkpoint(self, number: int, path: str) -> None:
        self._note(f"checkpoint {number} {path}")

    def finish(self, number: int) -> None:
        self._note(f"finish {number}")

    def lose(self, number: int, kind: str, _: str) -> None:
        self._note(f"lose {number}: {kind}")

    def at_end(self, _: int) -> bool:
        return self.last

    def hopeless(self) -> str:
        return ""

    def _note(self, line: str) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(line)


def reporter(notes: Notes, pressed: bool = False) -> Reporter:
    recorder = cast("Any", notes)
    limits = Limits(recorder, interrupted=lambda: pressed)
    return Reporter(
        recorder, [], limits, lambda n, halved: notes.told.append(f"again {n} {halved}")
    )


def a_trial(tmp_path: Path, *failures: str) -> Any:
    file = tmp_path / "error.txt"
    file.write_text(
        "".join(f"Failure # {n} (occurred)\n{text}\n" for n, text in enumerate(failures))
    )
    return SimpleNamespace(
        config={"id": 0}, error_file=str(file), last_result={"iteration": 5}, trial_id="a",
        status="RUNNING", run_metadata=SimpleNamespace(num_failures=len(failures)),
        should_recover=lambda: False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (KILLED, "out of memory"),
        (GONE, "node lost"),
        (UNREACHED, "node lost"),
        (CRASHED, "process died"),
        ("", "process died"),
    ],
)
def test_a_death_has_a_kind(text: str, kind: str) -> None:
    found, reason = died(text)
    assert found == kind
    assert reason in (text, "its process ended without a word")


@pytest.mark.parametrize(
    ("texts", "halvings", "counted"),
    [
        ((KILLED,), 2, 1),
        ((GONE,), None, -1),
        ((UNREACHED,), None, -1),
        ((CRASHED,), None, 1),
        ((KILLED, CRASHED), None, 2),  # only the last death is looked at
    ],
)
def test_only_a_trial_that_ran_out_of_memory_goes_on_smaller_and_a_lost_node_does_not_count(
    tmp_path: Path, texts: tuple[str, ...], halvings: int | None, counted: int
) -> None:
    trial = a_trial(tmp_path, *texts)
    ours = reporter(Notes(tmp_path))
    for _ in range(2):
        ours.on_trial_recover(1, [trial], trial)
    assert trial.config.get("halvings") == halvings
    assert trial.run_metadata.num_failures == counted


def test_losses_without_end_count_at_last(tmp_path: Path) -> None:
    trial, ours = a_trial(tmp_path, UNREACHED), reporter(Notes(tmp_path))
    for number in range(LOSSES + 2):
        trial.run_metadata.num_failures = 1
        ours.on_trial_recover(1, [trial], trial)
        assert trial.run_metadata.num_failures == int(number >= LOSSES)


@pytest.mark.parametrize(
    ("text", "times", "halvings"),
    [(CRASHED, RESTARTS, [0, 0]), (KILLED, RESTARTS, [1, 2]), (GONE, RESTARTS + LOSSES, [0] * 22)],
)
def test_a_trial_that_tune_gives_up_too_early_is_handed_out_again_but_not_without_end(
    tmp_path: Path, text: str, times: int, halvings: list[int]
) -> None:
    notes = Notes(tmp_path)
    ours = reporter(notes)
    config = {"id": 0}
    for _ in range(times):
        trial = a_trial(tmp_path, text)
        trial.should_recover, trial.config = (lambda: True), dict(config)
        ours.on_trial_error(1, [trial], trial)
        config["halvings"] = int(notes.told[-1].split()[-1])
    assert notes.told == [f"again 0 {n}" for n in halvings]
    trial = a_trial(tmp_path, text)
    trial.should_recover = lambda: True
    ours.on_trial_error(1, [trial], trial)
    assert notes.told[times:] == [f"lose 0: {died(text)[0]}"]


def test_a_searcher_waits_for_those_that_may_come_again_and_then_is_finished() -> None:
    class Study:
        drawn = 0

        def ask(self) -> Any:
            self.drawn += 1
            return SimpleNamespace(number=self.drawn - 1, config={})

        def ask_again(self, number: int) -> Any:
            return SimpleNamespace(number=number, config={})

    recorder: Any = SimpleNamespace(study=Study(), records={}, start=lambda _: [])
    searcher = StudySearcher(recorder, [7], str, trials=2)

    def number(name: str) -> Any:
        given = searcher.suggest(name)
        return given["id"] if isinstance(given, dict) else given

    assert [number(name) for name in "abc"] == [7, 0, None]
    searcher.on_trial_complete("a", {})
    assert number("c") is None
    searcher.on_trial_complete("b", error=True)
    searcher.again(0, 1)
    given = searcher.suggest("c")
    assert isinstance(given, dict)
    assert (given["id"], given["halvings"]) == (0, 1)
    assert number("d") is None
    searcher.on_trial_complete("c", {})
    assert number("d") == "FINISHED"


@pytest.mark.parametrize("event", ["on_trial_recover", "on_trial_error"])
def test_a_trial_that_cannot_save_ends_the_sweep_and_is_not_blamed(
    tmp_path: Path, event: str
) -> None:
    notes, trial = Notes(tmp_path), a_trial(tmp_path, CRASHED, FULL)
    ours = reporter(notes)
    getattr(ours, event)(1, [trial], trial)
    with pytest.raises(StorageError, match="No space left on device"):
        ours.on_step_end(1, [trial])
    assert not notes.told


@pytest.mark.parametrize("event", ["on_trial_recover", "on_trial_error"])
def test_a_bucket_that_stays_away_from_a_trial_ends_the_sweep_and_blames_none(
    tmp_path: Path, event: str
) -> None:
    error = away("/runs/a", "s3://bucket/a", OSError("AWS Error SLOW_DOWN: hunter2"))
    trial = a_trial(tmp_path, CRASHED, f"ray.exceptions.RayTaskError(AwayError): {error}")
    notes = Notes(tmp_path)
    ours = reporter(notes)
    getattr(ours, event)(1, [trial], trial)
    with pytest.raises(FailedError, match=r"^The run at /runs/a .*: it answers SLOW_DOWN \(.*\.$"):
        ours.on_step_end(1, [trial])
    assert not notes.told


def test_a_trial_that_died_too_often_is_lost(tmp_path: Path) -> None:
    notes, trial = Notes(tmp_path), a_trial(tmp_path, CRASHED, GONE)
    reporter(notes).on_trial_error(1, [trial], trial)
    assert notes.told == ["lose 0: node lost"]
    trial.error_file = str(tmp_path / "nowhere")
    reporter(notes).on_trial_error(1, [trial], trial)
    assert notes.told[1:] == ["lose 0: process died"]


def test_what_cannot_be_recorded_ends_the_sweep_after_the_step(tmp_path: Path) -> None:
    """Tune takes an error of a callback for the trial's, or logs it and forgets it."""
    notes, trial = Notes(tmp_path, OSError(errno.ENOSPC, "full")), a_trial(tmp_path)
    ours = reporter(notes)
    ours.on_trial_result(1, [trial], trial, {"iteration": 5})
    ours.on_checkpoint(1, [trial], trial, cast("Any", SimpleNamespace(path="a")))
    ours.on_trial_complete(1, [trial], trial)
    with pytest.raises(OSError, match="full"):
        ours.on_step_end(1, [trial])


def test_after_ctrl_c_a_trial_saves_its_state_and_is_left_to_be_resumed(tmp_path: Path) -> None:
    notes, trial = Notes(tmp_path), a_trial(tmp_path)
    calm, hurried = reporter(notes), reporter(notes, pressed=True)
    row: dict[str, Any] = {"iteration": 5}
    calm.on_trial_result(1, [trial], trial, row)
    assert row == {"iteration": 5}
    hurried.on_trial_result(1, [trial], trial, row)
    assert row["should_checkpoint"]
    failed = {"iteration": 5, "failure": {"kind": "error"}}
    hurried.on_trial_result(1, [trial], trial, failed)
    assert "should_checkpoint" not in failed
    notes.told.clear()
    hurried.on_trial_complete(1, [trial], trial)
    assert not notes.told
    notes.last = True  # it had come to its end by itself
    hurried.on_trial_complete(1, [trial], trial)
    assert notes.told == ["finish 0"]


def test_halving_is_as_the_sweep_file_says() -> None:
    early = {"grace": 0.2, "reduction": 3.0, "tolerance": 0.3}
    config = SweepConfig.model_validate(
        {"method": "maml", "budget": {"iterations": 100}, "early_stopping": early}
    )
    recorder = SimpleNamespace(of_state=lambda *_: [])
    found = _scheduler(config, cast("Any", SimpleNamespace(recorder=recorder)))
    assert isinstance(found, ParetoHalving)
    assert [rung.iteration for rung in found.rungs] == [20, 60]
    assert (found.reduction, found.tolerance) == (3.0, 0.3)


def test_halving_keeps_what_is_near_the_front_unless_told_otherwise() -> None:
    config = SweepConfig.model_validate({"method": "maml"})
    recorder = SimpleNamespace(of_state=lambda *_: [])
    found = _scheduler(config, cast("Any", SimpleNamespace(recorder=recorder)))
    assert isinstance(found, ParetoHalving)
    assert found.tolerance == 0.08


def test_halving_of_a_resumed_sweep_knows_all_that_came_before_the_stop() -> None:
    """Interrupted and failed trials too: they had their part in what was decided."""
    config = SweepConfig.model_validate({"method": "maml", "budget": {"iterations": 100}})
    reports = [{"iteration": 50, "accuracy": 0.5, "student_params": 1000}]
    records = {
        state: SimpleNamespace(id=number, reports=reports)
        for number, state in enumerate(("COMPLETE", "PRUNED", "FAIL", "RUNNING"))
    }
    recorder = SimpleNamespace(of_state=lambda *states: [records[state] for state in states])
    found = _scheduler(config, cast("Any", SimpleNamespace(recorder=recorder)))
    assert isinstance(found, ParetoHalving)
    first = found.rungs[0].entered
    assert first == {"0", "1", "2", "3"}
    found.decide("3", 60, {"accuracy": 0.9, "student_params": 1000})  # it goes on from there
    assert found.rungs[0].points["3"] == (-0.5, 1000)
