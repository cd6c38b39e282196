"""Checkpoints in the bucket of a run, for clusters whose nodes do not share the run's directory.

A run has one tree of names, and it lies in two places: ``ray/SESSION/TRIAL/checkpoint_N`` in the
bucket, all else in the directory of the driver. Tune writes through ``Remote.filesystem``, which
tells the two apart; trials and the driver read through ``fetch``. Whoever reads holds a checkpoint
against its digests: an upload that broke off is one that is not whole.

A bucket that fails is asked again for two minutes. Its keys are each process's own (``addresses``).
"""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pyarrow as pa
from pyarrow import fs
from typing_extensions import override

from search.addresses import shown
from search.bucket import Bucket, patiently, why
from search.errors import FailedError, UserError
from search.rundir import tune_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from search.rundir import RunDir

RAY = "ray"
"""Where Tune's files are in a run, in the directory and in the bucket."""
TURNS = 9  # times a call is made, over two minutes; our default
KEPT = 3  # checkpoints of a trial that runs: two whole ones beside one that is being written
_CHECKPOINT = re.compile(rf"({RAY}/[^/]+/trial-(\d+)-[^/]+)/checkpoint_[^/]+")
_MARKER = ".validate_storage_marker"  # with which Tune sees that a node reaches its storage
_AWAY = re.compile(r"The run at .*? goes on when it answers\.")

T = TypeVar("T")


class AwayError(FailedError):
    """The bucket stays away; the run can be resumed. Travels from a trial to the driver."""


def away(run: str, address: str, error: BaseException) -> AwayError:
    """Say that the bucket stays away from this machine.

    Args:
        run: The run directory of the driver.
        address: Of the run in the bucket.
        error: What was met last.
    """
    return AwayError(
        f"The run at {run} cannot keep its checkpoints in {shown(address)}: {why(error)} (asked by "
        f"{platform.node()}). What had finished is kept. `fewtune resume {run}` goes on when it "
        "answers."
    )


def away_in(text: str) -> str:
    """Return the sentence of a bucket that stayed away from a trial; empty where there is none.

    Example:
        >>> away_in(
        ...     "RayTaskError: The run at a cannot. `fewtune resume a` goes on when it answers."
        ... )
        'The run at a cannot. `fewtune resume a` goes on when it answers.'
        >>> away_in("The actor died unexpectedly.")
        ''
    """
    found = _AWAY.search(text)
    return found[0] if found else ""


