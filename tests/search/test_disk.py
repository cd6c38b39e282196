"""The room that a run may take."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from search.config import SweepConfig, load_sweep
from search.constraints import Constraint
from search.disk import BEST, EVERY_S, Disk, DiskLimitError, taken
from search.errors import UserError
from search.recorder import Recorder
from search.rundir import SCORES, RunDir, read_json
from search.sizes import read_size

if TYPE_CHECKING:
    from pathlib import Path

KB = 1000
CONFIG = SweepConfig(
    method="maml", objectives={"accuracy": "max", "student_params": "min"},
    constraints=(Constraint.parse("student_params <= 99"),),
)  # fmt: skip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def trial(run: RunDir, number: int, accuracy: float, params: int, state: str = "COMPLETE") -> Any:
    """A trial of 100 kB, most of it weights."""
    folder = run.trial(number)
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "model.safetensors").write_bytes(bytes(60 * KB))
    (folder / SCORES).write_bytes(bytes(39 * KB))
    metrics = {"accuracy": accuracy, "student_params": params}
    run.write_result({"id": number, "state": state, "config": {}, "metrics": metrics,
                      "ended": f"at {9 - number % 10}"})  # fmt: skip
    return number


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """The front is trial 0 and 1; then come the best in accuracy, the worst, others."""
    run = RunDir.create(tmp_path / "run")
    trial(run, 0, 0.99, 50)
    trial(run, 1, 0.10, 10)
    for number in range(2, 9):
        trial(run, number, 0.9 - 0.01 * number, 60)
    trial(run, 9, 0.999, 100)  # breaks the constraint
    trial(run, 10, 0.5, 60, "RUNNING")
    return run


def recorder(run: RunDir) -> Recorder:
    return Recorder(run, cast("Any", SimpleNamespace()))


def with_weights(run: RunDir) -> list[int]:
    return [n for n in range(11) if (run.trial(n) / "student").is_dir()]


def test_weights_off_the_front_make_room_oldest_first_and_no_more_than_is_needed(
    run: RunDir,
) -> None:
    disk = Disk(recorder(run), CONFIG, 1000 * KB)
    disk.tick()
    assert not disk.full
    disk.check()
    assert with_weights(run) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]  # 9 ended first of what can go
    assert not (run.trial(9) / SCORES).exists()
    kept = read_json(run.trial(9) / "result.json")
    assert kept["notes"] == ["its weights were deleted to make room (max_disk)"]
    assert kept["metrics"]["accuracy"] == 0.999
    Disk(recorder(run), CONFIG, 910 * KB).tick()
    assert with_weights(run) == [0, 1, 2, 3, 4, 5, 6, 7, 10]


def test_the_front_the_best_and_those_that_run_stay_and_the_sweep_stops(run: RunDir) -> None:
    disk = Disk(recorder(run), CONFIG, 100 * KB)
    disk.tick()
    assert with_weights(run) == [0, 1, *range(2, 1 + BEST), 10]
    with pytest.raises(DiskLimitError) as caught:
        disk.check()
    assert "of the 0.1 MB it may (max_disk), and all of it is needed" in str(caught.value)
    assert f"`fewtune resume {run.path} --max-disk SIZE` goes on" in str(caught.value)


def test_without_a_limit_and_between_two_looks_nothing_is_touched(run: RunDir) -> None:
    Disk(recorder(run), CONFIG, 0).tick()
    clock = Clock()
    disk = Disk(recorder(run), CONFIG, 2000 * KB, clock)
    disk.tick()
    for number in range(11, 30):
        trial(run, number, 0.2, 70)
    clock.now = EVERY_S / 2
    disk.tick()
    assert len(with_weights(run)) == 11
    clock.now = EVERY_S
    disk._recorder = recorder(run)
    disk.tick()
    assert taken(run.path) <= 2000 * KB


def test_weights_that_trials_share_are_gone_with_the_last_of_them(run: RunDir) -> None:
    weights = "student/model.safetensors"
    for number in (7, 8):  # adapted from trial 9's model
        (run.trial(number) / weights).unlink()
        os.link(run.trial(9) / weights, run.trial(number) / weights)
    before = taken(run.path)
    disk = Disk(recorder(run), CONFIG, before - 90 * KB)
    disk.tick()
    assert with_weights(run) == [0, 1, 2, 3, 4, 5, 6, 10]
    assert taken(run.path) < before - 90 * KB


def test_names_of_one_file_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(5 * KB))
    os.link(tmp_path / "a", tmp_path / "b")
    assert taken(tmp_path) == 5 * KB
    real = type(tmp_path).rglob
    monkeypatch.setattr(type(tmp_path), "rglob", lambda s, p: [*real(s, p), s / "gone"])
    assert taken(tmp_path) == 5 * KB


def test_sizes_are_read_and_other_words_refused(tmp_path: Path) -> None:
    assert [read_size(text) for text in ("500 kB", "2g", "1TiB")] == [500 * KB, 2 * KB**3, 2**40]
    with pytest.raises(UserError, match="as 500MB, 20GB or 1TiB; found 'much'"):
        read_size("much")
    file = tmp_path / "sweep.yaml"
    file.write_text("method: maml\nmax_disk: 20\n", "utf-8")
    with pytest.raises(UserError, match="line 2, max_disk: The room a run may take is a size"):
        load_sweep(file, settings=False)
    assert load_sweep(file, ["max_disk=3GB"], settings=False).max_disk == "3GB"
    assert load_sweep(file, ["max_disk="], settings=False).max_disk is None
