from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from search._optuna import RUNNING, Study, study_name
from search.constraints import Constraint
from search.points import first_point
from spaces._domains import Choice, Domain, Fixed, Float, Int, When

if TYPE_CHECKING:
    from pathlib import Path

    import optuna

SPACE: dict[str, Domain] = {
    "width": Int(4, 32, log=True, why="small"),
    "rate": Float(1e-3, 1.0, log=True, why="rates"),
    "loss": Choice(("kl", "none"), why="both"),
    "temperature": Float(1.0, 8.0, why="softens", when=When("loss", ("kl",))),
    "order": Fixed("first", why="cheap"),
}
AIM = {"accuracy": "max"}
GOOD = {"accuracy": 0.8, "student_params": 900.0, "quality_drop": 0.001, "pattern": "011"}


def make(path: Path, **changes: Any) -> Study:
    settings: dict[str, Any] = {
        "objectives": {"accuracy": "max", "student_params": "min"},
        "constraints": (Constraint.parse("quality_drop <= 0.01"),),
        "seed": 7,
    }
    return Study(path / "study.journal", "mine", SPACE, **{**settings, **changes})


def trials(study: Study) -> list[optuna.trial.FrozenTrial]:
    return study._study.trials


def test_the_name_follows_space_objectives_data_and_students() -> None:
    names = {
        study_name("mine", SPACE, {"accuracy": "max"}, ["data"]),
        study_name("mine", {**SPACE, "width": Int(4, 64, why="w")}, {"accuracy": "max"}, ["data"]),
        study_name("mine", SPACE, {"accuracy": "min"}, ["data"]),
        study_name("mine", SPACE, {"accuracy": "max"}, ["other data"]),
        study_name("mine", SPACE, {"accuracy": "max"}, ["data", "student"]),
        study_name("mine", SPACE, {"accuracy": "max"}, ["data", "other student"]),
    }
    assert len(names) == 6
    assert all(name.startswith("mine-") for name in names)


def test_the_first_point_is_the_defaults_brought_into_the_space() -> None:
    defaults: dict[str, Any] = {
        "width": 64,
        "rate": 0.1,
        "loss": "kl",
        "temperature": 0.5,
        "order": "second",
    }
    assert first_point(SPACE, defaults) == {
        "width": 32, "rate": 0.1, "loss": "kl", "temperature": 1.0, "order": "first",
    }  # fmt: skip
    without = first_point(SPACE, {"loss": "none"})
    assert "temperature" not in without
    assert all(SPACE[name].contains(value) for name, value in without.items())


def test_what_is_proposed_comes_first(tmp_path: Path) -> None:
    study = make(tmp_path)
    point = first_point(SPACE, {"width": 64, "rate": 0.1, "loss": "kl", "temperature": 2.0})
    study.propose(point)
    assert study.ask().config == point
    assert study.ask().config != point


def test_draws_lie_in_the_space_and_keep_its_conditions(tmp_path: Path) -> None:
    study = make(tmp_path, startup=5)
    seen = set()
    for _ in range(25):
        suggestion = study.ask()
        config = suggestion.config
        assert all(SPACE[name].contains(value) for name, value in config.items())
        assert ("temperature" in config) == (config["loss"] == "kl")
        assert config["order"] == "first"
        seen.add(config["loss"])
        study.complete(suggestion.number, {**GOOD, "accuracy": 1 / int(config["width"])})
    assert seen == {"kl", "none"}


def test_draws_depend_on_seed_and_history_alone(tmp_path: Path) -> None:
    def some(folder: str, seed: int, *, reopen: bool) -> list[Any]:
        (tmp_path / folder).mkdir()
        study, drawn = make(tmp_path / folder, seed=seed, startup=4), []
        for number in range(10):
            if reopen:
                study = make(tmp_path / folder, seed=seed, startup=4)
            drawn.append(study.ask().config)
            study.complete(number, {**GOOD, "student_params": 10.0 * number})
        return drawn

    calm, restless, other = some("a", 7, reopen=False), some("b", 7, reopen=True), some(
        "c", 8, reopen=False
    )  # fmt: skip
    assert calm == restless
    assert calm != other
    assert len({str(config) for config in calm}) == 10


