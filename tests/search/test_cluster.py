from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray

from search import _cluster
from search._cluster import MemoryWatch, SharedData, check_room, connected, slots, tree_mib
from search.config import DataConfig
from search.errors import UserError
from tests.processes import ROOT
from trainables import _data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

BOTH = [{"CPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}]


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": r} for r in BOTH]
    dead = {"Alive": False, "Resources": {"CPU": 999.0}}
    total = {"CPU": 10.0, "GPU": 1.0}
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, dead])
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)


@pytest.mark.usefixtures("two_nodes")
def test_a_trial_must_fit_one_node() -> None:
    check_room(8, 1)
    with pytest.raises(
        UserError, match=r"asks for 10 CPU and 0 GPU .* largest has 8 CPU and 1 GPU"
    ):
        check_room(10, 0)
    with pytest.raises(UserError, match=r"2 GPU .* or add `--set resources.gpu=0`"):
        check_room(1, 2)


@pytest.mark.usefixtures("two_nodes")
@pytest.mark.parametrize(
    ("cpu", "gpu", "concurrent", "fit"),
    [(1, 0, None, 10), (1, 0.25, None, 4), (3, 0, None, 3), (1, 0, 2, 2), (1, 0.1, None, 10)],
)
def test_slots_are_what_the_scarcest_resource_allows(
    cpu: float, gpu: float, concurrent: int | None, fit: int
) -> None:
    assert slots(cpu, gpu, concurrent) == fit


@pytest.mark.usefixtures("two_nodes")
def test_where_nodes_come_for_trials_that_wait_the_file_says_how_many() -> None:
    assert slots(1, 1, 16, scales=True) == 16
    assert slots(1, 1, None, scales=True) == 1  # nobody said how many
    assert slots(1, 1, 16) == 1


def test_no_cluster_at_an_address_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # of another test
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match="no Ray cluster at"), connected(address):
        pytest.fail("connected to nothing")


@pytest.mark.cluster
def test_without_an_address_a_ray_of_its_own_is_started_whatever_the_environment_names() -> None:
    asked = "import ray, search._cluster as c\nwith c.connected(): print(len(ray.nodes()))"
    done = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_driver_is_no_ray_client_and_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    said = r"a Ray client, which is none; .*`fewtune sweep FILE --address ray://head:10001`"
    with pytest.raises(UserError, match=said), connected("ray://head:10001"):
        pytest.fail("connected by a client")


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a port where somebody answers, but no Ray."""
    monkeypatch.setattr(_cluster, "PAUSE_S", 0)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"ray://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(("refusals", "turns"), [(0, 1), (2, 3)])
def test_a_client_is_taken_at_the_third_turn_at_the_latest(
    refusals: int, turns: int, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def init(address: str, **_: Any) -> None:
        asked.append(address)
        if len(asked) <= refusals:
            raise ConnectionAbortedError("Initialization failure from server:\nit is gone")

    monkeypatch.setattr(ray, "init", init)
    with _cluster.client(listening):
        assert asked == [listening] * turns


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionAbortedError("failure from server:\nit is gone"),
            r"client: it is gone\. Either",
        ),
        (ConnectionError("ray client connection timeout"), r"timeout\. .* another token than its"),
        (
            RuntimeError("Version mismatch: 3.10\nmore"),
            r"mismatch: 3\.10\. It has to have the versi",
        ),
    ],
)
def test_a_client_that_is_not_taken_is_told_why(
    error: Exception, said: str, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=said), _cluster.client(listening):
        pytest.fail("taken")


def share() -> tuple[SharedData, _data.Dataset]:
    dataset = _data.load("glyphs")
    return SharedData.of(DataConfig(), dataset.fingerprint), dataset


def test_the_data_travels_as_what_maps_it_again() -> None:
    shared, dataset = share()
    assert shared.copy is None
    again = shared.open()
    assert again.fingerprint == dataset.fingerprint == shared.fingerprint
    assert np.array_equal(again.train.images[:5], dataset.train.images[:5])
    import pickle

    assert len(pickle.dumps(shared)) < 2000


def test_a_node_without_the_files_fetches_the_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, dataset = share()
    monkeypatch.setattr(ray, "get", lambda ref: dataset)

    def gone(**arguments: Any) -> None:
        raise _data.DataError("there is nothing here")

    monkeypatch.setattr(_data, "load", gone)
    with pytest.raises(_data.DataError, match="nothing here"):
        shared.open()
    elsewhere = SharedData(shared.arguments, shared.fingerprint, copy="a reference")
    assert elsewhere.open() is dataset


@pytest.mark.usefixtures("two_nodes")
def test_with_several_nodes_the_arrays_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, dataset = share()
    monkeypatch.setattr(ray, "put", lambda value: ("put", value))
    assert shared.for_all_nodes(dataset).copy == ("put", dataset)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    assert shared.for_all_nodes(dataset) is shared
    assert shared.for_all_nodes(dataset, scales=True).copy == ("put", dataset)  # others will come


def test_data_that_changes_under_a_sweep_is_refused() -> None:
    shared, _ = share()
    other = SharedData(shared.arguments, "0" * 64)
    with pytest.raises(_data.DataError, match="changed while the sweep ran"):
        other.open()


def _hold(mib: int, ready: Event, done: Event) -> None:
    block = np.ones(mib * 2**20, dtype=np.uint8)
    ready.set()
    done.wait(30)
    del block


def test_memory_counts_the_processes_below() -> None:
    before = tree_mib(os.getpid())
    assert before is not None
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    child = spawn.Process(target=_hold, args=(300, ready, done))
    child.start()
    assert ready.wait(60)
    during = tree_mib(os.getpid())
    assert during is not None
    done.set()
    child.join(30)
    assert during - before > 290


def test_the_peak_of_memory_is_kept() -> None:
    with MemoryWatch(every_s=0.01) as watch:
        while watch.peak_mib is None:
            pass
    assert watch.peak_mib > 10


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_here")
@pytest.mark.timeout(120)
def test_a_local_ray_is_reached_from_this_machine_alone() -> None:
    """Every listening port of Ray's processes is bound to loopback."""
    tree = _descendants(os.getpid())
    asked = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip("ss is not installed here")
    ours = [line for line in asked.stdout.splitlines() if any(f"pid={p}," in line for p in tree)]
    assert ours
    addresses = {line.split()[3].rpartition(":")[0] for line in ours}
    assert addresses <= {"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"}


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_here")
def test_a_ray_that_is_there_is_used_and_left_running() -> None:
    with connected():
        assert ray.is_initialized()
    assert ray.is_initialized()
    assert _cluster.slots(1, 0, None) >= 1


def _descendants(root: int) -> list[int]:
    asked = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in asked.stdout.splitlines()]
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += [child for child, parent in pairs if parent == pid]
    return found
