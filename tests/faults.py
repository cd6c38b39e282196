"""Faults of a cluster, each injected into a sweep of real processes, and what must hold after it.

Each function of ``FAULTS`` takes the hosts, a folder of its own and a seeded generator that says
when and where; it raises AssertionError where something did not hold. The method is the fake one:
its steps leave a trace, so that work which was lost and made again is counted step by step.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search._optuna import Study
from search.results import load_results
from search.rundir import FINISHED, RunDir, read_json
from tests import drive, fakes
from tests.processes import end, kill, until
from trainables._core.digests import CheckpointError, check_digest
from trainables._trial import Chunks

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hosts import Cluster, Host

TRIALS = 9
REPORTS = Chunks().reports
INTERVAL = -(-drive.ITERATIONS // REPORTS)  # steps between two checkpoints, at most
WITHIN_S = 300
CUT_S = 30.0


@dataclass
class Sweep:
    """A sweep on the hosts, and the driver that is at it."""

    cluster: Cluster
    folder: Path
    seed: int
    driver: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def run(self) -> RunDir:
        """The run."""
        return RunDir.open(self.path)

    @property
    def said(self) -> str:
        """All that the drivers wrote on their screens."""
        return (self.folder / "screen").read_text("utf-8")

    def start(self, trials: int = TRIALS, pause_s: float = drive.PAUSE_S) -> None:
        """Start it from the head; a step takes so long."""
        words = ["sweep", str(self.folder), "run", str(trials), "--seed", str(self.seed)]
        self._drive(*words, "--pause-s", str(pause_s))

    def resume(self) -> None:
        """Go on with it, and see it end."""
        self._drive("resume", str(self.path))
        self.finish()

    def _drive(self, *words: str) -> None:
        address = self.cluster.address
        self.driver = self.cluster.head.popen(
            sys.executable, "-m", "tests.drive", *words, "--address", address,
            log=self.folder / "screen",
        )  # fmt: skip

    def finish(self) -> None:
        """See the driver end well."""
        assert self.ended() == 0, f"the driver failed: {self.said[-2000:]}"

    def ended(self) -> int:
        """Wait for the driver to end, and return its exit code."""
        assert self.driver is not None
        try:
            return self.driver.wait(timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            kill(self.driver)
            raise AssertionError(
                f"the sweep did not end within {WITHIN_S} s: {self.said[-2000:]}"
            ) from None

    def until(self, ready: Callable[[RunDir], bool]) -> None:
        """Wait until the run is so far."""
        assert self.driver is not None
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            assert self.driver.poll() is None, f"the sweep ended too early: {self.said[-2000:]}"
            if (self.path / "run.json").exists() and ready(self.run):
                return
            time.sleep(0.05)
        raise AssertionError("the sweep did not get so far")

    def moment(self, chance: random.Random, least: int = 0, most: int = TRIALS - 4) -> None:
        """Wait for a random moment: so many trials have ended, and a little later."""
        count, later = chance.randint(least, most), chance.uniform(0.0, 2.0)
        self.until(lambda run: len(ended(run)) >= count and bool(saved(run)))
        time.sleep(later)

    def steps(self, config: dict[str, Any]) -> int:
        """How many steps were made for a configuration, those made again included."""
        file = fakes.steps_file(self.cluster.steps, self.seed, config)
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    def close(self) -> None:
        """End what is left of the driver."""
        if self.driver is not None:
            kill(self.driver)


@contextmanager
def sweep(
    cluster: Cluster, folder: Path, chance: random.Random, pause_s: float = drive.PAUSE_S
) -> Iterator[Sweep]:
    """A sweep that is started, with another seed than all others, and cleared away."""
    folder.mkdir(parents=True)
    ours = Sweep(cluster, folder, chance.randrange(10**6))
    ours.start(pause_s=pause_s)
    try:
        yield ours
    finally:
        ours.close()


def ended(run: RunDir) -> dict[int, dict[str, Any]]:
    """The trials that have ended."""
    return {r["id"]: r for r in run.results() if r["state"] in FINISHED}


def saved(run: RunDir) -> list[int]:
    """The trials that run and have a checkpoint."""
    running = [r["id"] for r in run.results() if r["state"] == "RUNNING"]
    return [i for i in running if (run.trial(i) / "checkpoint.json").exists()]


class Before:
    """What there was at the moment of the fault."""

    def __init__(self, ours: Sweep) -> None:
        self.ended = ended(ours.run)
        self.steps = {i: ours.steps(r["config"]) for i, r in self.ended.items()}
        self.journal = ours.run.journal.read_bytes()
        self.journal = self.journal[: self.journal.rfind(b"\n") + 1]


def check(ours: Sweep, before: Before, disturbances: int = 1) -> None:
    """Hold a finished run against what must hold after any fault.

    Args:
        ours: The sweep, ended.
        before: What there was when the fault struck.
        disturbances: How often a trial may have lost its process.
    """
    run, after = ours.run, ours.run.results()
    assert [r["id"] for r in after] == list(range(TRIALS)), "the number of trials is not exact"
    states = Counter(r["state"] for r in after)
    assert states == {"COMPLETE": TRIALS}, f"states are {states}: {[r['failure'] for r in after]}"
    for number, known in before.ended.items():
        now = after[number]
        assert now["ended"] == known["ended"], f"trial {number} was repeated"
        assert known["metrics"].items() <= now["metrics"].items(), f"trial {number} has changed"
        assert ours.steps(now["config"]) == before.steps[number], f"trial {number} went on"
    weight = fakes.weight_after(ours.seed, drive.ITERATIONS)
    for one in after:
        assert abs(one["metrics"]["weight"] - weight) < 1e-6, f"trial {one['id']} is another"
        lost = ours.steps(one["config"]) - drive.ITERATIONS
        assert 0 <= lost <= disturbances * INTERVAL, f"trial {one['id']} lost {lost} steps"
    check_study(ours, before)
    assert load_results(ours.path).front()
    assert not list(run.path.rglob(".*.json.*")), "a half-written file was left"


def check_study(ours: Sweep, before: Before) -> None:
    """Hold the study against the trials: each told once, none left running."""
    run = ours.run
    config = drive.slow_config(TRIALS)
    space = {**fakes.SPACE, **config.space}
    study = Study(run.journal, run.info()["study"], space, config.objectives)
    assert study.states() == dict.fromkeys(range(TRIALS), "COMPLETE")
    journal = run.journal.read_bytes()
    assert journal.startswith(before.journal), "the study has been rewritten"
    final = {1, 2, 3}  # COMPLETE, PRUNED, FAIL in Optuna's journal
    logs = [json.loads(line) for line in journal.splitlines()]
    told = Counter(log["trial_id"] for log in logs if log.get("state") in final)
    assert set(told.values()) == {1}, "a trial was told twice"


def driver_killed(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """SIGKILL of the driver, then resume."""
    with sweep(cluster, folder, chance) as ours:
        ours.moment(chance)
        assert ours.driver is not None
        kill(ours.driver)
        before = Before(ours)
        ours.resume()
        check(ours, before)


def raylet_killed(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """SIGKILL of a worker's raylet: its trial goes on elsewhere."""
    with sweep(cluster, folder, chance) as ours:
        ours.moment(chance)
        before = Before(ours)
        end(_busy(cluster, chance).raylet())
        ours.finish()
        check(ours, before)
    cluster.rejoin()


