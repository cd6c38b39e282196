"""A Ray cluster on this machine whose workers do not see a folder of the driver.

Each worker is a Ray node in a mount namespace of its own, with an empty disk in the folder's place.
Processes are ended by their ids, and no others.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hosts import _ALIVE, MEMORY, READY_S
from tests.processes import ROOT, environment, kill, trials_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HIDDEN = 'mount -t tmpfs none "$0" && exec "$@"'


def missing() -> str:
    """Say why there can be no such cluster here; an empty string where there can."""
    if shutil.which("unshare") is None:
        return "there is no unshare here (apt-get install util-linux)"
    with tempfile.TemporaryDirectory() as place:
        tried = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _HIDDEN, place, "true"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    return f"no mount namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Apart:
    """The cluster.

    Args:
        folder: For its own files; its path must be short, for the sake of Ray's sockets.
        hidden: The folder that workers do not see.
        more: What all processes find in their environment, such as keys.
    """

    def __init__(self, folder: Path, hidden: Path, more: Mapping[str, str]) -> None:
        self.folder, self.hidden, self.steps = folder, hidden, folder / "steps"
        for made in (hidden, self.steps):
            made.mkdir(parents=True, exist_ok=True)
        self.environment = {**environment(folder, self.steps), **more}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.port, self._started = 0, 0

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    def start(self, workers: int) -> None:
        """Start a head that runs no trial, and workers of one core each; wait for all of them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._node("--head", f"--port={self.port}", "--include-dashboard=false", "--num-cpus=0")
        self._wait(1)
        for number in range(workers):  # one after the other: they share the machine's ports
            self._node(f"--address={self.address}", "--num-cpus=1", hide=True)
            self._wait(2 + number)

    def stop(self) -> None:
        """End all of it at once."""
        while self.nodes:
            kill(self.nodes.pop())

    def trials(self) -> list[int]:
        """The process ids of the trials that run."""
        return [pid for node in self.nodes for pid in trials_below(node.pid)]

    def _node(self, *words: str, hide: bool = False) -> None:
        self._started += 1
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                 "--disable-usage-stats", "--node-ip-address=127.0.0.1",
                 f"--object-store-memory={MEMORY}", *words]  # fmt: skip
        if "--head" in words:
            start.append(f"--temp-dir={self.folder}/{self._started}")
        if hide:
            start = ["unshare", "--mount", "sh", "-c", _HIDDEN, str(self.hidden), *start]
        with (self.folder / f"node{self._started}.log").open("ab") as log:
            self.nodes.append(
                subprocess.Popen(
                    start, cwd=ROOT, env=self.environment, stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )
            )  # fmt: skip

    def _wait(self, count: int) -> None:
        until = time.monotonic() + READY_S
        asked = [sys.executable, "-c", _ALIVE, self.address]
        while time.monotonic() < until:
            told = subprocess.run(
                asked, env=self.environment, capture_output=True, check=False, timeout=60
            )
            if told.returncode == 100 + count:
                return
            time.sleep(0.5)
        raise RuntimeError(f"{count} nodes are not alive after {READY_S} s")


@contextmanager
def apart(hidden: Path, more: Mapping[str, str]) -> Iterator[Apart]:
    """Have such a cluster, not yet started, and take it away again."""
    with tempfile.TemporaryDirectory(prefix="fa", ignore_cleanup_errors=True) as made:
        ours = Apart(Path(made), hidden, more)
        try:
            yield ours
        finally:
            ours.stop()
