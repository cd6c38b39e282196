from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from typing_extensions import override

from tests import bundles, fakes
from trainables._core.digests import CheckpointError, write_digest
from trainables._core.student import Student
from trainables._data import DataError
from trainables._learner import RunSettings, TaskShape
from trainables._ray import LearnerTrainable, failure_of, read_state
from trainables._trial import Chunks, Depot, TrialSettings

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = TrialSettings(
    fakes.FakeLearner,
    TaskShape(5, 1, 2),
    RunSettings(iterations=20, seed=3, validation_tasks=2),
    chunks=Chunks(reports=4, checkpoint_s=0.0),
)


class Data:
    """What the fake method asks of a data set, and its own handle."""

    fingerprint = "data"
    size, channels, mean, std = 8, 1, (0.5,), (0.25,)
    train = validation = test = np.zeros(0)
    opened = 0

    def open(self) -> Any:
        type(self).opened += 1
        return self


class Local(LearnerTrainable):
    """The adapter without Ray: no files where Tune would put them."""

    @override
    def _setup_logdir(self) -> None:
        self._logdir = None


Make = "Callable[..., Local]"


def trial(config: dict[str, Any] | None = None, restore: list[str] | None = None) -> dict[str, Any]:
    return {"id": 0, "config": config or {}, "restore": restore or []}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Local]:
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # of this test process

    def build(
        config: dict[str, Any] | None = None,
        restore: list[str] | None = None,
        settings: TrialSettings = SETTINGS,
        depot: Depot | None = None,
    ) -> Local:
        monkeypatch.setattr(LearnerTrainable.setup, "__defaults__", (settings, Data(), depot))
        return Local(trial(config, restore))

    return build


