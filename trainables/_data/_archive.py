"""Files under a folder or inside a zip, listed the same way, and only those that are safe to read.

Nothing is ever unpacked to disk. What is left out has a reason, counted where the tree is read:
links out of the tree, entries that point outside the archive, entries too large to be an image.
"""

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from trainables._data._decode import CORRUPT, ImageProblemError
from trainables._data.dataset import DataError

MAX_FILE_MIB = 64  # no image of a data set is larger; a bomb is
DRIVE = re.compile("[A-Za-z]:")  # of Windows
TAIL_BYTES = 1 << 18  # of a zip: the end of its directory, with sizes and checksums

OUTSIDE_LINK = "symbolic link leaving the tree"
FOLDER_LINK = "symbolic link to a folder"
BROKEN_LINK = "symbolic link to nothing"
SPECIAL = "neither file nor folder"
UNSAFE_ENTRY = "archive entry pointing outside the archive"
LINK_ENTRY = "symbolic link inside the archive"
DUPLICATE_ENTRY = "archive entry of a name used before"
OVERSIZE_FILE = f"file of more than {MAX_FILE_MIB} MiB"

Skips = list[tuple[str, str]]  # reason, path


class Tree(Protocol):
    """Readable files by relative path.

    Attributes:
        path: the folder or archive.
        files: relative paths with "/", sorted.
        folders: relative paths of all folders, also those without files.
        skips: what was left out of ``files``, and why.
    """

    path: Path
    files: tuple[str, ...]
    folders: frozenset[str]
    skips: Skips

    def read(self, file: str) -> bytes:
        """The bytes of one file.

        Raises:
            ImageProblemError: it cannot be read; the reason can be counted.
        """

    def sample(self) -> str:
        """A few of the files, for a message."""

    def close(self) -> None:
        """Let go of what is open."""


class FolderTree:
    """A folder; links are followed to files inside it alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skips: Skips = []
        self._root = path.resolve()
        self._stamps: list[str] = []
        folders: set[str] = set()
        files = sorted(self._walk(self._root, "", folders))
        self.files = tuple(files)
        self.folders = frozenset(folders)

    def _walk(self, folder: Path, prefix: str, folders: set[str]) -> Iterator[str]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"The folder {folder} cannot be listed: {error.strerror or error}."
            ) from error
        for entry in entries:
            name = prefix + entry.name
            reason = self._unsafe(entry)
            if reason is not None:
                self.skips.append((reason, name))
            elif entry.is_dir(follow_symlinks=False):
                folders.add(name)
                yield from self._walk(Path(entry.path), name + "/", folders)
            else:
                status = entry.stat()
                self._stamps.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
                yield name

    def _unsafe(self, entry: os.DirEntry[str]) -> str | None:
        """Why an entry is left out, or None."""
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if not target.is_relative_to(self._root):
                return OUTSIDE_LINK
            if not target.exists():
                return BROKEN_LINK
            if target.is_dir():
                return FOLDER_LINK
        if not entry.is_dir() and not entry.is_file():
            return SPECIAL  # reading a pipe would wait for ever
        return None

    def identity(self) -> str:
        """Changes when a file is added, removed, renamed or written."""
        return _digest(*self._stamps)

    def read(self, file: str) -> bytes:
        """The bytes of one file."""
        path = self._root / file
        try:
            if path.stat().st_size > MAX_FILE_MIB << 20:
                raise ImageProblemError(OVERSIZE_FILE)
            return path.read_bytes()
        except OSError as error:
            raise ImageProblemError(f"unreadable file ({error.strerror or error})") from error

    def sample(self) -> str:
        """A few of the files, for a message."""
        return _sample(self.files)

    def close(self) -> None:
        """Nothing is open."""


class ZipTree:
    """A zip archive, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skips: Skips = []
        self._zip = _open_zip(path)
        self._entries: dict[str, zipfile.ZipInfo] = {}
        folders: set[str] = set()
        for info in self._zip.infolist():
            name = info.filename.replace("\\", "/")  # written by some old Windows tools
            reason = _unsafe_entry(info, name)
            if reason is not None:
                self.skips.append((reason, info.filename))
                continue
            parts = PurePosixPath(name).parts
            if not info.is_dir():
                if "/".join(parts) in self._entries:
                    self.skips.append((DUPLICATE_ENTRY, info.filename))
                    continue
                self._entries["/".join(parts)] = info
                parts = parts[:-1]
            folders.update("/".join(parts[: i + 1]) for i in range(len(parts)))
        self.files = tuple(sorted(self._entries))
        self.folders = frozenset(folders)

    def read(self, file: str) -> bytes:
        """The bytes of one entry."""
        info = self._entries[file]
        if info.file_size > MAX_FILE_MIB << 20:
            raise ImageProblemError(OVERSIZE_FILE)
        try:
            with self._zip.open(info) as entry:
                return entry.read(info.file_size)
        except (OSError, RuntimeError, ValueError, EOFError, zlib.error) as error:
            # RuntimeError: encrypted; its subclass NotImplementedError: unknown compression
            raise ImageProblemError(CORRUPT) from error
        except zipfile.BadZipFile as error:
            raise ImageProblemError(CORRUPT) from error

    def sample(self) -> str:
        """A few of the files, for a message."""
        return _sample(self.files)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


def _sample(files: tuple[str, ...]) -> str:
    step = max(1, len(files) // 3)
    return ", ".join(files[::step][:3]) or "no file"


def _unsafe_entry(info: zipfile.ZipInfo, name: str) -> str | None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or DRIVE.match(name) or not parts:
        return UNSAFE_ENTRY
    if stat.S_ISLNK(info.external_attr >> 16):
        return LINK_ENTRY
    return None


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        with path.open("rb") as file:
            begin = file.read(16)
        raise DataError(
            f"{path} is not a complete zip archive: it has {path.stat().st_size} bytes and begins "
            f"with {begin!r}. Download it again, or remove it."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_text(tree: Tree, file: str) -> str:
    """One list of names: UTF-8, with or without a byte order mark.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return tree.read(file).decode("utf-8-sig")
    except (ImageProblemError, UnicodeDecodeError) as error:
        raise DataError(f"The list {file} in {tree.path} cannot be read as UTF-8 text.") from error


def open_tree(path: Path) -> Tree:
    """A folder or a zip archive as a tree.

    Raises:
        DataError: neither.
    """
    if path.is_dir():
        return FolderTree(path)
    if not path.exists():
        raise DataError(f"There is nothing at {path}; a folder or a zip archive is expected.")
    if path.suffix.lower() in (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"):
        raise DataError(f"{path} is an archive of another kind: unpack it and name the folder.")
    return ZipTree(path)


def identity_of(path: Path) -> str:
    """Changes when a folder's files or an archive change; does not open the archive's entries."""
    if path.is_dir():
        return FolderTree(path).identity()
    try:
        status = path.stat()
        with path.open("rb") as file:
            file.seek(max(0, status.st_size - TAIL_BYTES))
            tail = file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _digest(str(status.st_size), str(status.st_mtime_ns), hashlib.sha256(tail).hexdigest())


def _digest(*parts: str) -> str:
    text = "\n".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
