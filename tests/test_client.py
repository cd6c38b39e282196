"""Commands given a Ray client's address: from a host without Ray, on a cluster of two others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import hosts
from tests.processes import ROOT, descendants, until, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

ADDRESS = f"ray://{hosts.NET}.1:10001"
SWEEP = """\
method: maml
data: {source: glyphs, queries: 5}
budget: {trials: 2, iterations: %d}
evaluation: {validation_tasks: 10, test_tasks: 10, settings: 1}
early_stopping: {enabled: false}
resources: {cpu: 1}
space:
  student.width: 4
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[hosts.Cluster]:
    """Two hosts with Ray, and one without; each knows its own loopback alone."""
    if why := hosts.missing():
        pytest.skip(why)
    with hosts.cluster(nodes=2) as ours:
        knock = "import socket, sys; socket.create_connection((sys.argv[1], 10001), 5)"
        words = (sys.executable, "-c", knock, ours.head.address)
        until(lambda: ours.head.popen(*words).wait() == 0, within_s=120)
        yield ours


class Far:
    """``fewtune`` on the host that is no node, with a terminal's signals.

    Args:
        cluster: Whose head runs the command.
        log: What it writes.
        words: Of the command.
    """

    def __init__(self, cluster: hosts.Cluster, log: Path, *words: str) -> None:
        self._log, self._cluster = log, cluster
        self.process = cluster.hosts[2].popen(
            sys.executable, "-c", _WITH_INTERRUPTS, *words, "--address", ADDRESS, log=log
        )

    def said(self) -> str:
        """All of it so far."""
        return self._log.read_text("utf-8")

    def code(self, within_s: float = 180) -> int:
        """Its exit code."""
        return self.process.wait(timeout=within_s)

    def driver(self) -> int | None:
        """The process that drives on the head, if there is one."""
        ray = self._cluster.head.ray
        assert ray is not None
        found = [pid for pid in descendants(ray.pid) if "search.cli" in words_of(pid)]
        return found[0] if found else None

    def errands(self) -> list[int]:
        """The processes on the head that keep what a command writes."""
        ray = self._cluster.head.ray
        assert ray is not None
        return [pid for pid in descendants(ray.pid) if "ray::Errand" in words_of(pid)]


# what a shell starts in the background is deaf to Ctrl-C
_WITH_INTERRUPTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from search.cli import main
main()
"""


def sweep_file(folder: Path, iterations: int) -> str:
    file = folder / "mine.yaml"
    file.write_text(SWEEP % iterations, "utf-8")
    return str(file)


def states(run: Path, cluster: hosts.Cluster) -> list[str]:
    """Of all trials of a run that is driven elsewhere."""
    asked = subprocess.run(
        [sys.executable, "-m", "search.cli", "results", str(run), "--json"], cwd=ROOT,
        env=cluster.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [trial["state"] for trial in json.loads(asked.stdout)["trials"]]


def test_a_sweep_from_a_machine_that_is_no_node(cluster: hosts.Cluster, tmp_path: Path) -> None:
    words = ["sweep", sweep_file(tmp_path, 20), "--name", "far", "--storage", str(tmp_path)]
    far = Far(cluster, tmp_path / "log", *words)
    assert far.code() == 0, far.said()
    assert str(tmp_path / "far") in far.said().splitlines(), "the run, on a line of its own"
    assert "[2/2]" in far.said()
    assert states(tmp_path / "far", cluster) == ["COMPLETE"] * 2
    again = Far(cluster, tmp_path / "again", "extend", str(tmp_path / "far"), "--trials", "1")
    assert again.code() == 0, again.said()
    assert states(tmp_path / "far", cluster) == ["COMPLETE"] * 3
    until(lambda: not again.errands(), within_s=30)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ctrl_c_stops_it_there_and_a_lost_client_does_not(
    how: signal.Signals, cluster: hosts.Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "far"
    words = ["sweep", sweep_file(tmp_path, 250), "--name", "far", "--storage", str(tmp_path)]
    far = Far(cluster, tmp_path / "first", *words)
    until(lambda: "2 trials to run" in far.said(), within_s=120)
    os.kill(far.process.pid, signal.SIGINT)
    assert far.code() == 1
    assert "Stopping: each running trial saves its state first" in far.said()
    assert "fewtune resume" in far.said()
    left = Far(cluster, tmp_path / "second", "resume", str(run))
    until(lambda: "2 trials to run" in left.said(), within_s=120)
    driver = left.driver()
    assert driver is not None
    os.kill(left.process.pid, how)  # the laptop is switched off
    assert left.code() != 0
    assert left.driver() == driver
    until(lambda: left.driver() is None, within_s=300)
    assert states(run, cluster) == ["COMPLETE"] * 2


@pytest.mark.parametrize("word", ["resume", "extend"])
def test_what_the_head_does_not_find_is_said_here(
    word: str, cluster: hosts.Cluster, tmp_path: Path
) -> None:
    more = ["--trials", "1"] if word == "extend" else []
    far = Far(cluster, tmp_path / "log", word, str(tmp_path / "none"), *more)
    assert far.code() == 2
    assert "does not exist" in far.said()
    assert far.said().startswith("On "), "the head looked for it"


def test_nobody_at_the_address(cluster: hosts.Cluster, tmp_path: Path) -> None:
    host = cluster.hosts[2]
    log = tmp_path / "log"
    words = ["resume", "far", "--address", f"ray://{hosts.NET}.2:10001"]  # a node without a server
    asked = host.popen(sys.executable, "-m", "search.cli", *words, log=log)
    assert asked.wait(timeout=120) == 2
    assert "There is no Ray cluster at ray://" in log.read_text("utf-8")


def test_without_the_token_nobody_is_a_client(cluster: hosts.Cluster, tmp_path: Path) -> None:
    token, log = tmp_path / "token", tmp_path / "log"
    token.write_text("f" * 64, "utf-8")
    asked = cluster.hosts[2].popen(
        sys.executable, "-m", "search.cli", "resume", "far", "--address", ADDRESS, log=log,
        RAY_AUTH_TOKEN_PATH=str(token),
    )  # fmt: skip
    assert asked.wait(timeout=120) == 2
    assert "takes no Ray client" in log.read_text("utf-8")
    assert "another token" in log.read_text("utf-8")
