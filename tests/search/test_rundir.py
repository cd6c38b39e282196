from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from search.errors import UserError
from search.rundir import RunDir, read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.create(tmp_path / "mine")
    made.write_info(name="mine", trials=3)
    return made


def test_a_name_that_is_taken_is_refused_with_what_to_do(run: RunDir) -> None:
    with pytest.raises(UserError, match=r"fewtune resume .*fewtune extend .*another --name"):
        RunDir.create(run.path)


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(UserError, match="is not a run"):
        RunDir.create(tmp_path / "photos")


def test_a_driver_that_died_at_once_leaves_the_name_free(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "mine").sweep_file.write_text("method: maml")
    assert RunDir.create(tmp_path / "mine").path == tmp_path / "mine"
    (tmp_path / "mine" / "trials" / "0").mkdir()
    with pytest.raises(UserError, match="is not a run"):
        RunDir.create(tmp_path / "mine")


def test_somebodys_sweep_file_is_no_run_that_died(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("method: maml")
    with pytest.raises(UserError, match="is not a run"):
        RunDir.create(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written at .*file.mine"):
        RunDir.create(tmp_path / "file" / "mine")


@pytest.mark.parametrize("kind", ["missing", "directory", "file"])
def test_what_is_no_run_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir()
    if kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match="A run is a directory made by `fewtune sweep`"):
        RunDir.open(path)


def test_info_keeps_what_is_not_changed(run: RunDir) -> None:
    run.write_info(trials=5)
    assert run.info() == {"name": "mine", "trials": 5}


def test_results_come_in_the_order_of_the_trials(run: RunDir) -> None:
    for number in (10, 2, 1):
        run.write_result({"id": number})
    assert [r["id"] for r in run.results()] == [1, 2, 10]
    assert run.result(2) == {"id": 2}
    assert run.result(3) is None


def test_json_never_holds_a_number_that_json_does_not_know(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": math.nan, "y": [math.inf, 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [None, 1.5]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x":')
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_what_a_killed_driver_was_writing_is_cleared_away(run: RunDir) -> None:
    student = run.trial(0) / "student"
    student.mkdir(parents=True)
    whole = run.trial(0) / "result.json"
    whole.write_text("{}")
    torn = [f.with_name(f".{f.name}.123") for f in (run.info_file, whole, student / "a.json")]
    for file in torn:
        file.write_text('{"x":')
    with run.driving():
        assert not any(file.exists() for file in torn)
    assert whole.exists()


def test_a_run_is_driven_by_one_process_at_a_time(run: RunDir) -> None:
    code = (
        "import sys; from pathlib import Path; from search.rundir import RunDir\n"
        "with RunDir(Path(sys.argv[1])).driving(): print('driving')"
    )
    words = [sys.executable, "-c", code, str(run.path)]
    with run.driving():
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "driven by another process (process " in refused.stderr
    assert subprocess.run(words, capture_output=True, text=True, check=False).stdout == "driving\n"
