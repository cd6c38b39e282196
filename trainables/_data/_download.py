"""Files from their official addresses, complete or not at all."""

import logging
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from trainables._data.dataset import DataError

TIMEOUT_S = 30
logger = logging.getLogger(__name__)


def download(address: str, path: Path, verify: Callable[[Path], None]) -> None:
    """One archive; it appears under its name only once it is whole.

    Args:
        address: where it is.
        path: where it goes.
        verify: raises DataError where the content is not what it should be.

    Raises:
        DataError: no connection, an answer that is no such archive, or no room.
    """
    with _part(path) as part:
        _get(address, part, path)
        _intact(part, address)
        verify(part)
        part.replace(path)


def download_text(address: str, names: tuple[str, ...], folder: Path) -> None:
    """Some small files of one folder; the folder appears once all are there.

    Raises:
        DataError: no connection, or the folder cannot be written.
    """
    with _part(folder) as part:
        part.mkdir()
        for name in names:
            _get(address + name, part / name, folder / name)
        part.rename(folder)


class _part:  # noqa: N801  a context manager, used like a function
    """A temporary name beside the final one, removed afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=".part-", dir=self._path.parent))
        except OSError as error:
            raise DataError(
                f"{self._path.parent} cannot be written: {error.strerror or error}. Choose "
                "another folder."
            ) from error
        return self._folder / self._path.name

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _get(address: str, part: Path, final: Path) -> None:
    logger.info("downloading %s", address)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
            wanted = answer.headers.get("Content-Length")
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{address} cannot be downloaded ({reason}). Download it on a machine with internet "
            f"and put it at {final}."
        ) from error
    except OSError as error:
        raise DataError(
            f"{final.parent} cannot be written: {error.strerror or error}. Make room, or choose "
            "another folder."
        ) from error
    if wanted is not None and part.stat().st_size != int(wanted):
        raise DataError(
            f"{address} broke off after {part.stat().st_size} of {wanted} bytes; try again."
        )


def _intact(part: Path, address: str) -> None:
    """Every entry of the archive has the checksum it says."""
    try:
        with zipfile.ZipFile(part) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        raise DataError(f"{address} answered with something that is no zip archive.") from error
    if broken is not None:
        raise DataError(f"{address} arrived damaged (entry {broken}); try again.")
