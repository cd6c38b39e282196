"""What is refused before it costs anything: exactly what is certain, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from search._optuna import Study
from search._tune import StudySearcher
from search.constraints import Constraint
from search.recorder import Record, Recorder
from search.refusal import Gate
from search.rundir import RunDir
from spaces._domains import Int

if TYPE_CHECKING:
    from pathlib import Path

AIMS: Any = {"accuracy": "max", "student_params": "min"}
SPACE = {"width": Int(4, 32, why="small")}
SMALL = (Constraint.parse("student_params <= 1000"),)


def cheap(config: Any) -> dict[str, float]:
    if config["width"] == 99:  # outside the space, so never drawn
        raise ValueError("does not fit")
    return {"student_params": 100.0 * config["width"], "student_macs": 7.0}


def done(accuracy: float, params: float, state: str = "COMPLETE", **more: float) -> Record:
    return Record(3, {}, state, {"accuracy": accuracy, "student_params": params, **more})


def why(*ended: Record, width: int = 8, aims: Any = AIMS, bounds: Any = ()) -> str:
    return Gate(cheap, aims, bounds, ended).refuses({"width": width})[0]


def test_a_broken_constraint_known_before_training_refuses() -> None:
    said = why(width=11, bounds=SMALL)
    assert said == "refused: it breaks `student_params <= 1000`: student_params is 1100"
    assert not why(width=10, bounds=SMALL)
    assert not why(width=11, bounds=(Constraint.parse("quality_drop <= 0.01"),))


def test_a_trial_is_refused_only_where_its_accuracy_cannot_save_it() -> None:
    assert why(done(1.0, 700)) == "refused: trial 3 is better whatever this one would reach"
    assert not why(done(0.999, 700)), "an accuracy of 1 would still stand beside it"
    assert not why(done(1.0, 800)), "a tie is not dominated"
    assert not why(done(1.0, 900)), "it is smaller"


@pytest.mark.parametrize("state", ["PRUNED", "FAIL", "RUNNING"])
def test_only_complete_trials_count(state: str) -> None:
    assert not why(done(1.0, 700, state))


def test_only_feasible_trials_count() -> None:
    assert not why(
        done(1.0, 700, quality_drop=0.5), bounds=(Constraint.parse("quality_drop <= 0"),)
    )
    assert why(done(1.0, 700, quality_drop=0.0), bounds=(Constraint.parse("quality_drop <= 0"),))


def test_an_unknown_objective_must_be_at_its_best_too() -> None:
    aims = {**AIMS, "adapt_ms": "min"}
    assert not why(done(1.0, 700, adapt_ms=0.1), aims=aims), "0 ms would stand beside it"
    assert why(done(1.0, 700, adapt_ms=0.0), aims=aims)
    aims = {"student_params": "min", "adapt_speedup": "max"}
    assert not why(done(1.0, 700, adapt_speedup=1e9), aims=aims), "there is no best speed-up"


def test_where_everything_is_known_plain_domination_decides() -> None:
    aims: Any = {"student_params": "min", "student_macs": "min"}
    assert why(done(0.1, 700, student_macs=7), aims=aims)
    assert not why(done(0.1, 700, student_macs=8), aims=aims)
    assert not why(done(0.1, 800, student_macs=7), aims=aims)


def test_a_network_that_does_not_fit_is_left_to_fail() -> None:
    assert not why(width=99, bounds=SMALL)


def test_a_trial_that_ends_meanwhile_counts() -> None:
    gate = Gate(cheap, AIMS)
    assert gate.refuses({"width": 8}) == ("", {"student_params": 800.0, "student_macs": 7.0})
    gate.finished(done(1.0, 700))
    assert gate.refuses({"width": 8})[0]


def test_too_many_in_a_row_end_it_with_the_reason_and_the_nearest() -> None:
    gate = Gate(cheap, AIMS, SMALL, most=3)
    for width in (30, 12, 8, 20, 15):
        gate.refuses({"width": width})
        assert not gate.nothing_left()
    gate.refuses({"width": 25})
    assert gate.nothing_left() == (
        "The last 3 suggestions were all refused before training, most often because it breaks "
        "`student_params <= 1000` (3 of them); the nearest had 1200. "
        "Loosen the constraint or widen the space."
    )


def searcher(tmp_path: Path, bounds: Any, left: Any = (), **gate: Any) -> StudySearcher:
    run = RunDir(tmp_path)
    study = Study(run.journal, "mine", SPACE, AIMS, bounds, seed=1)
    recorder = Recorder(run, study)
    return StudySearcher(recorder, list(left), str, gate=Gate(cheap, AIMS, bounds, **gate))


def test_a_refused_suggestion_is_told_and_never_seen_by_an_actor(tmp_path: Path) -> None:
    asking = searcher(tmp_path, SMALL)
    handed: Any = [asking.suggest(str(i)) for i in range(5)]
    widths = [one["config"]["width"] for one in handed]
    assert max(widths) <= 10
    recorder = asking._recorder
    assert recorder is not None
    refused = recorder.of_state("REFUSED")
    assert refused
    for record in refused:
        assert record.stopped.startswith("refused: it breaks")
        assert int(record.config["width"]) > 10
        trial = recorder.study._study.trials[record.id]
        assert trial.state.name == "PRUNED"
        assert trial.constraints["student_params <= 1000"] > 0
        assert trial.user_attrs["stopped"] == record.stopped
        written = recorder.run.result(record.id)
        assert written is not None
        assert written["state"] == "REFUSED"
        assert written["cost_s"] == 0


def test_an_impossible_space_ends_the_search(tmp_path: Path) -> None:
    asking = searcher(tmp_path, (Constraint.parse("student_params <= 10"),), most=6)
    assert asking.suggest("a") == "FINISHED"
    assert asking._recorder is not None
    assert len(asking._recorder.of_state("REFUSED")) == 6
    assert asking._gate is not None
    assert "the nearest had" in asking._gate.nothing_left()


def test_a_kill_between_file_and_study_is_mended(tmp_path: Path) -> None:
    asking = searcher(tmp_path, SMALL, most=1)
    asking.suggest("a")
    asking.suggest("b")
    recorder = asking._recorder
    assert recorder is not None
    number = recorder.of_state("REFUSED")[-1].id
    logs = recorder.run.journal.read_text("utf-8").splitlines(keepends=True)
    recorder.run.journal.write_text("".join(logs[:-1]), "utf-8")  # the tell is the last line
    again = searcher(tmp_path, SMALL)
    assert again._recorder is not None
    assert again._recorder.study.states()[number] == "RUNNING"
    assert number not in again._recorder.reconcile()
    assert again._recorder.study.states()[number] == "PRUNED"


def test_what_ran_before_is_not_refused_when_it_is_handed_out_again(tmp_path: Path) -> None:
    first = searcher(tmp_path, ())
    handed: Any = first.suggest("a")
    again = searcher(tmp_path, (Constraint.parse("student_params <= 10"),), [handed["id"]])
    repeated: Any = again.suggest("b")
    assert repeated["config"] == handed["config"]
