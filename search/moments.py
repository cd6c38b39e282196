"""A run's files as they are at one moment, while a sweep goes on writing them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import UserError
from search.rundir import IN_BUCKET, LOCK, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from search.rundir import RunDir

TRIES = 5  # to see files and journal while nobody adds or deletes any; our default


@dataclass(frozen=True)
class Seen:
    """A file as it is or was: what tells that it has changed, and the digest of its content."""

    stamp: tuple[int, int, int]  # inode, bytes, time of its last change in ns
    digest: str = ""


@dataclass
class State:
    """A run at one moment, held by links that outlast what the sweep deletes.

    Attributes:
        files: Path in the run -> the link; None where nothing has changed.
        stamps: Path in the run -> what tells that it has changed.
        journal: The study's journal up to its last whole line.
    """

    files: dict[str, Path | None] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    journal: bytes = b""


def take(run: RunDir, spool: Path, seen: Mapping[str, Seen]) -> State:
    """Hold a state of a run that is written to at the same time.

    The journal is read while no trial is added, and before any file: what it says has ended is
    all there. Files that are replaced are replaced whole, and a link keeps the old one.

    Args:
        run: The run.
        spool: An empty directory of the same file system, for links.
        seen: What was copied before; those files are not linked again.

    Raises:
        FileNotFoundError: Files vanished again and again while they were looked for.
    """
    for turn in range(TRIES):
        try:
            return _take(run, spool / str(turn), seen, strict=turn < TRIES - 1)
        except FileNotFoundError:  # a checkpoint was deleted meanwhile: its trial has gone on
            if turn == TRIES - 1:
                raise
    raise AssertionError("the last turn returns or raises")


def _take(run: RunDir, spool: Path, seen: Mapping[str, Seen], *, strict: bool) -> State:
    spool.mkdir()
    state, trials = State(), set[str]()
    for _ in range(TRIES):
        trials = _trials(run)
        with suppress(FileNotFoundError):  # a study that has not begun
            data = run.journal.read_bytes()
            state.journal = data[: data.rfind(b"\n") + 1]
        if _trials(run) == trials:
            break
    for file in _files(run, trials):
        _hold(state, run, file, spool, seen)
    for number in sorted(trials):
        for file in _checkpoints(run, state.files.get(f"trials/{number}/checkpoint.json"), number):
            try:
                _hold(state, run, file, spool, seen)
            except FileNotFoundError:
                if strict:
                    raise
    return state


def _trials(run: RunDir) -> set[str]:
    with os.scandir(run.path / "trials") as found:
        return {one.name for one in found}


def _files(run: RunDir, trials: set[str]) -> Iterator[Path]:
    """Every file but the journal, checkpoints, Tune's own, and what is being written."""
    for folder, inside, names in os.walk(run.path):
        here = Path(folder)
        inside[:] = [name for name in inside if not name.startswith(".")]
        if here == run.path:
            inside[:] = [name for name in inside if name != run.ray.name]
        if here == run.path / "trials":
            inside[:] = [name for name in inside if name in trials]
        for name in names:
            if not name.startswith(".") and name not in (LOCK, run.journal.name):
                yield here / name


def _checkpoints(run: RunDir, held: Path | None, number: str) -> Iterator[Path]:
    """The files of the checkpoints that a trial may go on from, but those in the bucket."""
    file = held or run.trial(int(number)) / "checkpoint.json"
    try:
        told = read_json(file) if file.is_file() else {}
        places = set(told.get("checkpoints", [])) - set(told.get(IN_BUCKET, []))
    except (UserError, AttributeError, TypeError):  # damaged: a resumed trial looks for them itself
        return
    for place in sorted(places):
        if (run.path / place).is_relative_to(run.path):
            yield from (one for one in (run.path / place).rglob("*") if one.is_file())
            if not (run.path / place).is_dir():
                yield run.path / place  # it is gone, which is found when it is held


def _hold(state: State, run: RunDir, file: Path, spool: Path, seen: Mapping[str, Seen]) -> None:
    path, told = file.relative_to(run.path).as_posix(), file.stat()
    stamp = (told.st_ino, told.st_size, told.st_mtime_ns)
    known = seen.get(path)
    link: Path | None = None
    if known is None or known.stamp != stamp:
        link = spool / str(len(state.files))
        try:
            os.link(file, link)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            shutil.copy2(file, link)
    state.files[path], state.stamps[path] = link, stamp