def test_a_complete_trial_keeps_values_constraints_and_all_metrics(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.complete(study.ask().number, GOOD)
    (trial,) = trials(study)
    assert trial.state.name == "COMPLETE"
    assert trial.values == [0.8, 900.0]
    assert trial.user_attrs == GOOD
    assert trial.constraints == {"quality_drop <= 0.01": pytest.approx(-0.9)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy": float("nan")}, "accuracy is nan"),
        ({"accuracy": None}, "accuracy is missing"),
        ({"student_params": float("inf")}, "student_params is inf"),
        ({"quality_drop": None}, "quality_drop is missing"),
    ],
)
def test_metrics_that_cannot_be_compared_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    study = make(tmp_path)
    number = study.ask().number
    assert said in study.unusable({**GOOD, **change})
    with pytest.raises(ValueError, match=said):
        study.complete(number, {**GOOD, **change})
    study.fail(number, {"kind": "no result", "reason": said}, {**GOOD, **change})
    (trial,) = trials(study)
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["failure"] == {"kind": "no result", "reason": said}


def test_a_stopped_trial_is_pruned_and_keeps_what_it_had(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.prune(study.ask().number, {"accuracy": 0.4}, "stopped early")
    (trial,) = trials(study)
    assert trial.state.name == "PRUNED"
    assert trial.user_attrs == {"accuracy": 0.4, "stopped": "stopped early"}


def test_the_sampler_learns_what_does_not_fit_in_memory(tmp_path: Path) -> None:
    """Larger is better until it does not fit: other failures leave the sampler knocking there."""
    share = {}
    for kind, state in (("out of memory", "PRUNED"), ("error", "FAIL")):
        late: list[bool] = []
        for seed in range(3):
            place = tmp_path / kind / str(seed)
            place.mkdir(parents=True)
            study = make(place, constraints=(), objectives=AIM, startup=8, seed=seed)
            for number in range(40):
                width = int(study.ask().config["width"])
                if width > 12:
                    study.fail(number, {"kind": kind, "reason": "no room"}, {})
                else:
                    study.complete(number, {"accuracy": 0.5 + width / 100})
                late += [width > 12] * (number >= 20)
            fallen = [t for t in trials(study) if "failure" in t.user_attrs]
            assert {t.state.name for t in fallen} == {state}
        share[kind] = sum(late) / len(late)
    assert share["out of memory"] < 0.7 * share["error"]


def test_a_second_tell_is_an_error(tmp_path: Path) -> None:
    study = make(tmp_path)
    number = study.ask().number
    study.complete(number, GOOD)
    with pytest.raises(Exception, match=r"COMPLETE|finished|already"):
        study.complete(number, GOOD)


def test_a_trial_left_running_is_handed_out_with_its_configuration(tmp_path: Path) -> None:
    asked = make(tmp_path).ask()
    again = make(tmp_path)
    assert again.states() == {asked.number: RUNNING}
    assert again.ask_again(asked.number) == asked
    again.complete(asked.number, GOOD)
    assert again.states() == {asked.number: "COMPLETE"}


def test_a_journal_torn_by_a_kill_is_read_up_to_there(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.complete(study.ask().number, GOOD)
    with study.journal.open("a") as journal:
        journal.write('{"op_code": 4, "wor')
    again = make(tmp_path)
    again.complete(again.ask().number, GOOD)
    assert make(tmp_path).states() == {0: "COMPLETE", 1: "COMPLETE"}


def test_a_lock_left_by_a_kill_does_not_hold_anybody_up(tmp_path: Path) -> None:
    study = make(tmp_path)
    (tmp_path / "study.journal.lock").touch()
    study.complete(study.ask().number, GOOD)
    assert make(tmp_path).states() == {0: "COMPLETE"}


def test_a_study_travels_as_what_opens_it(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.complete(study.ask().number, GOOD)
    copied = pickle.loads(pickle.dumps(study))  # noqa: S301 - our own
    assert copied.states() == {0: "COMPLETE"}
    assert copied.ask().number == 1


def test_the_sampler_learns_the_objective_and_the_constraint(tmp_path: Path) -> None:
    """Later draws beat random ones: what is told reaches the sampler, constraints too."""
    bound = (Constraint.parse("quality_drop <= 0.01"),)
    late: list[float] = []
    kept: list[bool] = []
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        study = make(tmp_path / str(seed), constraints=bound, objectives=AIM, startup=8, seed=seed)
        for number in range(40):
            config = study.ask().config
            off = abs(math.log10(float(config["rate"])) + 1)
            broken = 0.02 if config["loss"] == "none" else 0.0
            study.complete(number, {"accuracy": 1 - off / 3, "quality_drop": broken})
            late += [off] * (number >= 20)
            kept += [config["loss"] == "kl"] * (number >= 20)
    assert sum(late) / len(late) < 0.7 * 5 / 6  # 5/6: of draws at random
    assert sum(kept) > 0.6 * len(kept)
