"""Sweeps on clusters whose nodes share no directory, of real processes, by a bucket."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from search.bucket import Bucket
from search.fetch import fetch
from search.rundir import read_json
from tests import apart, fakes, s3
from tests.faults import Before, check, saved
from tests.lost import COPY, Alone, InBucket
from tests.processes import ROOT, end, kill, trials_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from search.rundir import RunDir

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(500)]

EVERY_S, PAUSE_S = 0.5, 0.4


@dataclass
class Afar(InBucket):
    """A sweep whose trials save in the bucket.

    Attributes:
        environment: Of its driver.
        words: Of every command.
        new: Of the first one.
    """

    environment: dict[str, str] = field(kw_only=True)
    words: tuple[str, ...] = field(kw_only=True)
    new: tuple[str, ...] = ()

    @override
    def _drive(self, *words: str) -> None:
        words = (*words, *self.words, *(self.new if words[0] == "sweep" else ()))
        with (self.folder / "screen").open("ab") as out:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "tests.drive", *words, "--mirror-s", str(EVERY_S)],
                cwd=self.folder, env=self.environment, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def notes(self) -> str:
        """What happened to all trials on the way."""
        return "\n".join(note for one in self.run.results() for note in one["notes"])

    def left(self) -> dict[str, int]:
        """What lies in the bucket of checkpoints."""
        return Bucket.of(self.address).tree("ray")


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(monkeypatch)
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name, value)


def in_bucket(run: RunDir) -> list[int]:
    """The trials that run and have a checkpoint, which must lie in the bucket."""
    found = saved(run)
    for number in found:
        told = read_json(run.trial(number) / "checkpoint.json")
        assert told["in_bucket"] == told["checkpoints"]
        assert not run.checkpoints(number)
    return found


def survives(ours: Afar, trials: Callable[[], list[int]], move: Callable[[], None]) -> None:
    """See a trial's process killed, then all machines lost, and the sweep end as it must.

    Args:
        ours: The sweep.
        trials: Tells the process ids of the trials that run.
        move: Ends the cluster, and starts another.
    """
    chance = random.Random(0)
    ours.server.failing, ours.server.late = 0.03, 0.05
    ours.start(pause_s=PAUSE_S)
    try:
        ours.until(lambda run: len(in_bucket(run)) == 2)  # whichever is killed goes on
        end(chance.choice(trials()))
        ours.until(lambda _: "went on from meta-iteration" in ours.notes())
        ours.moment(chance, least=2, most=2)
        copies = ours.server.names.count(COPY)
        ours.until(lambda _: ours.server.names.count(COPY) > copies + 1)
        assert ours.driver is not None
        kill(ours.driver)
        move()
        shutil.rmtree(ours.path)
        fetched = fetch(ours.address, ours.path)
        before = Before(ours)
        shutil.rmtree(fetched)
        assert ours.left()
        ours.resume()
        check(ours, before, disturbances=3)
        assert ours.left() == {}
    finally:
        ours.close()


def test_a_sweep_across_nodes_that_share_a_bucket_alone(tmp_path: Path) -> None:
    if why := apart.missing():
        pytest.skip(why)
    with s3.served(1) as server, apart.apart(tmp_path / "runs", s3.KEYS) as cluster:
        cluster.start(2)
        words = ("--address", cluster.address)
        ours = Afar(
            cluster, tmp_path, 7, server=server, environment=cluster.environment, words=words
        )

        def move() -> None:
            cluster.stop()
            cluster.start(1)
            ours.words = ("--address", cluster.address)

        survives(ours, cluster.trials, move)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Afar]:
    """On this machine alone, told that nodes are to come: its trials save in the bucket too."""
    steps = tmp_path / "steps"
    steps.mkdir()
    more = {**s3.KEYS, "PYTHONPATH": str(ROOT), "FEWTUNE_STEPS": str(steps)}
    with s3.served(2) as server:
        yield Afar(
            Alone(steps), tmp_path, 8, server=server, environment={**os.environ, **more},
            words=("--turns", "4"), new=("--scales",),
        )  # fmt: skip


def test_a_lost_machine_whose_trials_saved_in_the_bucket(alone: Afar) -> None:
    def trials() -> list[int]:
        assert alone.driver is not None
        return trials_below(alone.driver.pid)

    survives(alone, trials, lambda: None)


def test_a_bucket_that_stays_away_ends_the_sweep_with_a_sentence_and_blames_no_trial(
    alone: Afar,
) -> None:
    alone.start(pause_s=0.2)
    try:
        alone.until(lambda run: bool(in_bucket(run)))
        alone.server.failing = 1.0
        assert alone.ended() == 1
        (sentence,) = re.findall(r"^Error: (.*)$", alone.said, re.MULTILINE)
        assert f"The run at {alone.path} cannot keep its checkpoints in s3://bucket" in sentence
        assert re.search(r": it answers \w+ \(asked by .*\)\. What had finished is kept", sentence)
        assert "Traceback" not in alone.said, alone.said[-3000:]
        before = Before(alone)
        alone.server.failing = 0.0
        alone._drive("resume", str(alone.path))
        alone.finish()
        check(alone, before, disturbances=2)
        assert alone.left() == {}
        assert "went on from meta-iteration" in alone.notes()
    finally:
        alone.close()
