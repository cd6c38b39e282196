"""Sweeps with real Ray processes and the fake method."""

from __future__ import annotations

import json
import os
import re
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from search import sweep
from search.config import SweepConfig, load_sweep
from search.disk import DiskLimitError
from search.errors import UserError
from search.results import load_results
from search.rundir import RunDir, read_json
from search.session import SweepFailedError
from search.train import train
from spaces._domains import Fixed
from tests.clock import timeless
from trainables._ray import LearnerTrainable

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("ray_here", "fake_method"),
]


def config(**changes: Any) -> SweepConfig:
    plain: dict[str, Any] = {
        "method": "fake",
        "data": {"source": "glyphs", "queries": 5},
        "budget": {"trials": 6, "iterations": 10},
        "evaluation": {"validation_tasks": 5, "test_tasks": 5},
        "early_stopping": {"enabled": False},
        "seed": 1,
    }
    return SweepConfig(**{**plain, **changes})


def fixed(**values: Any) -> dict[str, Fixed]:
    return {name: Fixed(value, why="a test says so") for name, value in values.items()}


@pytest.fixture(scope="module")
def finished(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One finished run for the tests that only look."""
    patch = pytest.MonkeyPatch()
    from tests import fakes

    fakes.install(patch)
    path = sweep.run_sweep(config(), name="done", storage=tmp_path_factory.mktemp("runs"))
    yield path
    patch.undo()


def test_a_sweep_ends_with_its_trials_a_front_and_everything_written(finished: Path) -> None:
    run, results = RunDir.open(finished), load_results(finished)
    assert [t["id"] for t in results.trials] == list(range(6))
    assert {t["state"] for t in results.trials} == {"COMPLETE"}
    assert results.front()
    assert results.hypervolume()
    for trial in results.trials:
        kept = {path.name for path in run.trial(trial["id"]).iterdir()}
        assert kept == {"result.json", "table.json", "student"}
    assert (finished / "front.png").read_bytes().startswith(b"\x89PNG")
    assert load_sweep(run.sweep_file, settings=False).seed == 1
    assert not run.ray.exists()


def test_the_first_trial_is_the_methods_defaults(finished: Path) -> None:
    first = load_results(finished).trials[0]
    assert first["config"]["student.width"] == 32  # the default
    assert first["config"]["rate"] == 0.1
    assert first["config"]["teacher.kind"] == "none"
    assert "teacher.width" not in first["config"]


def test_the_front_alone_is_scored_on_test_classes(finished: Path) -> None:
    results = load_results(finished)
    front = {t["id"] for t in results.front()}
    scored = {t["id"] for t in results.trials if t["metrics"].get("test_accuracy") is not None}
    assert scored == front


def test_the_run_says_what_it_was_made_with(finished: Path) -> None:
    info = RunDir.open(finished).info()
    assert {"python", "torch", "ray", "optuna"} <= info["versions"].keys()
    assert re.fullmatch(r"[0-9a-f]{64}", info["data"]["fingerprint"])
    assert info["study"].startswith("done-")
    (session,) = info["sessions"]
    assert session["why"] == "done"
    assert 0 < session["first_trial_s"] <= session["seconds"]


def test_the_document_of_results_is_json_without_nan(finished: Path) -> None:
    document = json.loads(json.dumps(load_results(finished).to_json(), allow_nan=False))
    assert set(document) == {
        "run", "method", "objectives", "constraints", "hypervolume", "spending", "trials", "front",
        "paired",
    }  # fmt: skip
    for trial in document["trials"]:
        assert {"id", "state", "config", "metrics", "failure", "cost_s"} <= set(trial)
        assert trial["metrics"]["teacher_accuracy"] is None


def test_one_trial_trained_alone_has_the_metrics_of_the_sweep(finished: Path) -> None:
    trial = load_results(finished).trials[3]
    alone = train(config(space=fixed(**trial["config"])))
    ours = {
        k: v for k, v in timeless(trial["metrics"]).items() if not k.startswith(("test_", "fresh_"))
    }
    assert {k: alone[k] for k in ours} == ours


def test_extend_adds_exactly_so_many_and_touches_nothing(tmp_path: Path) -> None:
    path = sweep.run_sweep(config(), name="more", storage=tmp_path)
    before = load_results(path)
    sweep.extend(path, 3)
    after = load_results(path)
    assert [t["id"] for t in after.trials] == list(range(9))
    for old, new in zip(before.trials, after.trials, strict=False):
        assert timeless(old["metrics"]).items() <= timeless(new["metrics"]).items()
        assert old["ended"] == new["ended"]
    assert len(after.info["sessions"]) == 2
    assert after.box() == before.box(), "a hypervolume is compared in the same box"
    assert (after.hypervolume() or 0) >= (before.hypervolume() or 0)
    scored = [t["metrics"].get("test_accuracy") for t in before.front()]
    again = {t["id"]: t["metrics"].get("test_accuracy") for t in after.trials}
    assert scored == [again[t["id"]] for t in before.front()]


def test_resuming_a_finished_sweep_runs_nothing(finished: Path, capsys: Any) -> None:
    before = {f: f.read_bytes() for f in finished.rglob("result.json")}
    sweep.resume(finished)
    assert {f: f.read_bytes() for f in finished.rglob("result.json")} == before
    assert "All 6 trials" in capsys.readouterr().err
    assert len(RunDir.open(finished).info()["sessions"]) == 1


def test_a_taken_name_is_refused_before_anything_runs(finished: Path) -> None:
    with pytest.raises(UserError, match="fewtune resume"):
        sweep.run_sweep(config(), name=finished.name, storage=finished.parent)


def test_sick_trials_fail_with_kind_and_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    """Trials with a teacher fail; so does one whose metric is no number."""
    path = sweep.run_sweep(config(space=fixed(sick="wide")), name="sick", storage=tmp_path)
    trials = load_results(path).trials
    assert len(trials) == 6
    for trial in trials:
        ill = trial["config"]["teacher.kind"] == "wide"
        assert trial["state"] == ("FAIL" if ill else "COMPLETE")
        if ill:
            assert trial["failure"]["kind"] == "error"
            assert "a broken layer at step 3" in trial["failure"]["reason"]
            error = (RunDir.open(path).trial(trial["id"]) / "error.txt").read_text()
            assert "Traceback" in error
    assert {t["state"] for t in trials} == {"FAIL", "COMPLETE"}


@pytest.mark.parametrize(
    ("sick", "said"),
    [
        ("nan metric", "no result: the metric accuracy is nan"),
        ("raise", "error: RuntimeError: a broken layer"),
        ("nan", "diverged: the loss became nan at meta-iteration 3 of 10"),
    ],
)
def test_a_sweep_in_which_all_fail_alike_stops_and_says_so(
    tmp_path: Path, sick: str, said: str
) -> None:
    budget = {"trials": 30, "iterations": 10}
    with pytest.raises(SweepFailedError, match=re.escape(said)):
        sweep.run_sweep(config(space=fixed(sick=sick), budget=budget), name="all", storage=tmp_path)
    trials = load_results(tmp_path / "all").trials
    assert 3 <= sum(t["state"] == "FAIL" for t in trials) <= 6
    assert {t["state"] for t in trials} <= {"FAIL", "RUNNING"}


@pytest.mark.slow  # Ray waits longer before each new start
def test_a_trial_whose_process_dies_again_and_again_fails_alone(tmp_path: Path) -> None:
    budget = {"trials": 3, "iterations": 10}
    with pytest.raises(SweepFailedError, match="process died"):
        sweep.run_sweep(
            config(space=fixed(sick="die"), budget=budget), name="dead", storage=tmp_path
        )
    assert {t["failure"]["kind"] for t in load_results(tmp_path / "dead").trials} == {
        "process died"
    }


class Dying(LearnerTrainable):
    """Its process dies, once, as it is given trial 1 to go on with."""

    folder = Path()

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if new_config["id"] == 1:
            (self.folder / "died").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset_config(new_config)


def test_a_process_that_dies_before_a_trial_has_begun_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune gives the trial up at once, without a second start."""
    mortal = type("Mortal", (Dying,), {"folder": tmp_path})
    monkeypatch.setattr("search._tune.LearnerTrainable", mortal)
    one = config(resources={"concurrent": 1}, budget={"trials": 4, "iterations": 4})
    trials = load_results(sweep.run_sweep(one, name="dying", storage=tmp_path)).trials
    assert (tmp_path / "died").exists()
    assert [t["state"] for t in trials] == ["COMPLETE"] * 4
    assert {len(t["reports"]) for t in trials} == {4}


def test_trials_stopped_early_are_pruned_and_keep_what_they_had(tmp_path: Path) -> None:
    early = {"enabled": True, "grace": 0.2, "reduction": 2.0, "tolerance": 0.0}
    path = sweep.run_sweep(
        config(budget={"trials": 12, "iterations": 10}, early_stopping=early),
        name="early", storage=tmp_path,
    )  # fmt: skip
    trials = load_results(path).trials
    pruned = [t for t in trials if t["state"] == "PRUNED"]
    assert pruned
    assert any(t["state"] == "COMPLETE" for t in trials)
    for trial in pruned:
        assert trial["metrics"]["accuracy"] > 0
        assert trial["stopped"].startswith("stopped early at meta-iteration")
        assert trial["reports"]
        assert trial["reports"][-1]["iteration"] < 10


def test_ctrl_c_as_the_trials_are_announced_stops_it_as_at_any_other_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def announce(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("search.session.Progress.open", announce)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(config(), name="early-stop", storage=tmp_path)
    assert f"`fewtune resume {tmp_path / 'early-stop'}` goes on." in capsys.readouterr().err
    run = RunDir.open(tmp_path / "early-stop")
    assert run.info()["sessions"][0]["why"] == "interrupted"


def test_the_wall_clock_ends_a_sweep(tmp_path: Path) -> None:
    budget = {"trials": 500, "iterations": 40, "hours": 8 / 3600}
    path = sweep.run_sweep(
        config(space=fixed(pause_s=0.05), budget=budget), name="short", storage=tmp_path
    )
    results = load_results(path)
    assert 0 < len(results.trials) < 500
    assert {t["state"] for t in results.trials} <= {"COMPLETE", "PRUNED"}
    assert "wall-clock budget" in results.info["sessions"][0]["why"]
    with pytest.raises(UserError, match="wall-clock budget"):
        sweep.resume(path)


def test_a_run_without_room_saves_its_trials_and_goes_on_with_more(tmp_path: Path) -> None:
    slow = config(space=fixed(pause_s=0.05), max_disk="1kB")
    with pytest.raises(DiskLimitError, match="all of it is needed"):
        sweep.run_sweep(slow, name="tight", storage=tmp_path)
    run = RunDir.open(tmp_path / "tight")
    assert "FAIL" not in {r["state"] for r in run.results()}
    sweep.resume(run.path, max_disk="1GB")
    assert [r["state"] for r in run.results()] == ["COMPLETE"] * 6
    with pytest.raises(UserError, match="found 'much'"):
        sweep.resume(run.path, max_disk="much")


def test_data_that_has_changed_is_not_mixed_with_the_old(tmp_path: Path) -> None:
    path = sweep.run_sweep(
        config(budget={"trials": 1, "iterations": 2}), name="old", storage=tmp_path
    )
    run = RunDir.open(path)
    run.write_info(data={**run.info()["data"], "fingerprint": "0" * 64})
    with pytest.raises(UserError, match=r"data of .* has changed"):
        sweep.extend(path, 1)


def test_a_trial_that_fits_no_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="asks for 512 CPU and 0 GPU"):
        sweep.run_sweep(config(resources={"cpu": 512.0}), name="huge", storage=tmp_path)


def test_concurrency_is_kept(tmp_path: Path) -> None:
    path = sweep.run_sweep(
        config(resources={"concurrent": 1}, budget={"trials": 3, "iterations": 4}),
        name="one", storage=tmp_path,
    )  # fmt: skip
    spans = sorted((t["started"], t["ended"]) for t in load_results(path).trials)
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_kill_between_file_and_study_is_settled(tmp_path: Path) -> None:
    """The result is on disk and the study was not told: told on resume, not run again."""
    path = sweep.run_sweep(
        config(budget={"trials": 2, "iterations": 4}), name="torn", storage=tmp_path
    )
    run = RunDir.open(path)
    logs = run.journal.read_text("utf-8").splitlines(keepends=True)
    last = max(i for i, line in enumerate(logs) if json.loads(line).get("state") == 1)
    run.journal.write_text("".join(logs[:last]), "utf-8")
    before = {f: read_json(f)["ended"] for f in path.rglob("result.json")}
    sweep.resume(path)
    assert {f: read_json(f)["ended"] for f in path.rglob("result.json")} == before
    assert len(run.info()["sessions"]) == 1
    sweep.extend(path, 1)
    assert [t["state"] for t in load_results(path).trials] == ["COMPLETE"] * 3


def test_addresses_and_wrong_numbers_are_refused(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(UserError, match="found gs://bucket/runs"):
        sweep.run_sweep(config(storage="gs://bucket/runs"))
    with pytest.raises(UserError, match="at least 1"):
        sweep.extend(finished, 0)
    with pytest.raises(UserError, match="A run is a directory"):
        sweep.resume(tmp_path)
