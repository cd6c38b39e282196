"""What a logger is told, and that nothing it does reaches the sweep."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from search.feed import Feed, Shown, feeds
from search.recorder import Record
from search.rundir import RunDir, read_json

if TYPE_CHECKING:
    from pathlib import Path


class Book:
    """A logger that writes down what it is told, and breaks where a test says so."""

    def __init__(self, *broken: str) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.broken = set(broken)
        self.waits = threading.Event()
        self.waits.set()

    def setup(self) -> None:
        self._tell("setup")

    def log_trial_start(self, trial: Shown) -> None:
        self._tell("start", str(trial), trial.config, trial.trial_id)
        trial.trial_id = trial.trial_id or f"run {trial.number}"

    def log_trial_result(self, iteration: int, trial: Shown, result: dict[str, Any]) -> None:
        self._tell("result", str(trial), iteration, result)

    def log_trial_end(self, trial: Shown, failed: bool = False) -> None:
        self._tell("end", str(trial), trial.state, trial.outcome, failed)

    def _tell(self, what: str, *more: object) -> None:
        assert self.waits.wait(20)
        if self.broken & {what, f"{what} {''.join(map(str, more[:1]))}"}:
            raise ConnectionError(f"no way to http://me:hunter2@host for {what}")
        self.told.append((what, *more))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "letters")


def feed(run: RunDir, book: Book, patience_s: float = 20.0) -> tuple[Feed, list[str]]:
    said: list[str] = []
    return Feed("book", run, lambda: book, said.append, patience_s), said


def record(number: int, state: str = "RUNNING", **more: Any) -> Record:
    return Record(number, {"student.width": 8}, state, **more)


FAILED = {"kind": "diverged", "reason": "the loss became nan"}


def test_a_trial_is_told_by_its_number_parameters_metrics_and_end(run: RunDir) -> None:
    ours, _ = feed(run, book := Book())
    ours.started(record(3))
    ours.reported(record(3), {"iteration": 5, "accuracy": 0.5, "loss": float("nan"), "notes": []})
    ours.reported(record(3), {"iteration": 6, "failure": {}, "odd": True})
    ours.finished(record(3, "COMPLETE", metrics={"accuracy": 0.5, "pattern": "001"}))
    ours.started(record(4))
    ours.finished(record(4, "FAIL", failure=FAILED))
    ours.started(record(5, of=3))
    ours.finished(record(5, "PRUNED", stopped="beaten"))
    ours.close()
    assert book.told == [
        ("setup",),
        ("start", "trial-00003", {"student.width": 8}, ""),
        ("result", "trial-00003", 5, {"accuracy": 0.5}),
        ("end", "trial-00003", "COMPLETE",
         {"pattern": "001", "state": "COMPLETE", "reason": ""}, False),
        ("start", "trial-00004", {"student.width": 8}, ""),
        ("end", "trial-00004", "FAIL",
         {"state": "FAIL", "reason": "diverged: the loss became nan"}, True),
        ("start", "trial-00005", {"student.width": 8, "of": 3}, ""),
        ("end", "trial-00005", "PRUNED", {"state": "PRUNED", "reason": "beaten"}, False),
    ]  # fmt: skip
    assert read_json(run.path / "loggers" / "book.json")["4"] == {"run": "run 4", "state": "FAIL"}


def test_a_resumed_trial_goes_on_in_its_run(run: RunDir) -> None:
    ours, _ = feed(run, book := Book())
    ours.started(record(0))
    ours.close()
    assert book.told[-1] == ("end", "trial-00000", "INTERRUPTED", {"state": "INTERRUPTED"}, False)
    again, _ = feed(run, book := Book())
    again.catch_up([])
    again.started(record(0))
    again.finished(record(0, "COMPLETE"))
    again.close()
    assert ("start", "trial-00000", {"student.width": 8}, "run 0") in book.told
    (entry,) = read_json(run.path / "loggers" / "book.json").values()
    assert entry == {"run": "run 0", "state": "COMPLETE"}


def test_what_one_session_could_not_tell_the_next_one_does(run: RunDir) -> None:
    curve = [{"iteration": 1, "accuracy": 0.1}, {"iteration": 2, "accuracy": 0.2}]
    ended = [record(0, "COMPLETE", reports=curve, metrics={"adapt_ms": 3.0}), record(1, "FAIL")]
    first, _ = feed(run, Book("result trial-00000"))
    first.catch_up(ended)
    first.close()
    second, _ = feed(run, book := Book())
    second.catch_up(ended)
    second.close()
    assert [told[:3] for told in book.told[1:]] == [
        ("start", "trial-00000", {"student.width": 8}),
        ("result", "trial-00000", 1),
        ("result", "trial-00000", 2),
        ("result", "trial-00000", 2),
        ("end", "trial-00000", "COMPLETE"),
    ]  # the other trial was told by the first
    assert book.told[4][3] == {"adapt_ms": 3.0}


def test_a_logger_that_raises_is_said_once_and_asked_again_for_the_next_trial(run: RunDir) -> None:
    ours, said = feed(run, book := Book("result trial-00000", "end trial-00001"))
    for number in range(3):
        ours.started(record(number))
        ours.reported(record(number), {"iteration": 1, "accuracy": 0.5})
        ours.reported(record(number), {"iteration": 2, "accuracy": 0.5})
        ours.finished(record(number, "COMPLETE"))
    ours.close()
    assert [t[:2] for t in book.told if t[0] in ("result", "end")] == [
        *[("result", "trial-00001")] * 2,
        *[("result", "trial-00002")] * 2,
        ("end", "trial-00002"),
    ]
    (sentence,) = said
    assert sentence.startswith(
        "book fails: no way to http://***@host for result. The sweep goes on"
    )


def test_one_that_cannot_be_set_up_is_tried_at_every_trial(run: RunDir) -> None:
    ours, said = feed(run, book := Book("setup"))
    for number in range(2):
        ours.started(record(number))
        ours.reported(record(number), {"iteration": 1, "accuracy": 0.5})
        ours.finished(record(number, "COMPLETE"))
    ours.close()
    assert book.told == []
    assert len(said) == 1
    assert not (run.path / "loggers").exists()


def test_the_end_does_not_wait_for_ever(run: RunDir) -> None:
    ours, said = feed(run, book := Book("start"), patience_s=0.05)
    book.waits.clear()
    ours.started(record(0))
    ours.close()
    assert "book has not taken everything within 0 s" in said[0]
    assert f"fewtune resume {run.path}" in said[0]
    book.waits.set()
    ours._thread.join(20)
    assert len(said) == 1  # that it breaks then is no news


def test_one_that_was_told_nothing_ends_at_once(run: RunDir) -> None:
    ours, said = feed(run, Book())
    ours.close()
    assert said == []


def test_each_logger_has_its_door(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    book, given = Book(), []

    def made(*what: Any) -> Book:
        given.append(what)
        return book

    monkeypatch.setitem(sys.modules, "search._book", SimpleNamespace(Runs=made))
    assert feeds(run, {}, print) == []
    (ours,) = feeds(run, {"book": {"project": "p"}}, print)
    ours.started(record(0))
    ours.close()
    assert given == [(run, {"project": "p"})]
    assert book.told[0] == ("setup",)
