"""A sweep whose driver is killed, for real, and resumed: nothing lost, repeated or left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from search._optuna import Study
from search.results import load_results
from search.rundir import FINISHED, RunDir, read_json
from tests import drive, fakes
from tests.clock import timeless
from tests.processes import kill

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

TRIALS, REPORTS = 6, 10


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(monkeypatch)


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.drive", *words], start_new_session=True)


def wait_for(run: Path, ready: Any, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended before it could be killed"
        if (run / "run.json").exists() and ready(RunDir.open(run)):
            return
        time.sleep(0.05)
    pytest.fail("the sweep did not get far enough to be killed in the middle")


def in_the_middle(run: RunDir) -> bool:
    """Two trials have ended, and one that is not about to has a checkpoint."""
    results = run.results()
    done = sum(r["state"] in FINISHED for r in results)
    running = [r for r in results if r["state"] == "RUNNING" and len(r["reports"]) <= REPORTS // 2]
    return done >= 2 and any((run.trial(r["id"]) / "checkpoint.json").exists() for r in running)


def tidied(run: RunDir) -> None:
    """Of a trial that has ended the student and the table are kept, and no checkpoint."""
    assert not list(run.ray.rglob("state.pt"))
    assert not list(run.path.rglob("checkpoint.json"))
    kept = {path.name for path in run.trial(0).iterdir()}
    assert kept == {"result.json", "student", "table.json"}
    assert read_json(run.trial(0) / "table.json")[0]["pattern"] == "001"


def study_of(run: RunDir) -> Study:
    config = drive.slow_config(TRIALS)
    space = {**fakes.SPACE, **config.space}
    return Study(run.journal, run.info()["study"], space, config.objectives)


def test_a_killed_sweep_is_resumed_without_losing_or_repeating_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "killed"
    driver = start("sweep", str(tmp_path), "killed", str(TRIALS))
    wait_for(path, in_the_middle, driver)
    kill(driver)

    run = RunDir.open(path)
    before = {r["id"]: r for r in run.results()}
    finished = {i for i, r in before.items() if r["state"] in FINISHED}
    left = {i for i, r in before.items() if r["state"] == "RUNNING"}
    kept = {i: (run.trial(i) / "result.json").read_bytes() for i in finished}
    saved = {i for i in left if (run.trial(i) / "checkpoint.json").exists()}
    assert len(finished) >= 2
    assert saved
    journal = run.journal.read_text("utf-8")
    with run.journal.open("a") as file:
        file.write('{"op_code": 9, "worker_id"')  # what a kill in the middle of a write leaves

    resumed = start("resume", str(path))
    assert resumed.wait(timeout=200) == 0

    after = {r["id"]: r for r in run.results()}
    assert sorted(after) == list(range(TRIALS))
    assert {r["state"] for r in after.values()} == {"COMPLETE"}
    front = {t["id"] for t in load_results(path).front()}
    for number, content in kept.items():
        if number not in front:  # those of the front have been scored on test classes since
            assert (run.trial(number) / "result.json").read_bytes() == content
        assert after[number]["metrics"]["accuracy"] == before[number]["metrics"]["accuracy"]
    for number in left:
        assert after[number]["config"] == before[number]["config"]
    for number in saved:
        assert any("went on from meta-iteration" in note for note in after[number]["notes"])

    states = study_of(run).states()
    assert states == dict.fromkeys(range(TRIALS), "COMPLETE")
    told = Counter(trial_ends(run.journal.read_text("utf-8")))
    assert set(told.values()) == {1}, "a trial was told twice"
    assert run.journal.read_text("utf-8").startswith(journal)
    assert len(run.info()["sessions"]) == 2


def test_a_resumed_trial_ends_with_the_numbers_of_an_undisturbed_one(tmp_path: Path) -> None:
    """A trial that went on from a checkpoint is not another trial."""
    path = tmp_path / "killed"
    driver = start("sweep", str(tmp_path), "killed", "2")

    def saved(run: RunDir) -> bool:
        return (run.trial(0) / "checkpoint.json").exists()

    wait_for(path, saved, driver)
    kill(driver)
    assert start("resume", str(path)).wait(timeout=200) == 0

    assert start("sweep", str(tmp_path), "calm", "2").wait(timeout=200) == 0
    disturbed, calm = (RunDir.open(tmp_path / name).results()[0] for name in ("killed", "calm"))
    assert any("went on from" in note for note in disturbed["notes"])
    assert disturbed["config"] == calm["config"]
    tidied(RunDir.open(tmp_path / "calm"))
    tidied(RunDir.open(path))
    for name in timeless(calm["metrics"]):
        assert disturbed["metrics"][name] == calm["metrics"][name], name


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_asked_once_it_saves_the_trials_and_stops_and_says_how_to_go_on(
    tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The whole foreground group gets Ctrl-C, as from a terminal, and the driver alone SIGTERM.

    No checkpoint is due by itself for an hour: what the trials go on from was saved for Ctrl-C.
    """
    path = tmp_path / "stopped"
    slow = ("--checkpoint-s", "3600", "--pause-s", "0.3")  # three seconds from halfway to the end
    driver = start("sweep", str(tmp_path), "stopped", "4", *slow)
    wait_for(path, lambda run: any(r["state"] in FINISHED for r in run.results()), driver)
    wait_for(path, halfway, driver)
    if how == "sigterm":
        driver.terminate()
    else:
        os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=60) == 1
    said = capfd.readouterr().err
    assert "Stopping: each running trial saves its state first" in said
    assert f"Interrupted; `fewtune resume {path}` goes on." in said
    run = RunDir.open(path)
    assert run.info()["sessions"][0]["why"] == "interrupted"
    left = {r["id"]: r for r in run.results() if r["state"] == "RUNNING" and r["reports"]}
    assert left
    assert {r["state"] for r in run.results()} == {"COMPLETE", "RUNNING"}
    for number in left:
        assert (run.trial(number) / "checkpoint.json").exists()
    assert start("resume", str(path)).wait(timeout=200) == 0
    assert [r["state"] for r in run.results()] == ["COMPLETE"] * 4
    for number, before in left.items():
        note = f"went on from meta-iteration {before['reports'][-1]['iteration']}"
        assert note in run.results()[number]["notes"]