@dataclass(frozen=True)
class Remote:
    """The checkpoints of a run in its bucket; travels to the trials.

    Attributes:
        address: Of the run in the bucket.
        run: The run directory of the driver.
        turns: Times a call is made, before the bucket counts as gone.
    """

    address: str
    run: str
    turns: int = TURNS

    @classmethod
    def of(cls, run: RunDir) -> Self | None:
        """Return those of a run; None where it is kept in no bucket."""
        address = run.info().get("bucket")
        return cls(address, str(run.path)) if address else None

    @property
    def bucket(self) -> Bucket:
        """What reaches it, one for each process."""
        return _reached(self.address)

    def filesystem(self) -> fs.PyFileSystem:
        """Return the run as one tree, for Tune."""
        return fs.PyFileSystem(RunTree(self))

    def saved(self, number: int) -> dict[str, int]:
        """List the checkpoints of a trial, from all sessions.

        Returns:
            Place in the run -> when it was written, in ns of the epoch; the oldest first.

        Raises:
            AwayError: The bucket stays away.
        """
        name = f"/{tune_name(number)}-"
        there = checkpoints(self.wait(lambda: self.bucket.tree(RAY)))
        return {place: at for place, at in there.items() if name in place}

    def newest(self, number: int) -> list[str]:
        """List the same, the newest first."""
        return [*self.saved(number)][::-1]

    def fetch(self, place: str, folder: Path) -> None:
        """Bring a checkpoint here; of one that is not there nothing comes.

        Args:
            place: In the run.
            folder: The directory to be made.

        Raises:
            AwayError: The bucket stays away.
        """
        folder.mkdir(parents=True)
        for name in self.wait(lambda: self.bucket.tree(place)):
            file = folder / PurePosixPath(name).relative_to(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # deleted meanwhile: its digests will tell
                file.write_bytes(self._get(name))

    def send(self, folder: Path, place: str) -> None:
        """Put a checkpoint of this machine into the bucket.

        Raises:
            AwayError: The bucket stays away.
        """
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            self.put(f"{place}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def put(self, name: str, content: bytes) -> None:
        """Write an object.

        Raises:
            AwayError: The bucket stays away.
        """
        self.wait(lambda: self.bucket.put(name, content))

    def _get(self, name: str) -> bytes:
        return self.wait(lambda: self.bucket.get(name))

    def wait(self, call: Callable[[], T]) -> T:
        """Ask the bucket until it answers.

        Raises:
            AwayError: It stays away.
            FileNotFoundError: It says that something is not there.
        """
        try:
            return patiently(self.bucket, call, turns=self.turns)
        except UserError as error:
            raise away(self.run, self.address, error.__cause__ or error) from None


class RunTree(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """A run as Tune sees it: checkpoints in the bucket, all else in the driver's directory.

    Args:
        remote: Where the checkpoints are.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunTree) and other._remote == self._remote

    @override
    def __hash__(self) -> int:
        return hash(self._remote)

    def get_type_name(self) -> str:
        """Name it."""
        return "run"

    def normalize_path(self, path: str) -> str:
        """Leave a path as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        """Say what lies where."""
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """List a folder."""
        folder, asked = selector.base_dir, {"allow_not_found": selector.allow_not_found}
        if _in_bucket(folder):
            found = self._remote.wait(lambda: self._remote.bucket.tree(folder))
            inside = {str(one) for name in found for one in PurePosixPath(name).parents}
            folders = [fs.FileInfo(one, fs.FileType.Directory) for one in sorted(inside)
                       if one.startswith(f"{folder}/")]  # fmt: skip
            return [*folders, *(fs.FileInfo(name, fs.FileType.File) for name in found)]
        here = fs.FileSelector(self._here(folder), recursive=selector.recursive, **asked)
        return [
            fs.FileInfo(str(Path(one.path).relative_to(self._remote.run)), one.type)
            for one in fs.LocalFileSystem().get_file_info(here)
        ]

    def create_dir(self, path: str, recursive: bool) -> None:  # noqa: FBT001 - pyarrow's
        """Make a folder; a bucket has none."""
        if not _in_bucket(path):
            fs.LocalFileSystem().create_dir(self._here(path), recursive=recursive)

    def delete_dir(self, path: str) -> None:
        """Delete a folder."""
        if _in_bucket(path):
            self._remote.wait(lambda: self._remote.bucket.clear(path))
        else:
            fs.LocalFileSystem().delete_dir(self._here(path))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Read a file."""
        if not _in_bucket(path):
            return fs.LocalFileSystem().open_input_stream(self._here(path))
        return pa.BufferReader(self._remote.wait(lambda: self._remote.bucket.get(path)))

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Read a file, from anywhere in it."""
        if not _in_bucket(path):
            return fs.LocalFileSystem().open_input_file(self._here(path))
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: object) -> pa.NativeFile:  # noqa: ARG002 - pyarrow's
        """Write a file."""
        if not _in_bucket(path):
            return fs.LocalFileSystem().open_output_stream(self._here(path))
        return pa.PythonFile(_Sent(self._remote, path), mode="w")

    def _never(self, *_: object) -> Any:  # noqa: ANN401
        raise NotImplementedError("Tune does not do this to a run.")

    copy_file = move = delete_file = open_append_stream = _never
    delete_dir_contents = delete_root_dir_contents = _never

    def _here(self, path: str) -> str:
        return str(Path(self._remote.run) / path)

    def _info(self, path: str) -> fs.FileInfo:
        if not _in_bucket(path):
            return fs.FileInfo(path, fs.LocalFileSystem().get_file_info(self._here(path)).type)
        there = self._remote.wait(lambda: self._remote.bucket.kind(path))
        return fs.FileInfo(path, there)


class _Sent:
    """A file that is in the bucket, as far as it was written, after every write.

    pyarrow's ``copy_files`` drops what goes wrong when a file is closed, and writes files of up to
    64 MiB at once.
    """

    def __init__(self, remote: Remote, path: str) -> None:
        self._remote, self._path, self._content, self.closed = remote, path, b"", False

    def write(self, data: Any) -> int:  # noqa: ANN401 - a buffer
        """Send it, with what came before."""
        self._content += bytes(data)
        self._remote.put(self._path, self._content)
        return len(data)

    def flush(self) -> None:
        """Nothing: it is there."""

    def close(self) -> None:
        """Send a file that nothing was written to."""
        if not (self.closed or self._content):
            self._remote.put(self._path, b"")
        self.closed = True


def checkpoints(tree: Mapping[str, int]) -> dict[str, int]:
    """Find the checkpoints among objects.

    Args:
        tree: Name -> when it was written.

    Returns:
        Place in the run -> when its last object was written; the oldest first.

    Example:
        >>> checkpoints(
        ...     {
        ...         "ray/s/trial-00001-a/checkpoint_000001/state.pt": 7,
        ...         "ray/s/trial-00001-a/checkpoint_000000/state.pt": 6,
        ...         "ray/s/.validate_storage_marker": 1,
        ...     }
        ... )
        {'ray/s/trial-00001-a/checkpoint_000000': 6, 'ray/s/trial-00001-a/checkpoint_000001': 7}
    """
    found: dict[str, int] = {}
    for name, at in tree.items():
        if one := _CHECKPOINT.match(name):
            found[one[0]] = max(at, found.get(one[0], 0))
    return dict(sorted(found.items(), key=lambda one: (one[1], one[0])))


def spare(tree: Mapping[str, int], over: Callable[[int], bool], *, ending: bool) -> list[str]:
    """Return the folders that nobody needs: of trials that have ended, and old checkpoints.

    Args:
        tree: Name -> when it was written.
        over: Whether a trial has ended.
        ending: Whether nothing is written any more: all goes where no trial is left to go on.
    """
    folders: dict[str, None] = {}
    running: dict[int, list[str]] = {}
    for place in checkpoints(tree):
        found = _CHECKPOINT.match(place)
        assert found is not None  # as ``checkpoints`` found it
        trial, number = found[1], int(found[2])
        if over(number):
            folders[trial] = None
        else:
            running.setdefault(number, []).append(place)
    if ending and tree and not running:
        return [RAY]
    return [*folders, *(place for one in running.values() for place in one[:-KEPT])]


def _in_bucket(path: str) -> bool:
    return _CHECKPOINT.match(path) is not None or path.endswith(f"/{_MARKER}")


@lru_cache(maxsize=4)
def _reached(address: str) -> Bucket:
    return Bucket.of(address)
