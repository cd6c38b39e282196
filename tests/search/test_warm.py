"""Warm start: what of an earlier run informs a new one, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from search import sweep
from search._optuna import Study
from search.config import SweepConfig, dump_sweep
from search.constraints import Constraint
from search.errors import UserError
from search.points import Observation
from search.results import load_results
from search.rundir import RunDir
from search.warm import WarmStart, gather, read_warm_start, write_warm_start
from spaces._domains import Choice, Fixed, Float, Int
from tests import fakes

if TYPE_CHECKING:
    from pathlib import Path

    from spaces._domains import Domain

MARK = "abc" * 20
FOUND = {"accuracy": 0.8, "student_params": 900, "adapt_ms": 2.0}
NARROW = Int(8, 16, why="narrower")


@pytest.fixture(autouse=True)
def _known(fake_method: object) -> None:
    """The method ``fake``."""


def config(**changes: Any) -> SweepConfig:
    return SweepConfig(**{"method": "fake", **changes})


def settings(width: int = 16, **more: Any) -> dict[str, Any]:
    plain = {"student.width": width, "rate": 0.1, "teacher.kind": "none", "sick": "no"}
    return {**plain, "pause_s": 0.0, **more}


def earlier(tmp_path: Path, *trials: Any, name: str = "old", **changes: Any) -> Path:
    run = RunDir.create(tmp_path / name)
    run.sweep_file.write_text(dump_sweep(config(**changes)), "utf-8")
    run.write_info(data={"fingerprint": MARK})
    for number, trial in enumerate(trials):
        plain = {"state": "COMPLETE", "config": settings(), "metrics": FOUND, "failure": None}
        run.write_result({**plain, "id": number, **trial})
    return run.path


def take(run: Path, new: SweepConfig, *renames: str) -> Any:
    (found,) = gather(WarmStart.read([run], renames), new, MARK)
    return found


def test_a_complete_trial_is_taken_as_it_is(tmp_path: Path) -> None:
    found = take(earlier(tmp_path, {}), config())
    (one,) = found.observations
    assert one.config == settings()
    assert one.metrics == FOUND
    assert one.origin.endswith("old, trial 0")
    assert not found.dropped
    assert not found.filled


def test_what_has_not_finished_or_was_not_measured_is_dropped_with_the_reason(
    tmp_path: Path,
) -> None:
    run = earlier(
        tmp_path, {}, {"state": "PRUNED"}, {"state": "FAIL"}, {"state": "RUNNING"},
        {"state": "REFUSED"}, {"metrics": {**FOUND, "adapt_ms": None}},
    )  # fmt: skip
    found = take(run, config())
    assert dict(found.dropped) == {
        "stopped early": 1, "failed": 1, "not finished": 1, "refused before training": 1,
        "without adapt_ms": 1,
    }  # fmt: skip
    assert "1 of 6 trials inform the sampler" in found.lines()[0]
    assert any("1 dropped: without adapt_ms" in line for line in found.lines())


def test_a_narrowed_range_drops_and_a_widened_one_keeps(tmp_path: Path) -> None:
    run = earlier(tmp_path, {}, {"config": settings(32)})
    found = take(run, config(space={"student.width": NARROW}))
    assert [o.config["student.width"] for o in found.observations] == [16]
    assert dict(found.dropped) == {"student.width outside int [8, 16]": 1}
    wide = take(run, config(space={"student.width": Int(1, 99, why="wider")}))
    assert len(wide.observations) == 2


def test_a_renamed_parameter_keeps_its_values(tmp_path: Path) -> None:
    old = {("speed" if k == "rate" else k): v for k, v in settings(rate=0.3).items()}
    run = earlier(tmp_path, {"config": old})
    assert take(run, config(), "speed=rate").observations[0].config == settings(rate=0.3)
    with pytest.raises(UserError, match="unknown parameter speed; --rename speed=NEW"):
        take(run, config())
    with pytest.raises(
        UserError, match=r"no trial of the earlier runs has sped\. Did you mean spe"
    ):
        take(run, config(), "sped=rate")
    with pytest.raises(UserError, match=r"the method has no parameter rat\. Did you mean rate"):
        take(run, config(), "speed=rat")


def test_a_new_parameter_has_the_default_where_that_lies_in_its_domain(tmp_path: Path) -> None:
    run = earlier(tmp_path, {})
    found = take(run, config(space={"epsilon": Float(0.0, 0.05, why="new")}))
    assert found.observations[0].config["epsilon"] == 0.01
    assert dict(found.filled) == {"epsilon": 1}
    with pytest.raises(UserError, match=r"the default of epsilon outside float \[0.02, 0.05\]"):
        take(run, config(space={"epsilon": Float(0.02, 0.05, why="new")}))


def test_a_trial_trained_with_what_this_sweep_holds_elsewhere_is_dropped(tmp_path: Path) -> None:
    run = earlier(tmp_path, {}, {"config": settings(meta_batch=2)}, {"config": settings(rate=0.5)})
    found = take(run, config(space={"rate": Fixed(0.1, why="held")}))
    assert dict(found.dropped) == {
        "meta_batch is not searched here and stays at 8": 1, "rate outside = 0.1": 1,
    }  # fmt: skip


def test_what_a_condition_switches_off_is_left_out(tmp_path: Path) -> None:
    run = earlier(tmp_path, {"config": settings(**{"teacher.width": 20})})
    assert take(run, config()).observations[0].config == settings()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "maml"}, "its method is fake, this sweep's is maml"),
        ({"data": {"shots": 5}}, "its tasks are 5-way 1-shot, this sweep's 5-way 5-shot"),
    ],
)
def test_what_does_not_compare_is_refused(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        take(earlier(tmp_path, {}), config(**changes))


def test_other_data_is_refused_and_other_lengths_are_told(tmp_path: Path) -> None:
    run = earlier(tmp_path, {}, budget={"iterations": 5})
    with pytest.raises(UserError, match=r"fingerprint abcabcabcabc, this sweep's .* 123"):
        gather(WarmStart.read([run], []), config(), "123")
    assert "trained for 5 meta-iterations there, 2000 here" in take(run, config()).lines()[-1]


@pytest.mark.parametrize("text", ["a", "=b", "a=", "", "a=b"])
def test_a_wrong_renaming_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="--rename"):
        WarmStart.read([] if text == "a=b" else [earlier(tmp_path, {})], [text])


def test_two_renamings_of_one_parameter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="renamed already"):
        WarmStart.read([earlier(tmp_path, {})], ["a=b", "c=b"])


def test_what_was_taken_lies_in_the_new_run(tmp_path: Path) -> None:
    found = take(earlier(tmp_path, {}), config())
    run = RunDir.create(tmp_path / "new")
    assert read_warm_start(run) == {"report": [], "trials": []}
    write_warm_start(run, [found])
    kept = read_warm_start(run)
    assert [Observation(**trial) for trial in kept["trials"]] == found.observations
    assert kept["report"] == found.lines()


def study(tmp_path: Path, **changes: Any) -> Study:
    bound = (Constraint.parse("adapt_ms <= 4"),)
    space: dict[str, Domain] = {
        "rate": Float(0.001, 1.0, log=True, why="r"),
        "loss": Choice(("kl", "no"), why="l"),
        "order": Fixed("first", why="f"),
    }
    aims: Any = {"accuracy": "max", "student_params": "min"}
    return Study(tmp_path / "study.journal", "mine", space, aims, bound, **changes)


def test_observations_reach_the_study_once_with_values_and_constraints(tmp_path: Path) -> None:
    mine = study(tmp_path)
    seen = [Observation("old, trial 0", {"rate": 0.1, "loss": "kl", "order": "first"}, FOUND)]
    mine.observe(seen)
    mine.observe(seen)  # after a kill in the middle
    (trial,) = mine._study.trials
    assert trial.state.name == "COMPLETE"
    assert trial.values == [0.8, 900]
    assert trial.params == {"rate": 0.1, "loss": "kl"}
    assert trial.constraints == {"adapt_ms <= 4": -0.5}
    assert not mine.begun()
    mine.propose({"rate": 0.1, "loss": "kl"})
    mine.propose({"rate": 0.1, "loss": "kl"})
    assert mine.states() == {0: "COMPLETE", 1: "WAITING"}, "an observation is no proposal"
    assert not mine.begun()
    mine.ask()
    assert mine.begun()
    with pytest.raises(ValueError, match="metric accuracy is missing"):
        mine.observe([Observation("x", {"rate": 0.1, "loss": "kl"}, {})])


def test_what_was_observed_elsewhere_moves_the_draws(tmp_path: Path) -> None:
    """With 30 observations that favour high rates no random start is needed."""
    mine = study(tmp_path, startup=10, seed=3)
    rates = [10 ** (-3 * i / 29) for i in range(30)]
    mine.observe(
        [
            Observation(str(i), {"rate": r, "loss": "kl"}, {**FOUND, "accuracy": r})
            for i, r in enumerate(rates)
        ]
    )
    drawn = [float(mine.ask().config["rate"]) for _ in range(12)]
    assert sorted(drawn)[6] > 0.1


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_warm_sweep_learns_from_another_and_counts_only_its_own(
    ray_here: None, tmp_path: Path, capsys: Any
) -> None:
    plain: dict[str, Any] = {
        "data": {"source": "glyphs", "queries": 5},
        "budget": {"trials": 4, "iterations": 4},
        "evaluation": {"validation_tasks": 5, "test_tasks": 0},
        "early_stopping": {"enabled": False},
    }
    old = sweep.run_sweep(config(**plain), name="old", storage=tmp_path)
    new = config(**plain, points=({"student.width": 5}, {"student.width": 7, "rate": 1}))
    path = sweep.run_sweep(new, name="new", storage=tmp_path, earlier=WarmStart.read([old], []))
    assert "4 of 4 trials inform the sampler" in capsys.readouterr().err
    results = load_results(path)
    assert len(results.trials) == 4
    assert [t["config"]["student.width"] for t in results.trials][:3] == [5, 7, 32]
    assert results.info["warm_start"][0]["taken"] == 4
    assert {t["id"] for t in results.front()} <= {t["id"] for t in results.trials}
    sweep.extend(path, 1)
    assert len(load_results(path).trials) == 5
    space = {**fakes.SPACE}
    told = Study(path / "study.journal", results.info["study"], space, new.objectives).states()
    assert list(told.values()) == ["COMPLETE"] * 9
