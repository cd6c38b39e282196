"""A method's code as text that travels: read from a folder once, imported from memory anywhere.

The files go to a worker with the trial's settings, so that no node needs the folder, and what runs
is what was digested. They are one package, whose name ends in the digest: files that change are
another package, and a checkpoint of one never fits the other.

Knows nothing of torch, so that a space is read without it.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.util import spec_from_loader
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_PACKAGE = "fewtune_own_"


@dataclass(frozen=True)
class Code:
    """The Python files of one folder.

    Attributes:
        name: Of the folder.
        files: Name and text of each file, sorted by name.
    """

    name: str
    files: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Of all files, names included."""
        digest = hashlib.sha256()
        for part in (part for file in self.files for part in file):
            digest.update(f"{len(part)}:{part}".encode())
        return digest.hexdigest()

    @property
    def package(self) -> str:
        """The name under which it is imported."""
        return _PACKAGE + self.digest[:16]

    def module(self, name: str) -> ModuleType:
        """Import one file, and what it imports from beside it (``from .other import thing``).

        Raises:
            ModuleNotFoundError: There is no such file.
        """
        _FINDER.known[self.package] = self
        if _FINDER not in sys.meta_path:
            sys.meta_path.append(_FINDER)
        return import_module(f"{self.package}.{name}")


@dataclass(frozen=True)
class Carried:
    """A class of such code on its way to another process."""

    code: Code
    module: str
    name: str

    def get(self) -> Any:  # noqa: ANN401 - whatever class it is
        """The class, imported from the files that came along."""
        return getattr(self.code.module(self.module), self.name)


def carried(kind: type) -> type | Carried:
    """What stands for a class while it travels: itself, where every process can import it."""
    package, _, module = kind.__module__.partition(".")
    code = _FINDER.known.get(package)
    return kind if code is None else Carried(code, module, kind.__qualname__)


def arrived(what: type | Carried) -> Any:  # noqa: ANN401 - whatever class it is
    """The class that ``carried`` was given."""
    return what.get() if isinstance(what, Carried) else what


class _Finder(MetaPathFinder):
    """Finds the modules of codes that were asked for in this process."""

    def __init__(self) -> None:
        self.known: dict[str, Code] = {}

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = fullname.partition(".")
        code = self.known.get(package)
        if code is None or (module and f"{module}.py" not in dict(code.files)):
            return None
        return spec_from_loader(fullname, _Loader(code, module), is_package=not module)


class _Loader(ExecutionLoader):
    def __init__(self, code: Code, module: str) -> None:
        self._code, self._file = code, f"{module or '__init__'}.py"

    @override
    def get_source(self, fullname: str) -> str:
        return dict(self._code.files).get(self._file, "")

    @override
    def get_filename(self, fullname: str) -> str:
        return f"{self._code.name}/{self._file}"

    @override
    def is_package(self, fullname: str) -> bool:
        return self._file == "__init__.py"


_FINDER = _Finder()
