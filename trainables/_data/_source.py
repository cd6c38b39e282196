"""The parts every source is made of: a request, a plan found on disk, and how to carry it out."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables._data._builder import Builder
from trainables._data.dataset import DataError


@dataclass(frozen=True)
class Request:
    """What a user asked of a source.

    Attributes:
        source: name of the source.
        root: where its files lie; None where the source needs none.
        size: side of the square images, pixels.
        channels: 1, 3, or None for what most images have.
        split: lists of classes given by the user, or None for the source's own.
        seed: draws whatever the source draws (alphabets, a split by class).
    """

    source: str
    root: Path | None
    size: int
    channels: int | None
    split: Path | None
    seed: int

    @property
    def folder(self) -> Path:
        """The root, or a sentence saying how to name one."""
        if self.root is None:
            raise DataError(
                f"The source {self.source} reads files and was not told where they lie: set "
                "FEWTUNE_DATA to their folder, or give a path (data.path in a sweep file)."
            )
        if not self.root.exists():
            raise DataError(
                f"The source {self.source} was told to read {self.root}, and there is nothing "
                "there: correct FEWTUNE_DATA or the path (data.path in a sweep file)."
            )
        return self.root


@dataclass(frozen=True)
class Plan:
    """What was found on disk, before anything is decoded.

    Attributes:
        identity: changes whenever the decoded result would.
        origin: where the images come from, for a reader.
        build: decodes everything into a builder.
        check: raises what ``build`` would without decoding, where finding it takes a look inside.
    """

    identity: str
    origin: str
    build: Callable[[Builder], None]
    check: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Source:
    """One image source by name.

    Attributes:
        name: the word in a sweep file.
        about: one line on what it holds.
        expects: files it looks for under the root.
        address: where a person finds it.
        size: side of its images where the user asks for none, pixels.
        channels: 1, 3, or None for what most images have.
        seeded: whether the seed changes the result.
        plan: looks on disk, cheaply; raises DataError where something is missing.
        fetch: puts the files under a root; raises DataError where only a person can.
    """

    name: str
    about: str
    expects: tuple[str, ...]
    address: str
    size: int
    channels: int | None
    seeded: bool
    plan: Callable[[Request], Plan]
    fetch: Callable[[Path], None]


def root_of(root: Path | None) -> Path | None:
    """The folder given, else $FEWTUNE_DATA, else None."""
    if root is not None:
        return Path(root).expanduser()
    named = os.environ.get("FEWTUNE_DATA")
    return Path(named).expanduser() if named else None


def first_existing(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of some relative paths that exists under a folder."""
    return next((folder / name for name in names if (folder / name).exists()), None)
