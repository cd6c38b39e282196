"""A sweep that Weights & Biases and MLflow follow, read back with their own readers."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from search import sweep
from search.disk import DiskLimitError
from search.errors import UserError
from search.feed import Shown
from search.results import load_results
from search.rundir import RunDir, tune_name
from tests.search.test_sweep import config, fixed

pytest.importorskip("mlflow", reason="mlflow is not installed (fewtune[loggers])")
wandb = pytest.importorskip("wandb", reason="wandb is not installed (fewtune[loggers])")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # theirs, while they are imported
    pytest.mark.timeout(400),
]
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
BOTH: dict[str, dict[str, str]] = {"mlflow": {}, "wandb": {}}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is sent anywhere, and nothing of this machine is read."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.teardown()  # it reads the environment once a session


def of_mlflow(run: Path) -> dict[str, Any]:
    """Read every run of an experiment with MLflow's client: name -> run, and its curves."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run / 'loggers' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(run.name)
    assert experiment is not None
    runs: list[Any] = list(client.search_runs([experiment.experiment_id]))
    assert len({one.info.run_name for one in runs}) == len(runs)
    for one in runs:
        one.curves = {
            name: [(m.step, m.value) for m in client.get_metric_history(one.info.run_id, name)]
            for name in one.data.metrics
        }
    return {str(one.info.run_name): one for one in runs}


