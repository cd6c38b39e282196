"""A run brought back from a bucket (``mirror``): every file held against its digest, or nothing."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from search.addresses import RUNS, is_address, last_name, shown
from search.bucket import Bucket, patiently
from search.config import NAME
from search.errors import UserError
from search.mirror import OBJECTS, files_of
from search.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 3  # a driver that still runs may replace files meanwhile; our default


def here(run: str | Path) -> Path:
    """Return the directory of a run: itself, or where it was fetched to from a bucket.

    Raises:
        UserError: It cannot be fetched.
    """
    return fetch(str(run)) if is_address(str(run)) else Path(run)


def fetch(address: str, out: Path | None = None) -> Path:
    """Bring a run back from a bucket.

    Args:
        address: Of the run, as ``s3://bucket/prefix/NAME``.
        out: The run directory to be made; None: ``runs/NAME``.

    Returns:
        The run directory; its next driver copies it to the same place again.

    Raises:
        UserError: There is something at ``out`` already, the bucket cannot be used, there is no
            run, or a file of it is missing or damaged; it is named.
    """
    bucket = Bucket.of(address)
    place = out or Path(RUNS) / _named(address)
    if place.exists():
        raise UserError(
            f"{place} is there already. Go on with that copy (`fewtune resume "
            f"{shlex.quote(str(place))}`), or fetch the one in the bucket to another place "
            "(`fewtune fetch ... -o DIR`)."
        )
    coming = place.with_name(f".{place.name}.fetched-{os.getpid()}")
    try:
        _fill(bucket, coming)
        RunDir(coming).write_info(bucket=address)
        coming.rename(place)
    except OSError as error:
        raise UserError(
            f"The run cannot be written at {place}: {error.strerror}. Give another with -o DIR."
        ) from error
    finally:
        shutil.rmtree(coming, ignore_errors=True)
    return place.resolve()


def _named(address: str) -> str:
    name = last_name(address)
    if not NAME.fullmatch(name):
        raise UserError(
            f"A run in a bucket is s3://BUCKET/PREFIX/NAME; {shown(address)} has no name of a run."
        )
    return name


def _fill(bucket: Bucket, folder: Path) -> None:
    for turn in range(TRIES):
        files = files_of(bucket)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for path, content, when in contents(bucket, files):
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                os.utime(file, ns=(when, when))  # hours that a killed session took are told by it
        except GoneError as error:
            if turn == TRIES - 1:
                raise UserError(str(error)) from error
            continue
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        return


class GoneError(Exception):
    """An object that the manifest names is not there: perhaps there is a newer manifest."""


def contents(bucket: Bucket, files: dict[str, Any]) -> Iterator[tuple[str, bytes, int]]:
    """Read files that a manifest names: path, content and time in ns of each.

    Raises:
        GoneError: An object is not there.
        UserError: The bucket cannot be used, or a file is not what was sent.
    """
    place = shown(bucket.address)
    for path, one in sorted(files.items()):
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UserError(f"The manifest of {place} is damaged: {path!r} is no file of a run.")
        name = f"{OBJECTS}/{one['digest']}"
        try:
            content = patiently(bucket, partial(bucket.get, name))
        except FileNotFoundError as error:
            raise GoneError(f"The run at {place} lacks {path} ({name}).") from error
        if hashlib.sha256(content).hexdigest() != one["digest"]:
            raise UserError(f"The run at {place} is damaged: {path} ({name}) is not what was sent.")
        yield path, content, int(one["time"])
