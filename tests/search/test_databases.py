"""Where a study lies, and that its password shows up nowhere."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from search import preflight
from search._optuna import Study
from search._storages import open_database
from search.config import SweepConfig, dump_sweep, load_sweep
from search.databases import completed_url, unfit
from search.errors import UserError
from search.recorder import Recorder
from search.rundir import RunDir
from spaces._domains import Domain, Int
from tests.search import postgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SPACE: dict[str, Domain] = {"width": Int(4, 32, why="small")}
FOUND = {"accuracy": 0.8}
SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    ["journal", "${STUDY}", "postgresql://me@host/db", "postgresql://me:${PW}@host/db",
     "mysql+pymysql://me@host/db", "sqlite:////tmp/study.db"],
)  # fmt: skip
def test_places_that_are_allowed(text: str) -> None:
    assert not unfit(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"postgresql://me:{SECRET}@host/db", "A password must not stand in a sweep file"),
        (f"postgresql://me@host/db?password={SECRET}", "A password must not stand"),
        (f"://{SECRET}", "This is no database URL"),
        (f"postgresql://me:{SECRET}@host:port/db", "This is no database URL"),
        (SECRET, "Write journal"),
        ("sqlite:///study.db", "give the whole path"),
        ([SECRET], "found a list"),
    ],
)
def test_others_are_refused_without_being_shown(tmp_path: Path, text: Any, said: str) -> None:
    assert said in unfit(text)
    assert SECRET not in unfit(text)
    file = tmp_path / "sweep.yaml"
    file.write_text(f"method: maml\nstudy: {text!r}\n", "utf-8")
    for change in ([], [f"study={text}"]):
        with pytest.raises(UserError) as error:
            load_sweep(file, change, settings=False)
        assert SECRET not in str(error.value)
        assert "study: " in str(error.value)


def test_what_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(UserError) as error:
        load_sweep(None, [f"study=[{SECRET}"], settings=False)
    assert SECRET not in str(error.value)


def test_names_are_looked_up_and_quoted() -> None:
    here = {"STUDY": f"postgresql://me:{SECRET}@host/db", "PW": "a@b/c"}
    assert completed_url("${STUDY}", here) == here["STUDY"]
    assert (
        completed_url("postgresql://me:${PW}@host/db", here) == "postgresql://me:a%40b%2Fc@host/db"
    )
    with pytest.raises(UserError, match=r"environment variable OTHER .* is not set"):
        completed_url("${OTHER}", here)
    with pytest.raises(UserError, match=r"environment variable STUDY .* no database URL") as error:
        completed_url("${STUDY}", {"STUDY": f"://{SECRET}"})
    assert SECRET not in str(error.value)


def test_the_reference_is_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY", f"postgresql://me:{SECRET}@host/db")
    written = dump_sweep(SweepConfig(method="maml", study="${STUDY}"))
    assert "study: ${STUDY}" in written
    assert SECRET not in written


def test_a_database_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY", f"postgresql://me:{SECRET}@127.0.0.1:1/db")
    with pytest.raises(UserError, match=r"`study: \$\{STUDY\}` cannot be used: .*refused") as error:
        preflight.check_study(SweepConfig(method="maml", study="${STUDY}"))
    assert SECRET not in str(error.value)
    assert error.value.__cause__ is None


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(UserError, match=r"needs a driver .* 'fewtune\[postgresql\]'"):
        open_database("postgresql+nodriver://me@host/db")


@pytest.fixture(scope="module")
def running() -> Iterator[postgresql.Server]:
    if why := postgresql.missing():
        pytest.skip(why)
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    with postgresql.server() as server:
        yield server


@pytest.fixture
def study(running: postgresql.Server, tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """What opens a study in the server; all are closed in the end."""
    place = f"postgresql://me:${{PW}}@{running.address}"
    aims: Any = {"accuracy": "max"}
    with ExitStack() as opened:

        def make(name: str = "mine", **changes: Any) -> Study:
            made = Study(tmp_path / "study.journal", name, SPACE, aims, storage=place, **changes)
            opened.callback(made.close)
            return made

        yield make


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_study_in_postgresql_is_asked_told_and_opened_again(
    study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", postgresql.PASSWORD)
    mine = study(fresh=True)
    assert not mine.journal.exists()
    first = mine.ask()
    mine.complete(first.number, FOUND)
    second = mine.ask()  # a driver that is killed now
    again = study()
    assert again.states() == {0: "COMPLETE", 1: "RUNNING"}
    recorder = Recorder(RunDir(tmp_path), again)
    assert recorder.reconcile() == [1]
    assert again.ask_again(1) == second
    again.prune(1, {}, "stopped")
    assert study().states() == {0: "COMPLETE", 1: "PRUNED"}
    with pytest.raises(UserError, match=r"has a study mine already.*another --name"):
        study(fresh=True)
    assert study("other", fresh=True).states() == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wrong_password_is_told_and_not_shown(
    study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", SECRET)
    with pytest.raises(UserError, match="password authentication failed") as error:
        study()
    assert SECRET not in str(error.value)
