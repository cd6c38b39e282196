"""Decoded once: arrays in a folder named by what they hold, shared by every process of a node.

A folder appears under its final name by one rename, complete. A process that finds it maps its
arrays read-only; one that finds it damaged builds it again. A lock saves work where several
processes want the same data at once; nothing depends on it.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainables._data._builder import Builder
from trainables._data._source import Request
from trainables._data.dataset import SPLITS, DataError, Dataset, ImageSet, LoadReport

if sys.platform != "win32":
    import fcntl

LAYOUT = 4  # raise when decoding or drawing changes its result
META = "meta.json"
PROBES, PROBE_BYTES = 64, 4096  # places of an array looked at to notice a torn write
STALE_S = 24 * 3600  # a half-built folder this old belongs to a dead process
ATTEMPTS = 5  # races with other writers lost in a row before giving up


def cache_folder(cache: Path | None) -> Path:
    """The folder given, else $FEWTUNE_CACHE, else ~/.cache/fewtune."""
    named = cache or os.environ.get("FEWTUNE_CACHE") or "~/.cache/fewtune"
    return Path(named).expanduser()


def key_of(request: Request, identity: str, *, seeded: bool) -> str:
    """The name of a cached dataset: its source and a digest of all that decides its content."""
    parts = [LAYOUT, request.source, identity, request.size, request.channels]
    parts.append(request.seed if seeded else None)
    return f"{request.source}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]}"


def fetch(cache: Path, key: str, build: Callable[[Path], Builder]) -> Dataset:
    """The dataset under a key, built if it is not there or damaged.

    Args:
        cache: the folder of all cached datasets.
        key: from ``key_of``.
        build: fills a builder in the folder it is given.

    Raises:
        DataError: the cache cannot be written, or the build found something wrong.
    """
    folder = cache / key
    found = _open(folder)
    if found is not None:
        return found
    with _writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        with _lock(cache / f".{key}.lock"):
            found = _open(folder)  # another process may have built it while this one waited
            if found is not None:
                return found
            _build(cache, folder, build)
    built = _open(folder)
    if built is None:
        raise DataError(
            f"The decoded images in {folder} vanished or changed right after they were written: "
            "is another program clearing this cache, or the disk failing? Choose another place "
            "with FEWTUNE_CACHE."
        )
    return replace(built, report=replace(built.report, cached=False))


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """What goes wrong with the disk, said in a sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The decoded images cannot be kept in {cache}: {error.strerror or error}. Set "
            "FEWTUNE_CACHE to a folder that can be written and has room."
        ) from error


def _build(cache: Path, folder: Path, build: Callable[[Path], Builder]) -> None:
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
    try:
        builder = build(work)
        try:
            meta = builder.finish()
        finally:
            builder.close()
        meta["files"] = {split: _probe(work / f"{split}.npy") for split in SPLITS}
        for split in SPLITS:
            _to_disk(work / f"{split}.npy")
        (work / META).write_text(json.dumps(meta))
        _to_disk(work / META)
        _publish(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, folder: Path) -> None:
    """Rename a complete folder into place, over nothing or over a damaged one."""
    for _ in range(ATTEMPTS):
        try:
            work.rename(folder)
        except OSError:
            if _open(folder) is not None:
                return  # another process was first; its content is the same
            if folder.exists():
                _discard(folder)
        else:
            return
    work.rename(folder)


def _discard(folder: Path) -> None:
    """Take a damaged folder out of the way in one step; who has it mapped keeps it."""
    aside = Path(tempfile.mkdtemp(prefix=".torn-", dir=folder.parent))
    with suppress(FileNotFoundError):  # another process took it away
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _open(folder: Path) -> Dataset | None:
    """The dataset in a folder; None where there is none, or a damaged one."""
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text())
        sets = {split: _open_set(folder, split, meta) for split in SPLITS}
        report = LoadReport.from_json(meta["report"])
        return Dataset(
            name=meta["name"],
            train=sets["train"],
            validation=sets["validation"],
            test=sets["test"],
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            fingerprint=meta["fingerprint"],
            report=replace(report, cached=True),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # rebuilt from the source; a wrong source then says so itself


def _open_set(folder: Path, split: str, meta: dict[str, Any]) -> ImageSet:
    path = folder / f"{split}.npy"
    if _probe(path) != meta["files"][split]:
        raise ValueError(f"{path} is not what was written")
    plain = meta["splits"][split]
    mapped = np.load(path, mmap_mode="r")
    starts = np.array(plain["starts"], dtype=np.int64)
    if mapped.ndim != 4 or len(mapped) != starts[-1]:
        raise ValueError(f"{path} does not hold the images described")
    groups = np.array(plain["groups"], dtype=np.int64)
    starts.flags.writeable = groups.flags.writeable = False
    # a plain array, so that Ray's object store can hand it out without copying
    return ImageSet(mapped.view(np.ndarray), starts, groups, tuple(plain["names"]))


def _probe(path: Path) -> list[int]:
    """Size of a file and a checksum of places spread over it."""
    size = path.stat().st_size
    checksum = 0
    with path.open("rb") as file:
        for i in range(PROBES):
            file.seek(max(0, size - PROBE_BYTES) * i // (PROBES - 1))
            checksum = zlib.crc32(file.read(PROBE_BYTES), checksum)
    return [size, checksum]


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    if sys.platform == "win32":  # two processes may decode the same data; the result is the same
        yield
        return
    with path.open("a") as file:
        with suppress(OSError):  # a file system without locks: work may be done twice
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(cache: Path) -> None:
    """Remove what processes left behind that were killed while building."""
    for left in [*cache.glob(".building-*"), *cache.glob(".torn-*")]:
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)
