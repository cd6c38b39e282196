"""Methods from outside: a folder that a sweep file names, or a package with an entry point.

Either has the two files of a method: ``trainable.py`` with ``LEARNER`` and ``space.py`` with
``SPACE`` and, where there are any, ``PUBLISHED``.

Code runs only where the user named it: in a sweep file that they run, on the command line, or by
going on with a run, whose code must be the code it began with. To look at a run needs none of it:
the run keeps what its method searches as data, ``method.json``.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from search.errors import UserError
from trainables._core.outside import Code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint
    from types import ModuleType

GROUP = "fewtune.methods"
TRAINABLE, SPACE = "trainable", "space"
MOST_BYTES = 2**20  # of a folder's Python files: far more than a method has; our default
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")
_FORM = f"A method of one's own is a folder with {TRAINABLE}.py and {SPACE}.py"


class Origin(Protocol):
    """Where a method from outside comes from."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def place(self) -> str:
        """Where it lies, for people."""

    @property
    def digest(self) -> str:
        """Of its code."""

    @property
    def files(self) -> Mapping[str, str]:
        """Name -> text of the files that a run keeps; none of a package."""

    def module(self, part: str) -> ModuleType:
        """Import ``trainable`` or ``space``."""


@dataclass(frozen=True)
class Folder:
    """A folder's Python files, as they were when it was read."""

    path: Path
    code: Code

    @classmethod
    def read(cls, name: str) -> Folder:
        """Read a folder; nothing of it runs.

        Raises:
            UserError: It is none, lacks a file, or its name or size is not a method's.
        """
        path = Path(name).expanduser().resolve()
        if not path.is_dir():
            found = "is a file; name its folder" if path.is_file() else "does not exist"
            raise UserError(f"{_FORM}; {path} {found}.")
        if not _NAME.fullmatch(path.name):
            raise UserError(
                "A method is called as its folder, up to 50 letters, digits, dashes and "
                f"underscores, the first a letter; found {path.name!r}."
            )
        files = sorted(path.glob("*.py"))
        lacks = [f"{part}.py" for part in (TRAINABLE, SPACE) if path / f"{part}.py" not in files]
        if lacks:
            raise UserError(f"{_FORM}; {path} lacks {' and '.join(lacks)}.")
        if (size := sum(file.stat().st_size for file in files)) > MOST_BYTES:
            raise UserError(
                f"{_FORM}; {path} has {size / 2**20:.1f} MiB of Python files, and "
                f"{MOST_BYTES / 2**20:.0f} MiB at most travel to a trial. Put the method into a "
                "folder of its own."
            )
        try:
            texts = tuple((file.name, file.read_text("utf-8")) for file in files)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The files of {path} cannot be read: {error}.") from error
        return cls(path, Code(path.name, texts))

    @property
    def title(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def digest(self) -> str:
        """Of its files."""
        return self.code.digest

    @property
    def files(self) -> Mapping[str, str]:
        """Its files."""
        return dict(self.code.files)

    def module(self, part: str) -> ModuleType:
        """Import a part of it, from the text that was read."""
        return self.code.module(part)


@dataclass(frozen=True)
class Package:
    """An installed package that names a method; every node of a cluster needs it installed."""

    title: str
    package: str
    digest: str

    @classmethod
    def read(cls, name: str) -> Package:
        """Find a package by its entry point; nothing of it runs.

        Raises:
            UserError: None or several packages offer the name, or the one that does is not there.
        """
        points = _points(name)
        if not points:
            raise UserError(
                f"No installed package offers the method {name} (entry points in {GROUP}). Install "
                "the one that did."
            )
        if len(points) > 1:
            raise UserError(
                f"The method {name} comes from several packages, {', '.join(map(_from, points))}; "
                "uninstall all but one."
            )
        package = points[0].value
        spec = find_spec(package.partition(".")[0])
        roots = list(spec.submodule_search_locations or []) if spec is not None else []
        if not roots:
            raise UserError(
                f"The entry point {GROUP} of {_from(points[0])} says that {name} is the package "
                f"{package}, which is not installed as one. Install it again."
            )
        folder = Path(roots[0]).joinpath(*package.split(".")[1:])
        return cls(name, package, _digest(folder))

    @property
    def place(self) -> str:
        """The package."""
        return f"the package {self.package}"

    @property
    def files(self) -> Mapping[str, str]:
        """None: it is installed, not carried."""
        return {}

    def module(self, part: str) -> ModuleType:
        """Import a part of it."""
        return import_module(f"{self.package}.{part}")


def is_path(method: str) -> bool:
    """Tell whether a sweep file's ``method`` is a folder and no name.

    Example:
        >>> is_path("maml"), is_path("./reptile"), is_path("~/methods/reptile")
        (False, True, True)
    """
    return "/" in method or method.startswith((".", "~"))


def absolute(method: str) -> str:
    """Return a folder as the whole path that it is known by, and a name as it is."""
    return str(Path(method).expanduser().resolve()) if is_path(method) else method


def installed() -> dict[str, str]:
    """Return the methods of installed packages, each with its package in words; imports none."""
    return {point.name: _from(point) for point in entry_points(group=GROUP)}


def find(method: str) -> Origin:
    """Read a method from outside; nothing of it runs.

    Raises:
        UserError: There is none, or it is not whole.
    """
    return Folder.read(method) if is_path(method) else Package.read(method)


def imported(origin: Origin, part: str, attribute: str) -> Any:  # noqa: ANN401 - a class or a mapping
    """Import a part of a method and return what it must have.

    Raises:
        UserError: It cannot be imported, or has no such thing.
    """
    try:
        module = origin.module(part)
    except Exception as error:
        raise UserError(
            f"{part}.py of {origin.place} cannot be imported: {_first_line(error)}{_where(error)}."
        ) from error
    if not hasattr(module, attribute):
        raise UserError(
            f"{part}.py of {origin.place} has no {attribute}: it must say `{attribute} = ...`."
        )
    return getattr(module, attribute)


def _points(name: str) -> list[EntryPoint]:
    return list(entry_points(group=GROUP, name=name))


def _from(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    said = lines[0].rstrip(".") if lines else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _where(error: BaseException) -> str:
    """Say the line of the method's two files at which it broke; nothing where it is elsewhere."""
    if isinstance(error, SyntaxError):
        return ""  # its own words have the line
    own = [frame for frame in traceback.extract_tb(error.__traceback__)
           if Path(frame.filename).stem in (TRAINABLE, SPACE)]  # fmt: skip
    return f" (line {own[-1].lineno} of {Path(own[-1].filename).name})" if own else ""