class Elsewhere:
    """A depot that is a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()

    def newest(self, number: int) -> list[str]:
        self.asked.append(f"newest {number}")
        return sorted((p.name for p in self.folder.glob("checkpoint_*")), reverse=True)

    def fetch(self, place: str, folder: Path) -> None:
        self.asked.append(place)
        if (self.folder / place).is_dir():
            shutil.copytree(self.folder / place, folder)
        else:
            folder.mkdir()


def run_to_end(trainable: Local) -> list[dict[str, Any]]:
    rows = [trainable.train()]
    while not rows[-1]["done"]:
        rows.append(trainable.train())
    return rows


TIMES = (
    "cost_s",
    "process_mib",
    "tasks_per_s",
    "date",
    "timestamp",
    "notes",
    "config",
    "training_iteration",
)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v for k, v in row.items() if k not in TIMES and "time" not in k and "iterations" not in k
    }


@pytest.mark.parametrize("iterations", [1, 3, 7, 8, 10, 100, 2001])
@pytest.mark.parametrize("reports", [1, 8, 10])
def test_reports_are_evenly_spread_and_end_with_the_training(iterations: int, reports: int) -> None:
    at, marks = 0, []
    while at < iterations:
        at = Chunks(reports).boundary(at, iterations)
        marks.append(at)
    assert marks[-1] == iterations
    assert len(marks) == min(iterations, reports)
    gaps = np.diff([0, *marks])
    assert gaps.max() - gaps.min() <= 1


def test_a_trial_reports_its_chunks_and_then_its_end(make: Callable[..., Local]) -> None:
    rows = run_to_end(make({"student.width": 8}))
    assert [row["iteration"] for row in rows] == [5, 10, 15, 20, 20]
    assert all({"loss", "accuracy", "tasks_per_s", "student_params"} <= set(r) for r in rows[:-1])
    assert not any(row.get("finished") for row in rows[:-1])
    last = rows[-1]
    assert last["finished"]
    assert last["should_checkpoint"]
    assert json.loads(last["table"])[0]["pattern"] == "001"
    assert {"accuracy", "adapt_ms", "pattern", "student_params"} <= set(last)
    assert last["cost_s"] > 0


def test_the_loss_is_the_mean_of_its_chunk(make: Callable[..., Local]) -> None:
    rows = run_to_end(make())
    assert rows[1]["loss"] == pytest.approx(sum(1 / i for i in range(6, 11)) / 5)


def test_reports_in_between_leave_the_boundaries_as_they_are(make: Callable[..., Local]) -> None:
    """A slow trial speaks more often; what it says at its boundaries is the same."""
    often = replace(SETTINGS, chunks=Chunks(reports=4, report_s=0.0))
    rows = run_to_end(make(settings=often))
    assert [r["iteration"] for r in rows] == [*range(1, 21), 20]
    with_quick = [r for r in rows[:-1] if "accuracy" in r]
    plain = run_to_end(make())
    assert [r["iteration"] for r in with_quick] == [5, 10, 15, 20]
    assert [timeless(r)["loss"] for r in with_quick] == [r["loss"] for r in plain[:-1]]
    assert timeless(rows[-1]) == timeless(plain[-1])


def test_an_actor_is_reused_and_keeps_the_data_open(make: Callable[..., Local]) -> None:
    trainable = make({"student.width": 8})
    first = run_to_end(trainable)
    opened = Data.opened
    assert trainable.reset(trial({"student.width": 16}))
    second = run_to_end(trainable)
    assert trainable.reset(trial({"student.width": 8}))
    third = run_to_end(trainable)
    assert Data.opened == opened
    assert timeless(first[-1]) == timeless(third[-1])
    assert second[-1]["accuracy"] > first[-1]["accuracy"]
    assert third[-1]["iteration"] == 20


def test_a_trial_goes_on_exactly_where_its_checkpoint_was(
    make: Callable[..., Local], tmp_path: Path
) -> None:
    calm = run_to_end(make())
    for steps in (1, 2, 4):  # the last: trained, not yet finished
        trainable = make()
        for _ in range(steps):
            trainable.train()
        folder = tmp_path / str(steps)
        folder.mkdir()
        trainable.save_checkpoint(str(folder))
        trainable.train()  # goes on; the checkpoint is a snapshot
        again = run_to_end(make(restore=[str(folder)]))
        before = timeless(again[0].pop("before"))
        assert before["iteration"] == 5 * steps, "whoever lost this report gets it again"
        assert before.items() <= timeless(calm[steps - 1]).items()
        assert [timeless(r) for r in again] == [timeless(r) for r in calm[steps:]]
        assert again[0]["notes"] == [f"went on from meta-iteration {5 * steps}"]


@pytest.fixture
def saved(make: Callable[..., Local], tmp_path: Path) -> Path:
    trainable = make()
    trainable.train()
    (tmp_path / "saved").mkdir()
    trainable.save_checkpoint(str(tmp_path / "saved"))
    return tmp_path / "saved"


def damage(folder: Path, how: str) -> None:
    state = folder / "state.pt"
    data = state.read_bytes()
    if how == "truncated":
        state.write_bytes(data[:-100])
    elif how == "flipped":
        state.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    elif how == "no digest":
        (folder / "digest.json").unlink()
    elif how == "half a digest":
        (folder / "digest.json").write_text('{"identity": "')
    elif how == "no state":
        state.unlink()
    else:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


DAMAGES = ["truncated", "flipped", "no digest", "half a digest", "no state", "gone"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_torn_checkpoint_is_named_and_the_one_before_used(
    make: Callable[..., Local], saved: Path, tmp_path: Path, how: str
) -> None:
    trainable = make(restore=[str(saved)])
    trainable.train()
    (tmp_path / "newer").mkdir()
    trainable.save_checkpoint(str(tmp_path / "newer"))
    damage(tmp_path / "newer", how)
    rows = run_to_end(make(restore=[str(tmp_path / "newer"), str(saved)]))
    assert rows[0]["iteration"] == 10
    torn, went_on = rows[0]["notes"]
    assert str(tmp_path / "newer") in torn
    assert "torn" in torn
    assert went_on == "went on from meta-iteration 5"


@pytest.mark.parametrize("how", DAMAGES)
def test_without_a_usable_checkpoint_a_trial_starts_again_and_says_so(
    make: Callable[..., Local], saved: Path, how: str
) -> None:
    damage(saved, how)
    rows = run_to_end(make(restore=[str(saved)]))
    assert rows[0]["iteration"] == 5
    assert rows[0]["notes"][-1] == "no usable checkpoint; started from meta-iteration 0"
    assert rows[-1]["finished"]


@pytest.mark.parametrize("other", ["config", "seed"])
def test_a_checkpoint_of_something_else_is_refused(
    make: Callable[..., Local], saved: Path, other: str
) -> None:
    config = {"student.width": 5} if other == "config" else {}
    run = replace(SETTINGS.run, seed=4) if other == "seed" else SETTINGS.run
    trainable = make(config, [str(saved)], replace(SETTINGS, run=run))
    assert "belongs to another configuration" in trainable.train()["notes"][0]


def test_a_trial_that_starts_from_another_student_is_another_trial(tmp_path: Path) -> None:
    """The path says where the student lies; what it is decides the result."""
    config: dict[str, Any] = {"checkpoint": str(tmp_path)}
    bundles.student().save(tmp_path)
    before = SETTINGS.identity(config, "data")
    assert SETTINGS.identity(config, "data") == before
    bundles.student(inner_steps=1).save(tmp_path)  # the same weights, adapted in another way
    other = SETTINGS.identity(config, "data")
    again = bundles.student(inner_steps=1)
    again.params["head.scale"] += 1
    again.save(tmp_path)
    trained = SETTINGS.identity(config, "data")
    (tmp_path / "model.safetensors").unlink()
    gone = SETTINGS.identity(config, "data")  # its first step says so
    assert len({before, other, trained, gone}) == 4


def test_a_checkpoint_that_would_run_code_is_refused(saved: Path) -> None:
    """The digests are right, the content is a pickle with more than tensors in it."""

    torch.save({"learner": Path("x")}, saved / "state.pt")
    write_digest(saved, "mine")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(saved, "mine")


def test_tune_can_restore_a_dead_actors_trial(make: Callable[..., Local], saved: Path) -> None:
    trainable = make()
    trainable.load_checkpoint(str(saved))
    assert trainable.train()["iteration"] == 10


@pytest.mark.parametrize("how", DAMAGES)
def test_a_dead_actors_trial_goes_on_from_the_checkpoint_before_a_torn_one(
    make: Callable[..., Local], saved: Path, tmp_path: Path, how: str
) -> None:
    places = [tmp_path / f"checkpoint_{number:06d}" for number in (8, 9, 10)]
    trainable = make(restore=[str(saved)])
    for place in places:
        trainable.train()
        place.mkdir()
        trainable.save_checkpoint(str(place))
    damage(places[1], how)
    again = make(restore=[str(saved)])
    again.load_checkpoint(str(places[1]))  # the last that Tune knows; the next is not whole yet
    row = again.train()
    assert row["iteration"] == 15
    assert any(str(places[1]) in note for note in row["notes"])
    damage(places[0], how)
    again = make(restore=[str(saved)])
    again.load_checkpoint(str(places[1]))
    assert again.train()["iteration"] == 10  # from what the driver gave


def test_a_trial_goes_on_from_a_checkpoint_that_lies_elsewhere(
    make: Callable[..., Local], saved: Path, tmp_path: Path
) -> None:
    depot = Elsewhere(tmp_path / "elsewhere")
    shutil.copytree(saved, depot.folder / "checkpoint_000001")
    shutil.copytree(saved, depot.folder / "checkpoint_000002")
    damage(depot.folder / "checkpoint_000002", "flipped")
    places = ["checkpoint_000003", "checkpoint_000002", "checkpoint_000001"]
    row = make(restore=places, depot=depot).train()
    assert row["iteration"] == 10
    gone, torn, went_on = row["notes"]
    assert gone == "The checkpoint checkpoint_000003 is torn: it has no whole digest.json."
    assert torn.startswith("The checkpoint checkpoint_000002 is torn")
    assert went_on == "went on from meta-iteration 5"
    assert depot.asked == places

    # Tune brings the newest one into a directory of its own, beside those of other trials
    brought = tmp_path / "checkpoint_tmp_2"
    shutil.copytree(saved, brought)
    shutil.copytree(depot.folder / "checkpoint_000002", tmp_path / "checkpoint_tmp_1")
    again = make(depot=depot)
    again.load_checkpoint(str(brought))
    assert again.train()["notes"] == ["went on from meta-iteration 5"]
    damage(brought, "flipped")
    again = make(depot=depot)
    again.load_checkpoint(str(brought))
    row = again.train()
    assert [str(brought) in row["notes"][0], row["notes"][-1]] == [True, went_on]
    assert depot.asked[-3:] == ["newest 0", "checkpoint_000002", "checkpoint_000001"]


def test_a_model_that_cannot_be_borrowed_is_trained_again(
    make: Callable[..., Local], tmp_path: Path
) -> None:
    depot = Elsewhere(tmp_path)
    trainable = make(depot=depot)
    trainable.reset_config({**trial(), "trained": ["trained/7"]})
    assert depot.asked == ["trained/7"]
    (note,) = trainable.train()["notes"]
    assert note.startswith("trained/7/scores.safetensors holds no readable scores: ")
    assert note.endswith("; it is trained again.")


def test_the_last_checkpoint_is_the_student(make: Callable[..., Local], tmp_path: Path) -> None:
    trainable = make({"student.width": 8})
    run_to_end(trainable)
    trainable.save_checkpoint(str(tmp_path))
    assert Student.load(tmp_path / "student").spec.width == 8
    files = json.loads((tmp_path / "digest.json").read_text())["files"]
    assert sorted(files) == ["student/model.safetensors", "student/pattern.json"]


@pytest.mark.parametrize(
    ("sick", "kind", "reason"),
    [
        ("nan", "diverged", "the loss became nan at meta-iteration 3 of 20"),
        ("raise", "error", "RuntimeError: a broken layer at step 3"),
        ("memory", "out of memory", "MemoryError: no room for 12 GiB"),
    ],
)
def test_a_failure_is_a_result_with_its_kind_and_reason(
    make: Callable[..., Local], sick: str, kind: str, reason: str
) -> None:
    trainable = make({"sick": sick})
    (row,) = run_to_end(trainable)
    failure = row["failure"]
    assert (failure["kind"], failure["reason"]) == (kind, reason)
    assert "Traceback" in failure["traceback"]
    assert not row.get("should_checkpoint")
    assert trainable.reset(trial())
    assert run_to_end(trainable)[-1]["finished"], "the actor lives on"


def test_a_trial_that_takes_too_long_fails_and_says_how_far_it_came(
    make: Callable[..., Local],
) -> None:
    rows = run_to_end(make(settings=replace(SETTINGS, limit_s=0.0)))
    failure = rows[-1]["failure"]
    assert failure["kind"] == "time limit"
    assert 0 < failure["iteration"] < SETTINGS.run.iterations
    assert (
        f"meta-iteration {failure['iteration']} of {SETTINGS.run.iterations}" in failure["reason"]
    )
    assert "budget.trial_hours" in failure["reason"]


def test_waiting_for_others_is_not_counted_against_a_trial(make: Callable[..., Local]) -> None:
    trainable = make(settings=replace(SETTINGS, limit_s=60.0))
    trainable._cost_s, trainable._lease_s = 70.0, 20.0
    assert "failure" not in trainable.train()
    trainable._lease_s = 0.0
    assert trainable.train()["failure"]["kind"] == "time limit"


def test_data_that_cannot_be_read_is_told_from_other_failures(
    make: Callable[..., Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> None:
        raise DataError("The images of class 3 are gone.")

    monkeypatch.setattr(Data, "open", gone)
    (row,) = run_to_end(make())
    assert row["failure"]["kind"] == "bad data"
    assert row["failure"]["reason"] == "The images of class 3 are gone."


def test_after_running_out_of_memory_a_trial_takes_fewer_tasks_at_a_time(
    make: Callable[..., Local],
) -> None:
    trainable = make()
    assert trainable.reset({**trial(), "halvings": 1})
    row = trainable.train()
    assert row["notes"] == ["ran out of memory; went on with 1/2 of the tasks at a time"]
    learner: Any = trainable._learner
    assert learner.run.halvings == 1
    assert run_to_end(trainable)[-1]["finished"]


def test_an_impossible_configuration_fails_its_trial_alone(make: Callable[..., Local]) -> None:
    (row,) = run_to_end(make({"student.widht": 8}))
    assert row["failure"]["kind"] == "error"
    assert "student.widht" in row["failure"]["reason"]


def test_a_failure_without_words_has_its_type() -> None:
    assert failure_of(KeyError(), 0)["reason"] == "KeyError"
    assert math.isfinite(failure_of(ValueError("x\ny"), 4)["iteration"])
    assert failure_of(ValueError("x\ny"), 4)["reason"] == "ValueError: x"


def test_without_its_parameters_the_adapter_says_what_it_needs() -> None:
    with pytest.raises(TypeError, match="with_parameters"):
        Local(trial())
