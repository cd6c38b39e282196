"""The bundle: a directory with one student and all that is known of it, needing nothing else.

::

    BUNDLE/model.safetensors   weights
    BUNDLE/pattern.json        network, pre-processing, which layers adapt and how
    BUNDLE/config.yaml         a sweep file; `fewtune train config.yaml` trains the student again
    BUNDLE/metrics.json        every metric by its name, and the (pattern, step) table
    BUNDLE/provenance.json     where it comes from, and the sha256 of every other file
    BUNDLE/README.md           what it is and how to use it
    BUNDLE/inputs/...          what config.yaml reads, where the sweep file named files of its own
    BUNDLE/adaptation.* student.*    the same as programs for torch and ONNX; see ``exported``

fewtune unpickles nothing and runs nothing of it but the ONNX programs, on ``verify``. The digests
find torn copies and edits by accident; they are no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from search.errors import UserError
from trainables._core.student import Student, StudentError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
CONFIG, METRICS_FILE, PROVENANCE, README = (
    "config.yaml",
    "metrics.json",
    "provenance.json",
    "README.md",
)
REQUIRED = ("model.safetensors", "pattern.json", CONFIG, METRICS_FILE, README)
_OF_DESKTOPS = ("thumbs.db", "desktop.ini")  # files that file managers leave behind


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are whole.

    Attributes:
        path: The directory.
        student: The student in it.
        metrics: ``metrics.json``.
        provenance: ``provenance.json``.
    """

    path: Path
    student: Student
    metrics: dict[str, Any]
    provenance: dict[str, Any]


def check_free(out: Path, option: str = "-o") -> None:
    """Refuse a place that cannot become a bundle.

    Args:
        out: The place.
        option: The word of the command line that named it.

    Raises:
        UserError: It is a file, or a directory with something in it.
    """
    if out.is_dir():
        inside = sorted(entry.name for entry in out.iterdir())
        if not inside:
            return
        held = "already holds a bundle" if PROVENANCE in inside else f"holds {_some(inside)}"
        raise UserError(
            f"A bundle is written to a new or empty directory, and {out} {held}. Give another "
            f"{option} DIR, or remove it first."
        )
    if out.exists() or out.is_symlink():
        raise UserError(f"A bundle is a directory, and {out} is a file. Give another {option} DIR.")


@contextmanager
def new_bundle(out: Path, option: str = "-o") -> Iterator[Path]:
    """Give a directory to fill, which becomes ``out`` whole or not at all.

    Args:
        out: A directory that does not exist, or is empty; missing parents are made.
        option: The word of the command line that named it.

    Yields:
        A temporary directory beside it. Its digests are not yet written: see ``seal``.

    Raises:
        UserError: ``out`` is taken or cannot be written.
    """
    out = Path(out).resolve()
    check_free(out, option)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.replace(out)  # also takes the place of an empty directory
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"The bundle cannot be written at {out}: {error.strerror or error}."
        ) from error


def seal(folder: Path, provenance: dict[str, Any]) -> None:
    """Write ``provenance.json``, with the digest of every other file that is in the folder now."""
    for name in (names := [name for name in _names(folder) if name != PROVENANCE]):
        shutil.copymode(folder / README, folder / name)  # weights are written for their owner alone
    files = {name: digest(folder / name) for name in names}
    write_json(folder / PROVENANCE, {"bundle": FORMAT, **provenance, "files": files})


def write_json(file: Path, document: object) -> None:
    """Write one JSON document; a number that is not finite is an error."""
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle and check that every file of it is as it was exported.

    Raises:
        UserError: The path is no bundle; or a file is missing, was changed, does not belong to it,
            or cannot be read, and it is named.
    """
    path = Path(path)
    provenance = _provenance(path)
    files = _listed(path, provenance)
    problems = [f"{name} is missing" for name in files if not (path / name).is_file()]
    problems += [
        f"{name} is not as it was exported"
        for name, known in files.items()
        if (path / name).is_file() and digest(path / name) != known
    ]
    problems += [
        f"{name} does not belong to it"
        for name in _names(path)
        if name not in files and name != PROVENANCE and not _by_desktop(name)
    ]
    if problems:
        raise UserError(
            f"The bundle {path} is not whole: {'; '.join(problems)}. Copy it again, or export it "
            "again."
        )
    return Bundle(path, _student(path), _json(path / METRICS_FILE), provenance)


def digest(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _provenance(path: Path) -> dict[str, Any]:
    if not (path / PROVENANCE).is_file():
        found = f"has no {PROVENANCE}" if path.is_dir() else "does not exist"
        found = "is a file" if path.is_file() else found
        hint = ""
        if (path / "run.json").is_file():
            hint = f" It is a run; `fewtune export {path} --pick knee -o DIR` makes a bundle of it."
        raise UserError(f"A bundle is a directory made by `fewtune export`; {path} {found}.{hint}")
    return _json(path / PROVENANCE)


def _listed(path: Path, provenance: dict[str, Any]) -> dict[str, str]:
    """Return the files a bundle says it has, with their digests."""
    version, files = provenance.get("bundle"), provenance.get("files")
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"The bundle {path} has format {version}, made by a newer fewtune; this one reads "
            f"formats up to {FORMAT}. Update fewtune."
        )
    if version != FORMAT or not isinstance(files, dict):
        raise UserError(
            f"{path / PROVENANCE} was not written by `fewtune export`: it names no bundle format "
            "and no files. Export the trial again."
        )
    for name in files:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise UserError(f"{path / PROVENANCE} names {name}, which lies outside the bundle.")
    for name in REQUIRED:
        if name not in files:
            raise UserError(f"{path / PROVENANCE} does not name {name}. Export the trial again.")
    return dict(files)


def _student(path: Path) -> Student:
    try:
        student = Student.load(path)
    except StudentError as error:
        raise UserError(" ".join(str(error).split())) from error
    spec = student.spec
    if not len(spec.mean) == len(spec.std) == spec.channels or min(spec.std) <= 0:
        raise UserError(
            f"{path / 'pattern.json'} needs a mean and a standard deviation above 0 for each of "
            f"{spec.channels} channels; found {spec.mean} and {spec.std}."
        )
    return student


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{file} is damaged: it is no readable JSON ({error}).") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged: it holds no JSON object.")
    return found


def _names(folder: Path) -> list[str]:
    """Return every file below a folder by its relative name."""
    files = (p for p in folder.rglob("*") if not p.is_dir())
    return sorted(p.relative_to(folder).as_posix() for p in files)


def _by_desktop(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") for part in parts) or parts[-1].lower() in _OF_DESKTOPS


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
