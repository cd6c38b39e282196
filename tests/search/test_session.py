"""A session without Ray: what it tells the study at first, and what ends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from search import _tune
from search._limits import Limits
from search.config import SweepConfig, dump_sweep
from search.constraints import Constraint
from search.points import Observation
from search.preflight import load_data
from search.rundir import RunDir, write_json
from search.session import Session, SweepFailedError
from search.sweep import run_sweep
from search.warm import FILE

if TYPE_CHECKING:
    from pathlib import Path

FOUND = {"accuracy": 0.8, "student_params": 640.0, "adapt_ms": 2.0}


@pytest.fixture(autouse=True)
def _known(fake_method: object) -> None:
    """The method ``fake``."""


def config(**changes: Any) -> SweepConfig:
    plain: dict[str, Any] = {"method": "fake", "data": {"source": "glyphs", "queries": 5}}
    return SweepConfig(**{**plain, "evaluation": {"test_tasks": 0}, **changes})


def opened(tmp_path: Path, sweep: SweepConfig) -> Session:
    if not (tmp_path / "mine").exists():
        run = RunDir.create(tmp_path / "mine")
        run.sweep_file.write_text(dump_sweep(sweep), "utf-8")
        info: dict[str, Any] = {"name": "mine", "sessions": [], "versions": {}, "checkpoints": {}}
        run.write_info(**info, data={"fingerprint": "f"}, trials=sweep.budget.trials)
    run = RunDir.open(tmp_path / "mine")
    return Session(run, sweep, load_data(sweep), began=time.monotonic())


def asking(session: Session, limits: Limits | None = None) -> _tune.StudySearcher:
    over = limits.over if limits is not None else str
    return _tune.StudySearcher(session.recorder, session.left, over, gate=session.gate)


def prune(session: Session, number: int) -> None:
    session.recorder.report(number, {"iteration": 1, "accuracy": 0.5, "cost_s": 3600.0})
    session.recorder.finish(number)


def test_points_come_first_then_the_defaults_and_a_kill_repeats_nothing(tmp_path: Path) -> None:
    sweep = config(points=({"student.width": 5}, {"student.width": 7, "rate": 1}))
    with opened(tmp_path, sweep):
        pass  # killed before anything was handed out
    with opened(tmp_path, sweep) as session:
        search = asking(session)
        handed: Any = [search.suggest(str(n)) for n in range(3)]
    assert [one["config"]["student.width"] for one in handed] == [5, 7, 32]
    assert handed[1]["config"]["rate"] == 1.0
    with opened(tmp_path, sweep) as session:
        assert session.left == [0, 1, 2]
        assert len(session.study.states()) == 3


def test_what_other_runs_observed_is_told_once_and_is_no_trial(tmp_path: Path, capsys: Any) -> None:
    sweep = config(budget={"trials": 4})
    with opened(tmp_path, sweep):
        pass
    settings: Any = {"student.width": 16, "rate": 0.1, "teacher.kind": "none"}
    seen = [Observation(f"old, trial {n}", settings, FOUND) for n in range(3)]
    write_json(
        tmp_path / "mine" / FILE,
        {"report": ["From old: 3"], "trials": [vars(one) for one in seen]},
    )
    for _ in range(2):
        with opened(tmp_path, sweep) as session:
            assert session.missing == 4
            states = list(session.study.states().values())
            assert states.count("COMPLETE") == 3
            assert not session.left
    assert "From old: 3" in capsys.readouterr().err


def test_refused_configurations_use_up_no_budget_and_an_impossible_space_ends_it(
    tmp_path: Path,
) -> None:
    sweep = config(budget={"trials": 4}, constraints=(Constraint.parse("student_params <= 1"),))
    with opened(tmp_path, sweep) as session:
        session.gate._most = 5
        assert asking(session).suggest("a") == "FINISHED"
        assert len(session.recorder.of_state("REFUSED")) == 5
        assert session.missing == 4
        session.sessions.append({})
        with pytest.raises(
            SweepFailedError, match=r"5 suggestions were all refused .* nearest had"
        ):
            session._close(None, Limits(session.recorder))


def test_cpu_hours_are_counted_by_what_a_trial_holds(tmp_path: Path) -> None:
    with opened(tmp_path, config(resources={"cpu": 2.0})) as session:
        limits = Limits(session.recorder, cpu_hours=3.0)
        search = asking(session, limits)
        for name in "ab":
            handed: Any = search.suggest(name)
            prune(session, handed["id"])
        assert search.suggest("c") == "FINISHED"
        assert limits.why == "the budget of 3 CPU-hours (budget.cpu_hours) is used up"
        (first, _) = session.recorder.of_state("PRUNED")
        assert (first.cost_s, first.cpu_s, first.gpu_s) == (3600.0, 7200.0, 0.0)


def closed(session: Session, limits: Limits) -> str:
    session.sessions.append({})
    session._close(None, limits)
    return str(session.sessions[-1]["why"])


@pytest.mark.parametrize(
    ("ended", "running", "why", "said"),
    [
        (2, 2, "enough", "Stopped: enough; 2 trials cut short."),
        (1, 1, "enough", "Stopped: enough; 1 trial cut short, 2 trials not run."),
        (3, 0, "enough", "Stopped: enough; 1 trial not run."),
        (4, 0, "done", ""),
    ],
)
def test_a_limit_says_what_it_stopped_and_nothing_where_all_trials_are_done(
    tmp_path: Path, capsys: Any, ended: int, running: int, why: str, said: str
) -> None:
    with opened(tmp_path, config(budget={"trials": 4})) as session:
        limits = Limits(session.recorder, plateau=lambda: "enough")
        search = asking(session)
        for name in range(ended + running):
            handed: Any = search.suggest(str(name))
            if name < ended:
                prune(session, handed["id"])
        assert limits.over() == "enough"
        assert closed(session, limits) == why
        assert len(session.recorder.of_state("PRUNED")) == ended + running
    assert capsys.readouterr().err.count(said or "Stopped") == bool(said)


def test_a_database_that_cannot_be_reached_stops_a_sweep_before_it_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWTUNE_STUDY", "sqlite:////proc/nowhere/study.db")
    from search.errors import UserError

    with pytest.raises(UserError, match="cannot be used"):
        run_sweep(config(study="${FEWTUNE_STUDY}"), name="mine", storage=tmp_path)
    assert not (tmp_path / "mine").exists()
