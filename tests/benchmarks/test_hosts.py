"""What the sweeps on three hosts are compared by; the sweeps themselves run in ``make bench``."""

import random
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import alike, hosts
from benchmarks.alike import Ran, Trial
from benchmarks.hosts import Kill
from search.config import dump_sweep, load_sweep
from search.rundir import RunDir
from spaces._domains import Fixed

CONFIG = {"student.width": 8, "inner_rate": 0.1}
METRICS = {"accuracy": 0.5, "student_params": 847}


def trial(**changes):
    return replace(Trial("COMPLETE", CONFIG, METRICS, b"weights"), **changes)


def ran(front=(0, 1), seconds=100.0, per_hour=60.0, notes=None, **changed):
    trials = {n: trial() for n in range(4)}
    trials |= {int(name[1:]): one for name, one in changed.items()}
    return Ran(trials, front, seconds, per_hour, notes or {})


def test_equal_sweeps_are_the_same():
    assert alike.same(ran(), ran()) == alike.same_front(ran(), ran()) == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": METRICS | {"accuracy": 0.5 + 1e-12}},
        {"config": CONFIG | {"inner_rate": 0.2}},
        {"weights": b"weighty"},
        {"state": "FAIL"},
    ],
)
def test_one_trial_that_differs_counts(changes):
    other = ran(t1=trial(**changes))
    assert alike.same(ran(), other) == 0.75
    assert alike.same_front(ran(), other) == 0.5
    assert alike.same_front(ran(front=(0, 2)), replace(other, front=(0, 2))) == 1.0


def test_a_trial_that_one_sweep_lacks_counts_on_either_side():
    fewer = ran()
    fewer = replace(fewer, trials={n: t for n, t in fewer.trials.items() if n})
    assert alike.same(ran(), fewer) == alike.same(fewer, ran()) == 0.75
    assert alike.same_front(ran(front=(0, 1)), ran(front=(0,))) == 0.5
    assert alike.same_front(ran(front=(0,)), ran(front=(0, 1))) == 0.5


def test_two_sweeps_that_found_nothing_show_nothing():
    assert alike.same_front(ran(front=()), ran(front=())) == 0.0


def test_the_clock_is_not_compared(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    one = {"state": "COMPLETE", "config": CONFIG, "metrics": METRICS | {"adapt_ms": 1.0}}
    other = {**one, "metrics": METRICS | {"adapt_ms": 2.0, "train_seconds": 3.0}}
    assert alike.trial_of(one, weights) == alike.trial_of(other, weights) == trial()
    assert alike.trial_of(one, tmp_path / "none").weights == b""


def test_nothing_in_the_sweep_depends_on_the_order_of_its_trials(tmp_path):
    config = hosts.sweep_of(6, 16, seed=3)
    assert config == hosts.sweep_of(6, 16, seed=3)
    assert config.points != hosts.sweep_of(6, 16, seed=4).points
    assert len({str(point) for point in config.points}) == 6
    fixed = {name for name, domain in config.resolved_space().items() if isinstance(domain, Fixed)}
    assert not fixed & {name for point in config.points for name in point}
    assert config.evaluation.settings == 1
    assert not config.early_stopping.enabled
    file = tmp_path / "sweep.yaml"
    file.write_text(dump_sweep(config), "utf-8")
    assert load_sweep(file).points == config.points


def test_rows_of_the_kill_can_miss_their_floors():
    lost = Kill(2, 1, {3: 60})
    notes = {3: ["went on from meta-iteration 40"]}
    held = hosts.disturbed_rows(ran(), ran(seconds=130.0, notes=notes), lost, 4, 160)
    assert all(row.holds() for row in held)
    by_id = {row.id: row for row in held}
    assert by_id["cost_of_the_kill"].value == 30.0
    assert by_id["went_on"].value == 1
    assert "3 from 40, last reported 60" in by_id["went_on"].detail
    broken = ran(front=(1, 2), t1=trial(state="FAIL"))
    short = hosts.disturbed_rows(ran(), broken, lost, 4, 160)
    assert [r.id for r in short if not r.holds()] == [
        "same_front", "same_trials", "finished", "went_on",
    ]  # fmt: skip


def test_scaling_is_told_without_a_floor_and_results_with_one():
    by_hosts = {
        3: ran(per_hour=90.0),
        2: replace(ran(per_hour=80.0), beside=0.7),
        1: ran(per_hour=50.0),
    }
    rows = {row.id: row for row in hosts.scaling_rows(by_hosts, cores=2)}
    assert (rows["scaling_2"].value, rows["scaling_3"].value) == (1.6, 1.8)
    assert "2 cores" in rows["scaling_3"].detail
    assert "0.7 cores busy" in rows["trials_per_hour_2"].detail
    assert [row.id for row in rows.values() if row.floor is not None] == ["same_on_fewer_hosts"]
    assert rows["same_on_fewer_hosts"].holds()
    by_hosts[1] = ran(t2=trial(weights=b""))
    assert not {r.id: r for r in hosts.scaling_rows(by_hosts, 2)}["same_on_fewer_hosts"].holds()


def cluster_and_driver(code: int | None = None) -> Any:
    worker = SimpleNamespace(number=3, actors=lambda: [1], raylet=lambda: 4321)
    return SimpleNamespace(workers=[worker]), SimpleNamespace(poll=lambda: code)


@pytest.fixture
def killed(monkeypatch):
    found: list[int] = []
    monkeypatch.setattr(hosts, "end", found.append)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return found


def write_run(path, states):
    run = RunDir.create(path)
    run.write_info(name="run")
    for number, state in enumerate(states):
        reports = [{"iteration": 20}, {"iteration": 40}] if number % 2 else []
        run.write_result({"id": number, "state": state, "reports": reports})
    return run


def test_a_busy_worker_is_killed_once_enough_have_ended_and_all_have_checkpoints(
    tmp_path, killed, monkeypatch
):
    run = write_run(tmp_path / "run", ["RUNNING"] * 9)
    steps = iter([*range(7), 7, 8, 9])

    def another(_):
        number = next(steps)
        assert not killed
        if number < 7:
            run.write_result({"id": number, "state": "COMPLETE", "reports": []})
        else:
            run.write_saved(number, [])

    monkeypatch.setattr(time, "sleep", another)
    chance = random.Random(0)
    monkeypatch.setattr(chance, "randint", lambda *_: 7)
    cluster, driver = cluster_and_driver()
    lost = hosts.pull(cluster, 10, chance, driver, tmp_path / "run")
    assert killed == [4321]
    assert not list(steps), "trial 8 had no checkpoint yet"
    assert lost == Kill(3, 7, {7: 40, 8: 0})


def test_a_sweep_that_ends_too_early_is_no_result(tmp_path, killed):
    write_run(tmp_path / "run", ["COMPLETE"])
    cluster, driver = cluster_and_driver(code=0)
    with pytest.raises(RuntimeError, match="before a worker could be killed"):
        hosts.pull(cluster, 10, random.Random(0), driver, tmp_path / "run")
    assert not killed


def test_cores_kept_busy_are_read_off_the_ticks(tmp_path, monkeypatch):
    file = tmp_path / "stat"
    file.write_text("cpu 100 0 0 100 0 0 0 0 0 0\ncpu0 1\n", "utf-8")
    later = "cpu 120 30 10 220 20 0 0 0 0 0\ncpu0 1\n"
    monkeypatch.setattr(time, "sleep", lambda _: file.write_text(later, "utf-8"))
    monkeypatch.setattr(hosts, "machine", lambda: {"cores": 2})
    assert hosts.busy_cores(file=file) == pytest.approx(2 * 60 / 200)