def actor_killed(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """SIGKILL of a trial's process."""
    with sweep(cluster, folder, chance) as ours:
        ours.moment(chance)
        before = Before(ours)
        end(chance.choice(_busy(cluster, chance).actors()))
        ours.finish()
        check(ours, before)


def network_cut(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """One host without its cable for half a minute."""
    with sweep(cluster, folder, chance) as ours:
        ours.moment(chance, most=TRIALS - 5)
        before, host = Before(ours), _busy(cluster, chance)
        host.cut()
        try:
            time.sleep(CUT_S)
        finally:
            host.mend()
        ours.finish()
        check(ours, before)
    cluster.rejoin()


def head_killed(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """The head is lost with the driver on it; a new cluster of fewer hosts goes on."""
    with sweep(cluster, folder, chance) as ours:
        ours.moment(chance)
        assert ours.driver is not None
        cluster.head.leave()
        kill(ours.driver)
        before = Before(ours)
        cluster.stop()
        cluster.start(cluster.hosts[:2])
        ours.resume()
        check(ours, before)
    cluster.rejoin()


def storage_full(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """The disk of the runs becomes full, then larger."""
    folder.mkdir(parents=True)
    disk = _mounted("tmpfs", folder, "-t", "tmpfs", "-o", "size=1500m")
    with disk, sweep(cluster, folder / "a", chance) as ours:
        ours.moment(chance)
        before = Before(ours)
        _fill(folder)
        _stopped_with(ours, "No space left on device")
        _mount("-o", "remount,size=1500m", str(folder))
        ours.resume()
        check(ours, before)


def storage_read_only(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """The runs can be read alone, then written again."""
    with sweep(cluster, folder, chance) as ours:
        ours.moment(chance)
        with _mounted(str(ours.path), ours.path, "--bind"):
            _mount("-o", "remount,bind,ro", str(ours.path))
            before = Before(ours)
            _stopped_with(ours, "Read-only file system")
        ours.resume()
        check(ours, before)


def checkpoints_damaged(cluster: Cluster, folder: Path, chance: random.Random) -> None:
    """A truncated, a swapped and a bit-flipped checkpoint, and half a line in the journal."""
    with sweep(cluster, folder, chance, pause_s=0.3) as ours:  # slow enough to be seen at it
        ours.until(lambda run: len(ended(run)) >= 1 and len(_with_two(run)) == 3)
        assert ours.driver is not None
        kill(ours.driver)
        until(lambda: not any(host.actors() for host in cluster.hosts))  # they may be saving still
        before, run = Before(ours), ours.run
        damaged = dict(zip(_with_two(run), chance.sample(_DAMAGES, 3), strict=False))
        assert len(damaged) >= 2, "too few trials ran"
        lists = {i: _whole(run, i) for i in damaged}
        others = {i: lists[j][1] for i, j in zip(damaged, _turned(damaged), strict=True)}
        for number, damage in damaged.items():
            damage(lists[number][0], others[number], chance)
        with run.journal.open("ab") as file:
            file.write(b'{"op_code": 9, "worker_id"'[: chance.randint(1, 26)])
        ours.resume()
        check(ours, before, disturbances=2)  # the interval before the newest is lost too
        assert re.search(r"The last line of .*study\.journal was half-written", ours.said)
        for number in damaged:
            notes = " ".join(ours.run.results()[number]["notes"])
            assert str(lists[number][0]) in notes, (
                f"the checkpoint of {number} was not named: {notes}"
            )
            assert "went on from meta-iteration" in notes


def _files(checkpoint: Path) -> list[Path]:
    """All of it: a state and its digests, or, where a trial was at its end, its student."""
    return sorted((f for f in checkpoint.rglob("*") if f.is_file()), reverse=True)


def _truncated(newest: Path, _: Path, chance: random.Random) -> None:
    file = chance.choice(_files(newest))
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def _flipped(newest: Path, _: Path, chance: random.Random) -> None:
    file = chance.choice(_files(newest))
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(bytes(data))


def _swapped(newest: Path, other: Path, _: random.Random) -> None:
    shutil.rmtree(newest)
    shutil.copytree(other, newest)
    os.utime(newest)  # written now, and not when the other was


_DAMAGES = [_truncated, _flipped, _swapped]


def _turned(numbers: dict[int, Any]) -> list[int]:
    known = list(numbers)
    return known[1:] + known[:1]


def _with_two(run: RunDir) -> list[int]:
    """The trials that run and have two checkpoints."""
    lists = {i: run.trial(i) / "checkpoint.json" for i in saved(run)}
    return [i for i, file in lists.items() if len(read_json(file)["checkpoints"]) == 2]


def _whole(run: RunDir, number: int) -> list[Path]:
    """The checkpoints of a trial that a kill has not torn, newest first, noted or not."""
    found = []
    for folder in reversed(run.checkpoints(number)):
        with suppress(CheckpointError):
            check_digest(folder)
            found.append(folder)
    return found


def _busy(cluster: Cluster, chance: random.Random) -> Host:
    """A worker on which a trial runs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if busy := [host for host in cluster.workers if host.actors()]:
            return chance.choice(busy)
        time.sleep(0.1)
    raise AssertionError("no trial runs on a worker")


def _stopped_with(ours: Sweep, what: str) -> None:
    """See the driver end with one clear sentence, and the results readable."""
    assert ours.ended() == 1
    (sentence,) = re.findall(r"^Error: (.*)$", ours.said, re.MULTILINE)
    assert f"cannot be written: {what}" in sentence
    assert f"`fewtune resume {ours.path}` goes on" in sentence
    assert "Traceback" not in ours.said, ours.said[-3000:]
    load_results(ours.path).to_json()


def _fill(disk: Path) -> None:
    """Shrink a tmpfs to what is in it, and it is full."""
    for spare in range(0, 64 * 4096, 4096):  # what it says is in it may be out of date
        size = shutil.disk_usage(disk).used + spare
        words = ["mount", "-o", f"remount,size={size}", str(disk)]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return
    raise AssertionError("the disk could not be filled")


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def _mounted(what: str, where: Path, *words: str) -> Iterator[None]:
    _mount(*words, what, str(where))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


FAULTS: dict[str, tuple[Callable[[Cluster, Path, random.Random], None], int]] = {
    "driver_killed": (driver_killed, 20),
    "raylet_killed": (raylet_killed, 10),
    "actor_killed": (actor_killed, 10),
    "network_cut": (network_cut, 3),
    "head_killed": (head_killed, 3),
    "storage_full": (storage_full, 3),
    "storage_read_only": (storage_read_only, 3),
    "checkpoints_damaged": (checkpoints_damaged, 30),
}
"""Name -> the fault, and how often ``make faults`` injects it."""
