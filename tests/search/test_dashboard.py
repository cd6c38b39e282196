"""What optuna-dashboard shows of a run's journal, and what it does not know of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.search.test_optuna import GOOD, make, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GUIDE = Path(__file__).parents[2].joinpath("docs/loggers.md").read_text("utf-8")
DASHBOARD = Path(sys.executable).with_name("optuna-dashboard")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not DASHBOARD.exists(), reason="optuna-dashboard is not installed"),
]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Ask a dashboard on the journal of ``tmp_path``, as the guide starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"`{DASHBOARD.name} runs/letters/study.journal`" in GUIDE
    command = [str(DASHBOARD), str(tmp_path / "study.journal"), "--port", str(port), "--quiet"]
    process: list[subprocess.Popen[bytes]] = []

    def ask(path: str) -> Any:
        if not process:
            process.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}") as answer:
                    return json.load(answer)
            except OSError:
                assert process[0].poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)

    yield ask
    for one in process:
        os.kill(one.pid, signal.SIGTERM)
        one.wait(20)


def test_it_lists_the_trials_and_takes_infeasible_ones_for_the_front(
    tmp_path: Path, asked: Callable[[str], Any]
) -> None:
    """The warning of docs/loggers.md: if this changes, change it."""
    study = make(tmp_path)
    for accuracy, drop in ((0.8, 0.001), (0.95, 0.05)):  # the second breaks quality_drop <= 0.01
        metrics = {**GOOD, "accuracy": accuracy, "quality_drop": drop}
        study.complete(study.ask().number, metrics)
    study.prune(study.ask().number, {"student_params": 9e9}, "breaks student_params <= 60000")
    study.fail(study.ask().number, {"kind": "diverged", "reason": "nan"}, {})
    study.ask()
    before = (tmp_path / "study.journal").read_bytes()
    (summary,) = asked("studies")["study_summaries"]
    assert summary["study_name"] == "mine"
    assert summary["directions"] == ["maximize", "minimize"]
    shown = asked(f"studies/{summary['study_id']}")
    states = ["Complete", "Complete", "Pruned", "Fail", "Running"]
    assert [trial["state"] for trial in shown["trials"]] == states
    told = {a["key"]: a["value"] for a in shown["trials"][2]["user_attrs"]}
    assert told["stopped"] == "breaks student_params <= 60000"
    assert trials(study)[1].constraints
    assert [trial["constraints"] for trial in shown["trials"]] == [[]] * 5
    assert [trial["number"] for trial in shown["best_trials"]] == [1]
    assert [trial.number for trial in study._study.best_trials] == [0]
    assert (tmp_path / "study.journal").read_bytes() == before
