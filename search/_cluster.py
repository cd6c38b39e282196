"""The one caller of ``ray.init``: a quiet local Ray that only this machine can reach, or a cluster.

Ray listens on all interfaces even where it is given 127.0.0.1, which it takes for "find my
address". Its switch for systems with a nagging firewall keeps it on loopback; it is set here for
local sweeps. Token authentication stays as Ray has it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import ray
from ray._private import ray_constants

from search.addresses import CLIENT, is_client, shown
from search.errors import UserError
from trainables import _data
from trainables._data._cache import cache_folder
from trainables._data._source import root_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from search.config import DataConfig
    from trainables._data import Dataset

OBJECT_STORE_BYTES = 200 * 2**20  # the data is memory-mapped; only small handles travel

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",  # a trial sets its own threads
    "RAY_worker_niceness": "0",  # Ray's 15 starves trials, and their timings, beside anything else
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study is the record; Tune's own state is not read
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's would stop without saving; see interrupts.py
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
TURNS, PAUSE_S = 3, 3.0  # a client is not taken now and then, when another has just left
REACH_S = 5.0  # Ray itself would wait minutes for an address where nobody listens


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Have a Ray to run on: the one that is there, a cluster, or a local one that ends with us.

    Args:
        address: Of a running cluster; None starts a local one.

    Raises:
        UserError: There is no cluster at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        _join(address, common)
    else:
        with _on_loopback():
            ray.init(
                address="local",  # not what RAY_ADDRESS or another Ray of this machine says
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **common,
            )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have what is started here bind to loopback: this process and those it starts."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    os.environ[name] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when it was imported
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


@contextmanager
def client(address: str) -> Iterator[None]:
    """Be a client of a cluster from a machine that is none of its nodes.

    Args:
        address: ``ray://HOST:PORT``, of the server that ``ray start --head`` starts at port 10001.

    Raises:
        UserError: Nobody answers there, or with another version of Ray or Python.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    with _reaching(address):
        _knock(address.removeprefix(CLIENT))
    try:
        _become_client(address)
    except ConnectionError as error:
        raise UserError(
            f"Something listens at {address} and takes no Ray client: {_line(error, -1)} Either "
            "the head is still starting, or this machine has another token than its nodes "
            "(~/.ray/auth_token), or the port is not the one of the Ray client's server."
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"The cluster at {address} cannot be used from here: {_line(error)} It has to "
            "have the versions of Python, Ray and fewtune that are installed here."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _become_client(address: str) -> None:
    for turn in range(TURNS):
        try:
            with warnings.catch_warnings(action="ignore"):  # it says more than the error
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionAbortedError:  # the process that serves this client did not come up
            if turn + 1 == TURNS:
                raise
            ray.shutdown()
            time.sleep(PAUSE_S)
        else:
            return


def _join(address: str, common: dict[str, Any]) -> None:
    if is_client(address):
        raise UserError(
            f"A sweep is driven from a node of its cluster, and {shown(address)} is the address of "
            "a Ray client, which is none; the command `fewtune sweep FILE --address "
            f"{shown(address)}` runs it on the head."
        )
    with _reaching(address):
        _knock(address)
        ray.init(address=address, **common)


def _knock(place: str) -> None:
    """Ray itself would wait for minutes where nobody listens."""
    host, _, port = place.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=REACH_S).close()


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # Ray's ConnectionError is one
        raise UserError(
            f"There is no Ray cluster at {address}: {_line(error)} Start one with "
            "`ray start --head`, or leave --address out to run on this machine."
        ) from error


