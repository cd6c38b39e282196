"""What one machine says of itself: versions, disk, clock, and whether it reaches storage and data.

Runs on the driver and, as a Ray task, on every node; knows nothing of Ray.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pyarrow import fs

from search.bucket import check_bucket, why
from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("ray", "torch", "optuna", "numpy")
ROOT = Path(__file__).parent.parent
BUCKET_TURNS = 2  # within the time that a node has to answer; our default


class Opener(Protocol):
    """What opens a sweep's data on a node."""

    def open(self) -> Any:  # noqa: ANN401 - a data set, whatever its type
        """Map or fetch the arrays."""


@dataclass(frozen=True)
class Question:
    """What a node is asked.

    Attributes:
        storage: Directory that every node must write; None: not asked.
        marker: A file there that the driver has written, which every node must see; empty: none.
        data: What opens the data; None: not asked.
        bucket: Address that it must write where it lacks the directory; empty: none.
    """

    storage: str | None = None
    marker: str = ""
    data: Opener | None = None
    bucket: str = ""


@dataclass(frozen=True)
class Facts:
    """What a node answered.

    Attributes:
        versions: Of Python, of the packages that decide a result, and the digest of our own code.
        storage: What is wrong with the storage; empty where nothing is.
        data: What is wrong with the data; empty where nothing is.
        free_gib: Free disk, for the storage and for temporary files.
        clock: Seconds of the epoch as the node has them, when it answered.
        bucket: What is wrong with the bucket; empty where nothing is.
    """

    versions: dict[str, str]
    storage: str
    data: str
    free_gib: dict[str, float]
    clock: float
    bucket: str = ""


def probe(question: Question) -> Facts:
    """Answer a question; nothing that is wrong is raised."""
    storage = "" if question.storage is None else try_storage(question.storage, question.marker)
    places = {"temporary files": Path(tempfile.gettempdir())}
    if question.storage is not None and not storage:
        places["storage"] = Path(question.storage)
    free = {what: shutil.disk_usage(place).free / 2**30 for what, place in places.items()}
    bucket = _try_bucket(question.bucket)
    return Facts(versions(), storage, _try_data(question.data), free, time.time(), bucket)


def now(_: object = None) -> float:
    """Seconds of the epoch."""
    return time.time()


def try_storage(place: str, marker: str = "") -> str:
    """Write, read and delete a small file, and look for the driver's.

    Args:
        place: A directory that exists.
        marker: Name of a file there; empty: none is looked for.

    Returns:
        What is wrong; empty where nothing is.
    """
    disk, content = fs.LocalFileSystem(), str(time.time_ns()).encode()
    own = f"{place}/.fewtune-probe-{platform.node()}-{time.time_ns()}"
    try:
        if marker and disk.get_file_info(f"{place}/{marker}").type != fs.FileType.File:
            return "it does not see what the driver wrote there: it is not the same directory"
        with disk.open_output_stream(own) as out:
            out.write(content)
        with disk.open_input_stream(own) as back:
            found = back.read()
        disk.delete_file(own)
    except OSError as error:
        return first_line(error)
    return "" if found == content else "what is written there is not what is read"


@contextmanager
def marked(place: Path) -> Iterator[str]:
    """Have a file in a directory that every node of a shared storage sees; yields its name."""
    marker = f".fewtune-marker-{platform.node()}-{time.time_ns()}"
    (place / marker).touch()
    try:
        yield marker
    finally:
        (place / marker).unlink(missing_ok=True)


def standing(place: Path) -> Path:
    """Return a directory, or the nearest one above it that exists."""
    return next(one for one in (place.absolute(), *place.absolute().parents) if one.is_dir())


def versions() -> dict[str, str]:
    """Return what must be equal on all nodes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "fewtune": _code()}


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, else its name."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _try_bucket(address: str) -> str:
    try:
        if address:
            check_bucket(address, turns=BUCKET_TURNS)
    except UserError as error:
        cause = error.__cause__
        return first_line(error) if cause is None else why(cause)
    return ""


def _try_data(data: Opener | None) -> str:
    if data is None:
        return ""
    try:
        data.open()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return first_line(error)
    return ""


@lru_cache(maxsize=1)
def _code() -> str:
    """Digest of our own sources: a version number says little between two releases."""
    digest = hashlib.sha256()
    for file in _sources():
        digest.update(file.relative_to(ROOT).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _sources() -> Iterator[Path]:
    for package in ("search", "spaces", "trainables"):
        yield from sorted((ROOT / package).rglob("*.py"))
