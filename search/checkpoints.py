"""Where the checkpoints of trials lie, in the run's directory or in its bucket: noted, given, read.

Places are named by the run: ``RUN/ray/SESSION/TRIAL/checkpoint_N``, whichever of the two holds it.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.remote import RAY
from search.rundir import SCORES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from search.remote import Remote
    from search.rundir import RunDir


LENT = f"{RAY}/trained"
"""Where trained models lie in the bucket that other trials adapt differently, until the end."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        run: The run.
        remote: Those in its bucket; None: it has none.

    Attributes:
        afar: Whether trials save in the bucket, since their nodes lack the directory.
    """

    def __init__(self, run: RunDir, remote: Remote | None = None) -> None:
        self.run, self.remote, self.afar = run, remote, False
        self._places: dict[int, set[Path]] = {}  # where a running trial's checkpoints lie
        self._lent: set[str] = set()

    @property
    def target(self) -> Remote | None:
        """Where trials save, if not in the run's directory."""
        return self.remote if self.afar else None

    def given(self, number: int, *, begun: bool) -> list[str]:
        """Return what a trial can go on from, newest first, as a trial reads it.

        Args:
            number: Of the trial.
            begun: Whether an earlier session had begun with it.

        Raises:
            AwayError: The bucket stays away.
        """
        noted, _ = self.noted(number)
        there = self._there(number) if begun else []
        self._places[number] = {path.parent for path in there}
        return [self._handed(path) for path in (*unnoted(there, noted), *noted)]

    def lent(self, folders: Sequence[str]) -> list[str]:
        """Return directories of finished trials as a trial reads them; the first one suffices.

        Raises:
            AwayError: The bucket stays away.
        """
        if self.target is None or not folders:
            return [*folders]
        folder = Path(folders[0])
        place = f"{LENT}/{folder.name}"
        if folder.name not in self._lent:
            self.target.send(folder / "student", f"{place}/student")
            self.target.put(f"{place}/{SCORES}", (folder / SCORES).read_bytes())
            self._lent.add(folder.name)
        return [place]

    def noted(self, number: int) -> tuple[list[Path], str]:
        """Return those that are to be tried, newest first, and what is damaged of their list."""
        return self.run.saved(number)

    def note(self, number: int, path: str) -> None:
        """Note a new one, as Tune names it; the last two are kept."""
        place = self.run.path / path  # of a path that is absolute, that path
        self._places.setdefault(number, set()).add(place.parent)
        known = [other for other in self.noted(number)[0] if other != place]
        kept = [place, *known][:2]
        self.run.write_saved(number, kept, [one for one in kept if self._elsewhere(one)])

    @contextmanager
    def at_hand(self, place: Path) -> Iterator[Path]:
        """Have a checkpoint in a directory of this machine.

        Raises:
            AwayError: The bucket stays away.
        """
        if self.remote is None or not self._elsewhere(place):
            yield place
            return
        with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=self.run.path) as made:
            folder = Path(made) / place.name
            self.remote.fetch(self._name(place), folder)
            yield folder

    def forget(self, number: int) -> None:
        """Delete those of a trial that has ended; in the bucket the mirror does it."""
        for place in self._places.pop(number, ()):
            for path in place.glob("checkpoint_*"):
                shutil.rmtree(path, ignore_errors=True)
        (self.run.trial(number) / "checkpoint.json").unlink(missing_ok=True)

    def _there(self, number: int) -> list[Path]:
        """Every one that any session saved of a trial, oldest first."""
        found = {path: path.stat().st_mtime_ns for path in self.run.checkpoints(number)}
        if self.remote is not None and self.run.saves_in_bucket():
            found |= {self.run.path / one: at for one, at in self.remote.saved(number).items()}
        return sorted(found, key=lambda path: (found[path], path.name))

    def _handed(self, place: Path) -> str:
        """Name one as a trial reads it: an absolute path, or its place in the bucket."""
        if self.remote is None or not place.is_relative_to(self.run.path):
            return str(place)
        name = self._name(place)
        if place.is_dir():
            if not self.afar:
                return str(place)
            self.remote.send(place, name)
        return name

    def _elsewhere(self, place: Path) -> bool:
        inside = place.is_relative_to(self.run.path)
        return self.remote is not None and inside and not place.is_dir()

    def _name(self, place: Path) -> str:
        return place.relative_to(self.run.path).as_posix()


def unnoted(there: Sequence[Path], noted: Sequence[Path]) -> list[Path]:
    """Return the checkpoints, newest first, that are newer than those noted.

    A driver that was killed, or whose disk was full, has not noted the last ones.

    Args:
        there: Every checkpoint of a trial that lies there, oldest first.
        noted: Those that were noted, newest first.
    """
    newest = there.index(noted[0]) + 1 if noted and noted[0] in there else 0
    return [path for path in reversed(there[newest:]) if path not in noted]
