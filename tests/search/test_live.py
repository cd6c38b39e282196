"""TensorBoard on a run in a bucket: what is new there is put behind what was read already."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import fs

from search import bucket as buckets
from search._tensorboard import BoardWriter
from search.bucket import Bucket
from search.errors import UserError
from search.live import Live
from search.mirror import MANIFEST, OBJECTS, Mirror
from search.rundir import RunDir
from tests import s3
from tests.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket that is a directory."""
    root = tmp_path / "bucket"
    (root / OBJECTS).mkdir(parents=True)
    monkeypatch.setattr(buckets, "PATIENCE", 1)
    return Bucket("s3://bucket/runs/mine", str(root), fs.LocalFileSystem())


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.create(tmp_path / "runs" / "mine")
    made.write_info(name="mine", created="noon", sessions=[{"started": "one"}])
    made.sweep_file.write_text("method: fake\n", "utf-8")
    return made


@pytest.fixture
def board(run: RunDir) -> Iterator[BoardWriter]:
    writer = BoardWriter(run.tensorboard, {}, ["accuracy"])
    yield writer
    writer.close()


def write(board: BoardWriter, step: int) -> None:
    board.scalar("hypervolume/by_trials", 0.1 * step, step)


def events(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.rglob("events.*")}


def test_what_is_new_is_put_behind_what_was_read(
    run: RunDir, board: BoardWriter, bucket: Bucket, tmp_path: Path
) -> None:
    write(board, 1)
    mirror = Mirror(run, bucket)
    mirror.copy()
    live = Live(bucket, tmp_path / "live" / "mine")
    live.look()
    assert events(live.folder) == events(run.path) != {}
    assert RunDir.open(live.folder).info() == run.info()
    (file,) = live.folder.rglob("events.*")
    with file.open("rb") as reader:
        before = reader.read()
        write(board, 2)
        mirror.copy()
        live.look()
        assert before + reader.read() == next(iter(events(run.path).values()))
    assert {f.name for f in live.folder.iterdir()} == {"run.json", "tensorboard"}, "no more"


def test_a_state_that_was_replaced_while_it_was_read_is_passed_by(
    run: RunDir, board: BoardWriter, bucket: Bucket, tmp_path: Path
) -> None:
    write(board, 1)
    mirror = Mirror(run, bucket)
    mirror.copy()
    old = (Path(bucket.root) / MANIFEST).read_bytes()
    for step in (2, 3):  # what the manifest before the last names is deleted
        write(board, step)
        mirror.copy()
    new = (Path(bucket.root) / MANIFEST).read_bytes()
    live = Live(bucket, tmp_path / "live")
    (Path(bucket.root) / MANIFEST).write_bytes(old)
    live.look()
    (Path(bucket.root) / MANIFEST).write_bytes(new)
    live.look()
    assert events(live.folder) == events(run.path)


def test_what_is_no_run_or_damaged_is_said_at_once(
    run: RunDir, board: BoardWriter, bucket: Bucket, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"There is no run at s3://bucket/runs/mine"):
        Live(bucket, tmp_path / "live").__enter__()
    write(board, 1)
    Mirror(run, bucket).copy()
    for one in (Path(bucket.root) / OBJECTS).iterdir():
        one.write_bytes(b"another")
    with pytest.raises(UserError, match="is damaged"):
        Live(bucket, tmp_path / "live").__enter__()


def test_a_bucket_that_fails_is_named_once_and_looked_at_again(
    run: RunDir, board: BoardWriter, bucket: Bucket, tmp_path: Path
) -> None:
    write(board, 1)
    mirror = Mirror(run, bucket)
    mirror.copy()
    said: list[str] = []
    live = Live(bucket, tmp_path / "live", every_s=0.01)
    live.say = said.append
    place = Path(bucket.root) / MANIFEST
    with live:
        place.rename(place.with_name("gone"))
        until(lambda: bool(said))
        time.sleep(0.1)
        assert len(said) == 1
        assert said[0].startswith("TensorBoard shows the run as it was: There is no run at s3://")
        write(board, 2)
        mirror.copy()
        until(lambda: events(live.folder) == events(run.path))
    assert len(said) == 1


@pytest.mark.slow
def test_the_command_follows_a_run_in_a_bucket(
    run: RunDir, board: BoardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto.server")
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name, value)
    with s3.served() as server:
        address = server.address("bucket/mine")
        mirror = Mirror(run, Bucket.of(address))
        write(board, 1)
        mirror.copy()
        words = [sys.executable, "-m", "search.cli", "board", address, "--port", "0"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                found = (re.search(r"http://\S+?:(\d+)/", line) for line in process.stderr)
                place = next(f"http://127.0.0.1:{one[1]}" for one in found if one)
                until(lambda: len(read(place)) == 1)
                write(board, 2)
                mirror.copy()
                until(lambda: len(read(place)) == 2)
            finally:
                process.terminate()
    assert process.returncode == 0


def read(address: str) -> list[Any]:
    """What the server has of the curve by now."""
    asked = "data/plugin/scalars/scalars?run=.&tag=hypervolume%2Fby_trials"
    try:
        with urllib.request.urlopen(f"{address}/{asked}", timeout=30) as answer:
            return list(json.load(answer))
    except urllib.error.HTTPError:
        return []