def check_room(cpu: float, gpu: float) -> None:
    """Hold what one trial asks for against what the largest node has.

    Raises:
        UserError: No node can ever run a trial; it would wait for ever.
    """
    nodes = _resources()
    if any(n.get("CPU", 0) >= cpu and n.get("GPU", 0) >= gpu for n in nodes):
        return
    nobody: dict[str, float] = {}
    most = max(nodes, key=lambda n: (n.get("GPU", 0), n.get("CPU", 0)), default=nobody)
    remedy = " Ask for less, or add `--set resources.gpu=0`." if gpu else " Ask for less."
    raise UserError(
        f"A trial asks for {cpu:g} CPU and {gpu:g} GPU (resources in the sweep file), and no node "
        f"has that; the largest has {most.get('CPU', 0):g} CPU and {most.get('GPU', 0):g} GPU."
        f"{remedy}"
    )


def slots(cpu: float, gpu: float, concurrent: int | None, *, scales: bool = False) -> int:
    """Return how many trials run at a time.

    Args:
        cpu: Cores of one trial.
        gpu: GPUs of one trial.
        concurrent: Trials at a time at most.
        scales: Whether nodes come for trials that wait; ``concurrent`` alone is the limit then.
    """
    if scales and concurrent:
        return concurrent
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fit = [have.get("CPU", 0) / cpu] + ([have.get("GPU", 0) / gpu] if gpu else [])
    return max(1, min(int(min(fit) + 1e-9), concurrent or 10**9))


@dataclass(frozen=True)
class SharedData:
    """The data of a sweep as what travels to a trial: where the node's memory map comes from.

    Attributes:
        arguments: Of ``trainables._data.load``, with the driver's folders spelt out.
        fingerprint: What the loaded content must have.
        copy: The arrays in Ray's object store, on clusters where a node may lack the files.
    """

    arguments: tuple[tuple[str, Any], ...]
    fingerprint: str
    copy: Any = None

    @classmethod
    def of(cls, config: DataConfig, fingerprint: str) -> Self:
        """Return how others reach the data that was loaded here."""
        arguments: dict[str, Any] = {
            "source": config.source,
            "root": root_of(config.path),
            "size": config.size,
            "channels": config.channels,
            "split": config.split,
            "seed": config.seed,
            "cache": cache_folder(None).absolute(),
        }
        return cls(tuple(arguments.items()), fingerprint)

    def for_all_nodes(self, dataset: Dataset, *, scales: bool = False) -> Self:
        """Put the arrays into the object store where other nodes may lack the files, or will."""
        if len(_resources()) == 1 and not scales:
            return self
        return type(self)(self.arguments, self.fingerprint, ray.put(dataset))

    def open(self) -> Dataset:
        """Map the node's cached copy, or fetch the arrays where the node has no files.

        Raises:
            DataError: Neither is to be had, or the content is not the sweep's.
        """
        try:
            dataset = _data.load(**dict(self.arguments))
        except (_data.DataError, OSError):
            if self.copy is None:
                raise
            dataset = ray.get(self.copy)
        if dataset.fingerprint != self.fingerprint:
            raise _data.DataError(
                f"The data of {dataset.name} changed while the sweep ran: its fingerprint was "
                f"{self.fingerprint[:12]} and is {dataset.fingerprint[:12]}. Restore it and resume."
            )
        return dataset


class MemoryWatch:
    """Samples the memory of this process and all below it, shared pages counted once.

    Linux only; elsewhere ``peak_mib`` stays None.

    Args:
        every_s: Seconds between samples.
    """

    def __init__(self, every_s: float = 2.0) -> None:
        self.peak_mib: float | None = None
        self._every_s, self._stop = every_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            now = tree_mib(os.getpid())
            if now is not None:
                self.peak_mib = max(now, self.peak_mib or 0.0)
            # on a machine with many processes a sample costs more; never above 5 % of a core
            self._stop.wait(max(self._every_s, 20 * (time.monotonic() - began)))


def tree_mib(root: int) -> float | None:
    """Return the proportional memory (PSS) of a process and its descendants in MiB.

    Returns:
        None where the system does not tell.
    """
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        total += _pss_kib(pid)
    return total / 1024 if total else None


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _resources() -> list[dict[str, float]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _line(error: BaseException, which: int = 0) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[which].strip().rstrip(".") + "."
