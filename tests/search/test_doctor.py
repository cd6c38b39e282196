"""The doctor's report: what would stop a sweep is found before it starts."""

import json
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from search import _cluster, _nodes, doctor, findings, largest, preflight, registry
from search.cli import cli
from search.config import DataConfig, SweepConfig, load_sweep
from search.doctor import Report, examine
from search.errors import UserError
from search.findings import Finding, Step
from search.largest import OfConfig, step, step_here
from search.probe import Facts, versions
from trainables._learner import DivergedError

DATA = DataConfig(size=20, queries=5)
SPACE = "{student.width: {int: [4, 6]}, student.depth: 2, inner_steps: 1, meta_batch: 1}"
ANYONE = _nodes.Node("a node", "", {})
NO_DATA: Any = None
FINE = Step("cpu", 1.0, 500.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(cache, monkeypatch):
    """Drawn once for all tests here."""
    monkeypatch.setenv("FEWTUNE_CACHE", str(cache))


@pytest.fixture
def stepped(monkeypatch):
    """Steps that take no time; what was asked."""
    asked = []

    def quick(config, settings, *_):
        asked.append(settings)
        return FINE

    monkeypatch.setattr(largest, "step_here", quick)
    monkeypatch.setattr(largest, "step", quick)
    return asked


def by_check(report):
    return {one.check: one.state for one in report.findings}


def maml(tmp_path, space=SPACE, more=""):
    file = tmp_path / "sweep.yaml"
    head = "method: maml\ndata: {size: 20, queries: 5}\n"
    head += "evaluation: {quick_tasks: 2, validation_tasks: 2}\n"
    file.write_text(f"{head}space: {space}\nstorage: {tmp_path}/runs\n{more}")
    return load_sweep(file)


def test_a_machine_on_which_all_is_well(tmp_path, stepped):
    report = examine(maml(tmp_path))
    assert report.healthy
    assert list(by_check(report)) == [
        "data", "space", "versions", "storage", "disk", "room", "step",
    ]  # fmt: skip
    assert stepped[0]["student.width"] == 6
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("space", "more", "check"),
    [
        ("{student.depth: {int: [2, 8]}, student.down: pool}", "", "space"),
        (SPACE, "resources: {cpu: 4000}", "room"),
        (SPACE, "resources: {gpu: 1}", "gpu"),
    ],
)
def test_what_would_stop_a_sweep_is_found(tmp_path, stepped, monkeypatch, space, more, check):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    report = examine(maml(tmp_path, space, more))
    assert not report.healthy
    assert by_check(report)[check] == "stops"


def test_an_address_is_no_storage_and_data_must_be_there(tmp_path, stepped):
    config = SweepConfig(method="maml", data=DataConfig(source="omniglot", path=tmp_path / "no"))
    report = examine(config.model_copy(update={"storage": "gs://bucket/runs"}))
    found = by_check(report)
    assert (found["data"], found["bucket"]) == ("stops", "stops")
    assert stepped == []


def on_a_cluster(monkeypatch, *, answers=None, room=4.0):
    """A cluster of two nodes, which are this process."""
    nodes = [_nodes.Node(name, name, {"CPU": room}) for name in "ab"]

    def each(function, asked, *, patience_s=60.0, among=nodes):
        return [_nodes.Answer(n, function(asked)) for n in among] if answers is None else answers

    def trial(function, *asked, cpu, gpu, patience_s):
        return _nodes.Answer(nodes[0], function(*asked))

    monkeypatch.setattr(_nodes, "nodes", lambda: nodes)
    monkeypatch.setattr(_nodes, "free", lambda: {"CPU": 2 * room})
    monkeypatch.setattr(_nodes, "on_every_node", each)
    monkeypatch.setattr(_nodes, "as_a_trial", trial)
    monkeypatch.setattr(_cluster.SharedData, "for_all_nodes", lambda self, data: self)
    monkeypatch.setattr(_cluster, "connected", lambda address: nullcontext())
    return nodes


def test_a_cluster_on_which_all_is_well(tmp_path, stepped, monkeypatch):
    on_a_cluster(monkeypatch)
    report = examine(maml(tmp_path), "auto")
    assert report.healthy
    assert list(by_check(report)) == [
        "data", "space", "nodes", "versions", "storage", "disk", "clock", "room", "step",
    ]  # fmt: skip
    assert len(stepped) == 1
    monkeypatch.setattr(
        _nodes, "as_a_trial", lambda *a, **k: _nodes.Answer(ANYONE, None, "the worker died")
    )
    report = examine(maml(tmp_path), "auto")
    assert "the worker died" in report.findings[-1].said
    assert not report.healthy


def test_a_cluster_too_small_and_one_that_is_not_there(tmp_path, stepped, monkeypatch):
    on_a_cluster(monkeypatch, room=0.5)
    report = examine(maml(tmp_path), "auto", tmp_path)
    assert by_check(report)["room"] == "stops"
    assert "step" not in by_check(report)

    def nobody(address):
        raise UserError("There is no Ray cluster at nowhere.")

    monkeypatch.setattr(_cluster, "connected", nobody)
    report = examine(maml(tmp_path), "nowhere")
    assert by_check(report)["cluster"] == "stops"