def halfway(run: RunDir) -> bool:
    """Two trials run and have reported, and one has half of its reports to come.

    One that is nearly done ends before the signal reaches it, as those do that began with the first
    trial to end; one that has yet to report may do so after its state was asked for.
    """
    running = [len(r["reports"]) for r in run.results() if r["state"] == "RUNNING"]
    amid = len(running) == 2 and all(0 < reports <= REPORTS - 3 for reports in running)
    return amid and any(1 < reports <= REPORTS // 2 for reports in running)


def test_ctrl_c_twice_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, steps = tmp_path / "hurried", tmp_path / "steps"
    steps.mkdir()
    monkeypatch.setenv("FEWTUNE_STEPS", str(steps))
    driver = start("sweep", str(tmp_path), "hurried", "4", "--pause-s", "4")
    wait_for(path, lambda run: any(steps.iterdir()), driver)
    os.killpg(driver.pid, signal.SIGINT)
    time.sleep(1.0)
    assert driver.poll() is None, "once is a question, and the trials are in a long step"
    began = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=60) != 0
    assert time.monotonic() - began < 15  # a step alone takes longer, a chunk far longer
    assert {r["state"] for r in RunDir.open(path).results()} == {"RUNNING"}


def trial_ends(journal: str) -> list[int]:
    """Trials that the journal moves to a final state, one entry for each time."""
    final = {1, 2, 3}  # COMPLETE, PRUNED, FAIL in Optuna's journal
    logs = [json.loads(line) for line in journal.splitlines()]
    return [log["trial_id"] for log in logs if log.get("state") in final]


def test_a_run_that_is_driven_is_not_driven_twice(tmp_path: Path) -> None:
    driver = start("sweep", str(tmp_path), "busy", "40")  # until it is killed
    wait_for(tmp_path / "busy", lambda run: (run.path / "driver.lock").exists(), driver)
    second = subprocess.run(
        [sys.executable, "-m", "tests.drive", "resume", str(tmp_path / "busy")],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert second.returncode != 0
    assert f"driven by another process (process {driver.pid})" in second.stderr
    kill(driver)
