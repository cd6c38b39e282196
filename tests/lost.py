"""A machine that is lost under a sweep whose run is kept in a bucket that fails and dawdles.

No hosts are needed: driver and trials are on this machine, and what is lost is all they wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from search.fetch import fetch
from search.rundir import RunDir
from tests import drive, s3
from tests.faults import INTERVAL, TRIALS, Before, Sweep, check
from tests.processes import ROOT, kill

if TYPE_CHECKING:
    import random
    from pathlib import Path

FAILING, LATE = 0.1, 0.2  # shares of the requests
EVERY_S, PAUSE_S = 0.2, 0.4  # between two looks; of a step, for trials as long as some copies
COPY = "PUT /bucket/runs/run/manifest.json"
LOST = -(-drive.ITERATIONS // INTERVAL)  # a trial that ended since the last copy runs again


@dataclass
class InBucket(Sweep):
    """A sweep on this machine alone, whose run is kept in a bucket."""

    cluster: Any = None
    folder: Any = None
    seed: int = 0
    server: s3.Proxy = field(kw_only=True)

    @property
    def address(self) -> str:
        """Of the run."""
        return self.server.address("bucket/runs/run")

    @property
    @override
    def path(self) -> Path:
        found: Path = self.folder / "runs" / "run"
        return found

    @override
    def start(self, trials: int = TRIALS, pause_s: float = PAUSE_S) -> None:
        storage = self.server.address("bucket/runs")
        more = ("--seed", str(self.seed), "--pause-s", str(pause_s))
        self._drive("sweep", storage, "run", str(trials), *more)

    @override
    def resume(self) -> None:
        self._drive("resume", self.address)
        self.finish()

    @override
    def _drive(self, *words: str) -> None:
        own = {**s3.KEYS, "PYTHONPATH": str(ROOT), "FEWTUNE_STEPS": str(self.cluster.steps)}
        with (self.folder / "screen").open("ab") as out:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "tests.drive", *words, "--mirror-s", str(EVERY_S)],
                cwd=self.folder, env={**os.environ, **own}, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip


@dataclass(frozen=True)
class Alone:
    """This machine, in the place of a cluster's hosts."""

    steps: Path


def bucket_failing(folder: Path, chance: random.Random) -> None:
    """500s and slow replies all the time; the machine is lost, and another goes on."""
    steps = folder / "steps"
    steps.mkdir(parents=True)
    os.environ.update(s3.KEYS)
    with s3.served(chance.randrange(10**6)) as server:
        server.failing, server.late = FAILING, LATE
        ours = InBucket(Alone(steps), folder, chance.randrange(10**6), server=server)
        ours.start()
        try:
            ours.moment(chance, least=1)
            copies = server.names.count(COPY)
            ours.until(lambda _: server.names.count(COPY) > copies + 1)  # the last began after it
            assert ours.driver is not None
            kill(ours.driver)
            shutil.rmtree(ours.path)
            fetched = fetch(ours.address, ours.path)
            before = Before(ours)
            assert before.ended, "no trial that had ended was in the bucket"
            shutil.rmtree(fetched)
            ours.resume()
            whole, back = content(ours.path), content(fetch(ours.address, folder / "back"))
            assert back == whole, "the bucket has not all of the run"
            check(ours, before, disturbances=LOST)
            assert server.seen["failed"] > 0
            assert server.seen["late"] > 0
        finally:
            ours.close()


def content(path: Path) -> dict[str, bytes]:
    """The files of a run that are kept, without its lock."""
    run = RunDir.open(path).path
    files = [file for file in run.rglob("*") if file.is_file() and file.name != "driver.lock"]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files}


FAULTS = {"bucket_failing": (bucket_failing, 5)}
"""Name -> a fault that needs no hosts, and how often ``make faults`` injects it."""
