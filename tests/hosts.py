"""Three hosts on this machine, with a Ray cluster across them: network namespaces on a bridge.

Each host has its own loopback, its own address and a cable to the bridge that can be pulled; files
are shared, as on a mount that all nodes have. The bridge lies in a namespace of its own, so that
nothing is changed of this machine's network. Processes are ended by their ids, and no others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes import ROOT, descendants, end, environment, kill, trials_below, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NET = "10.77.0"
PORT = 6379
HOSTS = 3
READY_S = 240  # seconds on an idle machine, minutes on a busy one
MEMORY = 100_000_000  # of each host's object store: only small handles travel


def missing() -> str:
    """Say why there can be no such hosts here; an empty string where there can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if lacking := [word for word in ("ip", "nsenter") if shutil.which(word) is None]:
        return f"there is no {' and no '.join(lacking)} here (apt-get install iproute2 util-linux)"
    name = f"ft{os.getpid()}probe"
    tried = [("netns", "add", name), ("-n", name, "link", "add", "name", "probe", "type", "bridge")]
    failed = [done for words in tried if (done := _ip(*words, check=False)).returncode]
    _ip("netns", "del", name, check=False)
    return f"no network namespaces here: {failed[0].stderr.strip()}" if failed else ""


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done


class Host:
    """One machine: a network namespace, and the part of Ray that runs there, if any.

    Args:
        cluster: It belongs to.
        number: From 1; the head is 1.
    """

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.number = cluster, number
        self.name, self.address = f"{cluster.name}h{number}", f"{NET}.{number}"
        self._cable = f"v{number}"  # its end at the bridge
        self.ray: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        """Make the namespace and its cable."""
        switch = self.cluster.switch
        _ip("netns", "add", self.name)
        _ip("-n", switch, "link", "add", self._cable, "type", "veth", "peer", "name", "eth0",
            "netns", self.name)  # fmt: skip
        _ip("-n", switch, "link", "set", self._cable, "master", "bridge", "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"),
                      ("link", "set", "eth0", "up"), ("link", "set", "lo", "up"),
                      ("route", "add", "default", "dev", "eth0")):  # fmt: skip
            _ip("-n", self.name, *words)

    def popen(self, *words: str, log: Path | None = None, **more: str) -> subprocess.Popen[bytes]:
        """Start a command on this host, in a session of its own."""
        command = ["nsenter", f"--net=/run/netns/{self.name}", *words]
        with (log or Path(os.devnull)).open("ab") as out:
            return subprocess.Popen(
                command, cwd=ROOT, env={**self.cluster.environment, **more}, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def join(self) -> None:
        """Start Ray here: the head of the cluster, or one of its workers."""
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                 "--disable-usage-stats", "--num-cpus=1", f"--object-store-memory={MEMORY}",
                 f"--node-ip-address={self.address}",
                 f"--temp-dir={self.cluster.folder}/{self.number}"]  # fmt: skip
        if self.number == 1:
            start += ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            start += [f"--address={self.cluster.address}"]
        self.ray = self.popen(*start, log=self.cluster.folder / f"{self.name}.log")

    def leave(self) -> None:
        """End Ray here at once, as when the machine loses its power."""
        if self.ray is not None:
            kill(self.ray)
            self.ray = None

    def up(self) -> bool:
        """Tell whether this host's part of the cluster is running."""
        return self.ray is not None and self.ray.poll() is None and bool(self._raylets())

    def cut(self) -> None:
        """Pull the cable."""
        _ip("-n", self.cluster.switch, "link", "set", self._cable, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _ip("-n", self.cluster.switch, "link", "set", self._cable, "up")

    def raylet(self) -> int:
        """The process id of the raylet here."""
        return self._raylets()[0]

    def actors(self) -> list[int]:
        """The process ids of the trials that run here."""
        return [] if self.ray is None else trials_below(self.ray.pid)

    def _raylets(self) -> list[int]:
        return [pid for pid in self._processes() if "/raylet/raylet " in words_of(pid)]

    def _processes(self) -> list[int]:
        return [] if self.ray is None else descendants(self.ray.pid)


class Cluster:
    """The hosts and what they share: a token, a folder for logs, and the trace of all steps.

    Args:
        folder: For files of the cluster; its path must be short, for the sake of Ray's sockets.
        hosts: How many.
    """

    def __init__(self, folder: Path, hosts: int = HOSTS) -> None:
        self.folder, self.name = folder, f"ft{os.getpid()}"
        self.switch = f"{self.name}sw"
        self.address = f"{NET}.1:{PORT}"
        self.steps = folder / "steps"
        self.steps.mkdir()
        self.environment = environment(folder, self.steps)
        self.hosts = [Host(self, number) for number in range(1, hosts + 1)]

    @property
    def head(self) -> Host:
        """The host where the head and the drivers run."""
        return self.hosts[0]

    @property
    def workers(self) -> list[Host]:
        """The others."""
        return self.hosts[1:]

    def build(self) -> None:
        """Make the hosts, without Ray."""
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "name", "bridge", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "bridge", "up")
        for host in self.hosts:
            host.build()

    def start(self, hosts: Sequence[Host] | None = None) -> None:
        """Start a new cluster, on some of the hosts where so told, and wait until it is whole."""
        wanted = list(self.hosts if hosts is None else hosts)
        wanted[0].join()
        self.wait(1)
        for host in wanted[1:]:
            host.join()
        self.wait(len(wanted))

    def rejoin(self) -> None:
        """Start Ray again on the hosts that lost it, and wait until the cluster is whole."""
        for host in self.workers:
            host.mend()
        if self.head.up():
            lost = [host for host in self.workers if not host.up()]
            for host in lost:
                host.leave()
            with suppress(RuntimeError):
                self.wait(len(self.hosts) - len(lost), within_s=40)  # the head has noticed
                for host in lost:
                    host.join()
                self.wait(len(self.hosts), within_s=40)
                return
        self.stop()
        self.start()

    def stop(self) -> None:
        """End Ray everywhere."""
        for host in reversed(self.hosts):
            host.leave()

    def wait(self, count: int, within_s: float = READY_S) -> None:
        """Wait until so many nodes are alive.

        Raises:
            RuntimeError: They are not in time.
        """
        until = time.monotonic() + within_s
        log = self.folder / "alive.log"
        while time.monotonic() < until:
            log.write_bytes(b"")
            asked = self.head.popen(sys.executable, "-c", _ALIVE, self.address, log=log)
            if asked.wait(timeout=60) == 100 + count:
                return
            time.sleep(0.5)
        raise RuntimeError(f"{count} nodes are not alive after {within_s:.0f} s: {log.read_text()}")

    def take_down(self) -> None:
        """End Ray, and take the hosts away."""
        self.stop()
        for name in (*(host.name for host in self.hosts), self.switch):
            asked = _ip("netns", "pids", name, check=False).stdout.split()
            for pid in map(int, asked):  # what lives in a namespace of ours was started by us
                end(pid)
            _ip("netns", "del", name, check=False)


# the exit status is 100 and the number of nodes alive; the head's control store alone is asked
_ALIVE = """
import sys
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
known = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5).values()
sys.exit(100 + sum(node.state == GcsNodeInfo.GcsNodeState.ALIVE for node in known))
"""


@contextmanager
def cluster(nodes: int = HOSTS) -> Iterator[Cluster]:
    """Have three hosts with Ray on the first of them, and take all of it away again."""
    with tempfile.TemporaryDirectory(prefix="ft", ignore_cleanup_errors=True) as made:
        ours = Cluster(Path(made))
        try:
            ours.build()
            ours.start(ours.hosts[:nodes])
            yield ours
        finally:
            ours.take_down()