def test_before_a_sweep_a_cluster_is_looked_at_briefly(tmp_path, monkeypatch):
    nodes = on_a_cluster(monkeypatch)
    assert preflight.check_nodes(tmp_path).looks == []
    monkeypatch.setattr(findings, "FEW_GIB", 1e9)
    assert {one.check for one in preflight.check_nodes(tmp_path).looks} == {"disk"}
    bad: list[Any] = [_nodes.Answer(nodes[0], None, "it did not answer in time")]
    on_a_cluster(monkeypatch, answers=bad)
    with pytest.raises(UserError, match="a: it did not answer in time"):
        preflight.check_nodes(tmp_path)
    monkeypatch.setattr(_nodes, "nodes", lambda: nodes[:1])
    monkeypatch.setattr(findings, "LEAST_GIB", 1e9)
    with pytest.raises(UserError, match="GiB left for"):
        preflight.check_nodes(tmp_path)


def test_nodes_that_lack_the_directory_save_in_the_bucket_if_all_reach_it(tmp_path, monkeypatch):
    bucket, nodes = "s3://bucket/runs/a", on_a_cluster(monkeypatch)
    monkeypatch.setattr("search.probe.check_bucket", lambda *_, **__: None)
    assert not preflight.check_nodes(tmp_path, bucket).afar  # they share the directory

    def said(**more):
        facts = Facts(versions(), "it is not the same directory", "", {}, 0.0, **more)
        answers = [_nodes.Answer(node, facts) for node in nodes]
        on_a_cluster(monkeypatch, answers=answers)

    said()
    assert preflight.check_nodes(tmp_path, bucket) == preflight.Nodes([], afar=True)
    with pytest.raises(UserError, match=r"mount it there, writable, or keep the run in a bucket"):
        preflight.check_nodes(tmp_path)
    said(bucket="access is denied")
    with pytest.raises(UserError, match=r"a cannot use s3://bucket/runs/a: access is denied\."):
        preflight.check_nodes(tmp_path, bucket)
    monkeypatch.setattr(_nodes, "nodes", lambda: nodes[:1])
    assert not preflight.check_nodes(tmp_path, bucket).afar
    assert preflight.check_nodes(tmp_path, bucket, scales=True).afar  # others are to come
    assert not preflight.check_nodes(tmp_path, scales=True).afar


def test_the_doctor_asks_every_node_for_the_bucket(tmp_path, stepped, monkeypatch):
    on_a_cluster(monkeypatch)
    asked = []
    monkeypatch.setattr("search.probe.check_bucket", lambda place, **_: asked.append(place))
    monkeypatch.setattr(doctor, "check_bucket", lambda place: None)
    monkeypatch.chdir(tmp_path)
    assert examine(maml(tmp_path), "auto", "s3://bucket/runs").healthy
    assert asked == ["s3://bucket/runs"] * 2


# ---------------------------------------------------------------- the largest setting


def test_a_step_of_the_largest_setting_is_done(fake_method):
    config = SweepConfig(method="fake", data=DATA)
    settings = largest.largest(config, 1, 20)
    assert (settings["student.width"], settings["teacher.width"]) == (32, 64)
    done = step(config, settings, OfConfig(config), registry.carry("fake"))
    assert done.failure == ""
    assert done.peak_mib > 50
    assert done.device == "cpu"


def test_corners_that_cannot_be_built_are_not_the_largest(tmp_path):
    config = maml(tmp_path, "{student.depth: {int: [2, 8]}, student.down: pool}")
    assert largest.largest(config, 1, 20)["student.depth"] == 4


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (MemoryError(), "out of memory"),
        (ValueError("too small\nfor that"), "too small"),
        (ValueError(), "ValueError"),
        (DivergedError("nan"), ""),
    ],
)
def test_a_step_that_fails_is_told(tmp_path, monkeypatch, error, failure):
    def fail(*_):
        raise error

    monkeypatch.setattr(largest, "_once", fail)
    assert step(maml(tmp_path), {}, NO_DATA, registry.carry("maml")).failure == failure


def test_on_a_gpu_its_allocator_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(largest, "_once", lambda *_: None)
    gpu = SimpleNamespace(
        is_available=lambda: True, get_device_name=lambda: "GPU",
        get_device_properties=lambda _: SimpleNamespace(total_memory=2**34),
        max_memory_reserved=lambda: 2**30,
    )  # fmt: skip
    monkeypatch.setattr(torch, "cuda", gpu)
    config = maml(tmp_path, more="resources: {gpu: 0.5}")
    found = step(config, {}, NO_DATA, registry.carry("maml"))
    assert (found.device, found.peak_mib, found.total_mib) == ("GPU", 1024, 16384)


def test_a_process_that_is_killed_is_told(tmp_path, monkeypatch):
    class Pool:
        def __init__(self, *a, **k): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def submit(self, *_):
            return SimpleNamespace(result=self.result)

        def result(self):
            raise BrokenProcessPool

    monkeypatch.setattr(largest, "ProcessPoolExecutor", Pool)
    assert "killed" in step_here(maml(tmp_path), {}).failure


@pytest.mark.slow
def test_a_step_in_a_process_of_its_own(tmp_path):
    config = maml(tmp_path)
    done = step_here(config, largest.largest(config, 1, 20))
    assert (done.failure, done.device) == ("", "cpu")
    assert done.peak_mib > 100


# ---------------------------------------------------------------- the command


def test_the_command_tells_and_ends_with_1_where_a_sweep_would_stop(tmp_path, monkeypatch):
    bad = Report((Finding("disk", "stops", "a [full] disk.", "Make room."),))
    monkeypatch.setattr(doctor, "examine", lambda *_: bad)
    done = CliRunner().invoke(cli, ["doctor"], standalone_mode=False)
    assert done.return_value == 1
    assert "a [full] disk." in done.stdout
    monkeypatch.setattr(doctor, "examine", lambda *_: Report(()))
    done = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
    assert done.return_value == 0
    assert json.loads(done.stdout) == {"healthy": True, "findings": []}