def of_wandb(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Read every offline file: name of the run -> what each session wrote of it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((run / "loggers" / "wandb").glob("offline-run-*/*.wandb")):
        until = time.monotonic() + 30
        while "exit" not in (one := read_offline(file)):  # its service writes a little later
            assert time.monotonic() < until, one
            time.sleep(0.1)
        found.setdefault(str(one["name"]), []).append(one)
    return found


def read_offline(file: Path) -> dict[str, Any]:
    """Read one offline file with wandb's own reader, as far as it is written."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    one: dict[str, Any] = {"config": {}, "summary": {}, "history": []}
    if not file.stat().st_size:
        return one
    store = DataStore()
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made at run time
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            one |= {"id": record.run.run_id, "name": record.run.display_name}
            one |= {"group": record.run.run_group, "project": record.run.project}
            one["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "history":
            row = {".".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            one["history"].append({k: json.loads(v) for k, v in row.items()})
        elif kind == "summary":
            row = {".".join(u.nested_key) or u.key: u.value_json for u in record.summary.update}
            one["summary"] |= {k: json.loads(v) for k, v in row.items()}
        elif kind == "exit":
            one["exit"] = record.exit.exit_code
    store.close()
    return one


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_here", "fake_method")
def test_both_show_every_trial_once_with_our_names_and_how_it_ended(tmp_path: Path) -> None:
    early = {"enabled": True, "grace": 0.2, "reduction": 2.0, "tolerance": 0.0}
    followed = config(
        budget={"trials": 12, "iterations": 10}, early_stopping=early, loggers=BOTH,
        space=fixed(sick="wide"), resources={"concurrent": 1},  # who is stopped is no chance then
    )  # fmt: skip
    path = sweep.run_sweep(followed, name="letters", storage=tmp_path)
    trials = [t for t in load_results(path).trials if t["state"] != "REFUSED"]
    assert {t["state"] for t in trials} == set(STATUS)
    shown, offline = of_mlflow(path), of_wandb(path)
    assert set(shown) == set(offline) == {tune_name(t["id"]) for t in trials}
    for trial in trials:
        one, (other,) = shown[tune_name(trial["id"])], offline[tune_name(trial["id"])]
        params = {name: str(value) for name, value in trial["config"].items()}
        assert one.data.params == params
        assert trial["config"].items() <= other["config"].items()
        assert not {"restore", "id", "config", "further"} & {*one.data.params, *other["config"]}
        why = (trial["failure"] or {}).get("reason", trial["stopped"])
        assert one.info.status == STATUS[trial["state"]]
        assert one.data.tags["state"] == other["summary"]["state"] == trial["state"]
        assert why in one.data.tags["reason"]
        assert why in other["summary"]["reason"]
        assert (other["group"], other["project"]) == ("letters", "fewtune")
        assert other["exit"] == int(trial["state"] == "FAIL")
        seen = [(row["iteration"], row["accuracy"]) for row in trial["reports"]]
        last = (10, trial["metrics"].get("accuracy"))
        curve = list(dict.fromkeys([*seen, last] if trial["state"] == "COMPLETE" else seen))
        assert one.curves.get("accuracy", []) == curve
        rows = [(r["_step"], r["accuracy"]) for r in other["history"] if "accuracy" in r]
        assert rows == curve
    assert not (path / "ray").exists()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_here", "fake_method")
def test_a_resumed_trial_goes_on_in_the_run_it_had(tmp_path: Path) -> None:
    slow = config(
        space=fixed(pause_s=0.05), max_disk="1kB", loggers=BOTH,
        budget={"trials": 3, "iterations": 10},
    )  # fmt: skip
    with pytest.raises(DiskLimitError, match="all of it is needed"):
        sweep.run_sweep(slow, name="tight", storage=tmp_path)
    path = tmp_path / "tight"
    halted = {n: one for n, one in of_mlflow(path).items() if one.info.status == "KILLED"}
    assert halted
    assert {one.data.tags["state"] for one in halted.values()} == {"INTERRUPTED"}
    sweep.resume(path, max_disk="1GB")
    shown, offline = of_mlflow(path), of_wandb(path)
    assert set(shown) == set(offline) == {tune_name(number) for number in range(3)}
    for name, one in shown.items():
        assert (one.info.status, one.data.tags["state"]) == ("FINISHED", "COMPLETE")
        assert max(Counter(step for step, _ in one.curves["loss"]).values()) == 1
        sessions = offline[name]
        assert len({session["id"] for session in sessions}) == 1
        assert sessions[-1]["summary"]["state"] == "COMPLETE"
        assert len(sessions) == (2 if name in halted else 1)
    assert {one.info.run_id for one in halted.values()} <= {o.info.run_id for o in shown.values()}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_here", "fake_method")
def test_a_server_that_is_not_there_is_said_once_and_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")  # nobody listens
    budget = {"trials": 3, "iterations": 10}
    followed = config(budget=budget, loggers={"mlflow": {}})
    path = sweep.run_sweep(followed, name="letters", storage=tmp_path)
    assert {t["state"] for t in load_results(path).trials} == {"COMPLETE"}
    said = capsys.readouterr().err
    assert said.count("mlflow fails: ") == 1
    assert "hunter2" not in said
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # back to the store in the run
    sweep.resume(path)
    shown = of_mlflow(path)
    assert set(shown) == {tune_name(number) for number in range(3)}
    assert {one.info.status for one in shown.values()} == {"FINISHED"}
    assert all(one.curves["accuracy"][-1][0] == 10 for one in shown.values())


@pytest.mark.slow
def test_mlflow_has_a_run_for_a_trial_and_goes_on_in_it(tmp_path: Path) -> None:
    from search._mlflow import Runs

    run = RunDir.create(tmp_path / "letters")
    for session, (steps, state) in enumerate((((1, 2), ""), ((2, 3), "FAIL"))):
        logger: Any = Runs(run, {})
        trial = Shown(3, {"student.width": 8}, "letters")
        logger.setup()
        trial.trial_id = next(iter(of_mlflow(run.path).values())).info.run_id if session else ""
        logger.log_trial_start(trial)
        assert of_mlflow(run.path)["trial-00003"].info.status == "RUNNING"
        for step in steps:
            logger.log_trial_result(step, trial, {"loss": 1 / step})
        trial.outcome = {"state": state, "reason": "diverged"} if state else {}
        logger.log_trial_end(trial, failed=bool(state))
        (one,) = of_mlflow(run.path).values()
        assert one.info.status == ("FAILED" if session else "KILLED")
        assert one.data.tags["state"] == (state or "INTERRUPTED")
    (one,) = of_mlflow(run.path).values()
    assert one.curves["loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert one.data.params == {"student.width": "8"}
    assert one.data.tags["reason"] == "diverged"
    second = RunDir.create(tmp_path / "second")
    store = Runs(second, {}).tracking_uri
    assert store == f"sqlite:///{second.path / 'loggers' / 'mlflow.db'}", "not the first one's"
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"} & set(os.environ)


@pytest.mark.slow
def test_options_name_the_store_and_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search._mlflow import Runs

    run, given = RunDir.create(tmp_path / "letters"), {"tracking_uri": "http://a"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    named, unnamed = Runs(run, {**given, "experiment_name": "x"}), Runs(run, {})
    assert (named.tracking_uri, named.experiment_name) == ("http://a", "x")
    assert (unnamed.tracking_uri, unnamed.experiment_name) == ("http://b", "mine")


def test_wandb_has_a_run_for_a_trial_and_goes_on_in_it(tmp_path: Path) -> None:
    from search._wandb import Runs

    run, known = RunDir.create(tmp_path / "letters"), ""
    for steps, state in (((1, 2, 1), ""), ((2, 3), "FAIL")):
        logger: Any = Runs(run, {"project": "p", "entity": "e"})
        logger.setup()
        trial = Shown(3, {"student.width": 8}, "letters", known)
        logger.log_trial_start(trial)
        assert trial.trial_id == (known or trial.trial_id) != ""
        known = trial.trial_id
        for step in steps:
            logger.log_trial_result(step, trial, {"loss": 1 / step})
        trial.outcome = {"state": state, "reason": "diverged"} if state else {}
        logger.log_trial_end(trial, failed=bool(state))
    (sessions,) = of_wandb(run.path).values()
    assert [[row["_step"] for row in one["history"]] for one in sessions] == [[1, 2], [2, 3]]
    assert [one["summary"]["state"] for one in sessions] == ["INTERRUPTED", "FAIL"]
    assert {one["id"] for one in sessions} == {known}
    assert {(one["name"], one["group"], one["project"]) for one in sessions} == {
        ("trial-00003", "letters", "p")
    }
    assert sessions[1]["config"]["student.width"] == 8


def test_wandb_without_a_key_is_said_before_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search._wandb import check_signed_in

    check_signed_in()  # offline needs none
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="export WANDB_API_KEY, or WANDB_MODE=offline"):
        check_signed_in()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_signed_in()
    assert list(tmp_path.iterdir()) == []
