from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.constraints import Constraint
from search.progress import Progress
from search.recorder import Record

MODE, BROKEN = "(inductive)", "(breaks adapt_ms <= 5)"


def make(*, terminal: bool = False, total: int = 4) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    constraints = (Constraint.parse("adapt_ms <= 5"),)
    progress = Progress(total, 100, {"accuracy": "max", "adapt_ms": "min"}, constraints, console)
    return progress, out


def record(number: int, accuracy: float, ms: float, **changes: Any) -> Record:
    metrics = {"accuracy": accuracy, "adapt_ms": ms}
    return Record(number, {}, **{"state": "COMPLETE", "metrics": metrics, "cost_s": 3.2, **changes})


def test_where_there_is_no_terminal_each_trial_is_a_line() -> None:
    progress, out = make()
    progress.open(Path("runs/mine"), 2, [])
    progress.started(record(0, 0, 0))
    progress.reported(record(0, 0, 0), {"iteration": 50})
    progress.tick()
    progress.finished(record(0, 0.912, 2.5, notes=["went on from meta-iteration 50"]))
    progress.finished(record(1, 0.5, 9.0))
    failure = {"kind": "diverged", "reason": "the loss became nan"}
    progress.finished(record(2, 0, 0, state="FAIL", metrics={}, failure=failure))
    progress.close()
    assert out.getvalue().splitlines() == [
        "4 trials to run, 2 at a time - runs/mine",
        "[1/4] trial 0 complete after 3.2 s: accuracy (inductive) 91.2 %, adapt_ms 2.5 *",
        "    trial 0: went on from meta-iteration 50",
        f"[2/4] trial 1 complete after 3.2 s: accuracy {MODE} 50.0 %, adapt_ms 9 {BROKEN}",
        "[3/4] trial 2 fail after 3.2 s: diverged - the loss became nan",
    ]


def test_trials_of_earlier_sessions_count() -> None:
    progress, out = make()
    progress.open(Path("runs/mine"), 1, [record(0, 0.9, 2.0)])
    assert "3 trials to run, 1 at a time, 1 of 4 done before" in out.getvalue()
    assert progress.remaining() == ""
    progress.finished(record(1, 0.8, 3.0))
    assert out.getvalue().splitlines()[-1].startswith("[2/4]")
    assert progress.remaining() == "0 s"
    assert [r.id for r in progress.front()] == [0]


def test_the_first_finished_trial_is_timed() -> None:
    progress, _ = make()
    failed = record(0, 0, 0, state="FAIL", failure={"kind": "error", "reason": "x"}, metrics={})
    progress.finished(failed)
    assert progress.first_trial_s is None
    progress.finished(record(1, 0.9, 2.0))
    assert progress.first_trial_s == pytest.approx(0.0, abs=1.0)


def test_a_terminal_shows_how_far_it_is_what_runs_and_the_front() -> None:
    progress, out = make(terminal=True)
    progress.open(Path("runs/mine"), 2, [])
    progress.finished(record(0, 0.912, 2.5))
    progress.finished(record(1, 0.7, 1.25))
    progress.started(record(2, 0, 0))
    progress.reported(record(2, 0, 0), {"iteration": 50})
    progress.tick()
    progress.close()
    text = out.getvalue()
    for words in (
        "accuracy (inductive)",
        "2 of 4 trials",
        "trial 2: 50 of 100 iterations",
        "front: 2 trials",
        "91.2 %",
        "1.25",
        "left",
    ):
        assert words in text


def test_before_the_first_result_nothing_is_foretold() -> None:
    progress, out = make(terminal=True, total=1)
    progress.open(Path("runs/mine"), 1, [])
    progress.started(record(0, 0, 0))
    progress.tick()
    progress.close()
    assert "1 trial to run" in out.getvalue()
    assert "0 of 1 trial - " in out.getvalue()
    assert "trial 0: 0 of 100 iterations" in out.getvalue()
    assert "left" not in out.getvalue()
    assert "?" not in out.getvalue().replace("\x1b[?", "")


def test_each_trial_says_how_it_normalised_where_they_differ() -> None:
    progress, out = make(terminal=True)
    progress.open(Path("runs/mine"), 2, [])
    first = record(0, 0.912, 2.5)
    first.metrics["normalisation"] = "transductive"
    assert "accuracy (transductive) 91.2 %" in progress.line(first)
    progress.finished(first)
    progress.finished(record(1, 0.7, 1.25))
    progress.tick()
    progress.close()
    for words in ("normalisation", "transductive", "inductive"):
        assert words in out.getvalue()
