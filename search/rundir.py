"""The run directory: what lies where, and how it is written.

::

    RUN/sweep.yaml            the resolved sweep file
    RUN/run.json              name, method, versions, data fingerprint, study name, sessions,
                              the bucket that keeps a copy
    RUN/method.json           what a method from outside searches, its defaults and its code as text
    RUN/study.journal         the Optuna journal, unless the study is in a database; the driver
                              is its only writer
    RUN/warm_start.json       what earlier runs observed, told to the study before its first trial
    RUN/trials/<id>/          result.json, table.json, tasks.json, student/, checkpoint.json,
                              error.txt;
                              scores.safetensors: every task's accuracies, to be asked again;
                              further.json: what is still to become a trial of its own
    RUN/ray/<session>/        Tune's files, one directory for each driver session
    RUN/tensorboard/          one subdirectory for each trial, HParams at the root
    RUN/driver.lock           held by the process that drives the run

Nothing here imports a framework, so that ``results`` answers at once.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCORES, FURTHER, LOCK = "scores.safetensors", "further.json", "driver.lock"
INFO, TENSORBOARD = "run.json", "tensorboard"
IN_BUCKET = "in_bucket"
"""Of a list of checkpoints: those that lie in the bucket; of a session: that trials save there."""
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
"""The states that a trial which ran never leaves."""
STOPPED_EARLY = "stopped early"
"""How the reason of a trial that the scheduler stopped begins."""
REFUSED = "REFUSED"
"""The state of a configuration that was never a trial: refused before it could cost anything."""


@dataclass(frozen=True)
class RunDir:
    """The paths of one run."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make a new run directory.

        Raises:
            UserError: The directory exists and is not empty, or cannot be written.
        """
        if (path / INFO).exists():
            raise UserError(
                f"There is already a run at {path}. Go on with it (`fewtune resume {path}`), add "
                f"trials to it (`fewtune extend {path} --trials N`), or give another --name."
            )
        if path.is_file() or (path.is_dir() and not _only_begun(path)):
            raise UserError(
                f"{path} exists and is not a run; it is left as it is. Give another --name."
            )
        try:
            (path / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The run cannot be written at {path}: {error.strerror}. Give another --storage."
            ) from error
        return cls(path.resolve())

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """Open an existing run directory.

        Raises:
            UserError: The path is not a run.
        """
        path = Path(path)
        if not (path / INFO).is_file():
            found = "is a directory without run.json" if path.is_dir() else "does not exist"
            found = "is a file" if path.is_file() else found
            raise UserError(
                f"A run is a directory made by `fewtune sweep`, such as runs/NAME; {path} {found}."
            )
        return cls(path.resolve())

    @property
    def sweep_file(self) -> Path:
        """The resolved sweep file, which ``load_sweep`` reads back."""
        return self.path / "sweep.yaml"

    @property
    def info_file(self) -> Path:
        """What the run is: ``run.json``."""
        return self.path / INFO

    @property
    def journal(self) -> Path:
        """The Optuna journal."""
        return self.path / "study.journal"

    @property
    def ray(self) -> Path:
        """The parent of Tune's directories."""
        return self.path / "ray"

    @property
    def tensorboard(self) -> Path:
        """What ``fewtune board`` shows."""
        return self.path / TENSORBOARD

    def trial(self, number: int) -> Path:
        """The directory of one trial."""
        return self.path / "trials" / str(number)

    def checkpoints(self, number: int) -> list[Path]:
        """Every checkpoint that any session saved of a trial, oldest first."""
        found = self.ray.glob(f"*/{tune_name(number)}-*/checkpoint_*")
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def saved(self, number: int) -> tuple[list[Path], str]:
        """Where the checkpoints of a trial lie that are to be tried, newest first.

        Returns:
            Them, and what is damaged of their list; they are looked for then.
        """
        file = self.trial(number) / "checkpoint.json"
        if not file.is_file():
            return [], ""
        try:
            return [self.path / path for path in read_json(file)["checkpoints"]], ""
        except (UserError, KeyError, TypeError):
            told = f"{file} is damaged; the checkpoints that lie there are tried, newest first"
            return self.checkpoints(number)[::-1], told

    def write_saved(
        self, number: int, places: Sequence[Path], elsewhere: Sequence[Path] = ()
    ) -> None:
        """Write where the checkpoints of a trial lie, newest first, and which are in the bucket."""
        file = self.trial(number) / "checkpoint.json"
        told = {"checkpoints": [self._inside(one) for one in places], "written": now()}
        if elsewhere:
            told[IN_BUCKET] = [self._inside(one) for one in elsewhere]
        write_json(file, told)

    def _inside(self, place: Path) -> str:
        return str(place.relative_to(self.path) if place.is_relative_to(self.path) else place)

    def info(self) -> dict[str, Any]:
        """Read ``run.json``."""
        return dict(read_json(self.info_file))

    def saves_in_bucket(self) -> bool:
        """Tell whether trials of any session saved their checkpoints in the bucket."""
        return any(one.get(IN_BUCKET) for one in self.info().get("sessions", ()))

    def write_info(self, **changes: object) -> dict[str, Any]:
        """Change some keys of ``run.json`` and return all of it."""
        known = self.info() if self.info_file.exists() else {}
        known.update(changes)
        write_json(self.info_file, known)
        return known

    def result(self, number: int) -> dict[str, Any] | None:
        """Read what is known of one trial; None where nothing is."""
        file = self.trial(number) / "result.json"
        return read_json(file) if file.is_file() else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Write what is known of one trial, whole or not at all."""
        file = self.trial(int(result["id"])) / "result.json"
        write_json(file, result, indent=None if result.get("state") == "RUNNING" else 1)

    def results(self) -> list[dict[str, Any]]:
        """Read every trial's result, in the order of the trials."""
        found = (self.path / "trials").glob("*/result.json")
        return sorted((read_json(file) for file in found), key=lambda result: int(result["id"]))

    def last_word(self) -> float:
        """When a driver last wrote something, in seconds of the epoch; a study may be elsewhere."""
        files = [self.info_file, self.journal, *(self.path / "trials").glob("*/result.json")]
        return max(file.stat().st_mtime for file in files if file.exists())

    def driven(self) -> bool:
        """Tell whether a process drives the run now."""
        try:
            with (self.path / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no lock: it was never driven from here
            return False
        return False

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            UserError: Another process drives the run.
        """
        with (self.path / LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                holder = lock.read().strip()
                raise UserError(
                    f"The run at {self.path} is being driven by another process"
                    f"{f' ({holder})' if holder else ''}. Wait for it to end, or stop it first."
                ) from error
            lock.seek(0)
            lock.truncate()
            lock.write(f"process {os.getpid()}\n")
            lock.flush()
            for place in ("", "trials/*/", "trials/*/student/"):  # a killed driver was at these
                for file in self.path.glob(f"{place}.*.json.*"):
                    file.unlink(missing_ok=True)
            yield


def _only_begun(path: Path) -> bool:
    """Tell whether a directory is empty, or what a driver leaves that is killed at once."""
    names = {file.name for file in path.iterdir() if not file.name.startswith(".run.json.")}
    if not names:
        return True
    first = {"trials", "sweep.yaml", "method.json", "warm_start.json"}
    return "trials" in names and names <= first and not any((path / "trials").iterdir())


def tune_name(number: int) -> str:
    """How a trial's directory under ``RUN/ray`` begins."""
    return f"trial-{number:05d}"


def now() -> str:
    """The time as a run's files have it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_json(file: Path) -> Any:  # noqa: ANN401 - JSON is what it is
    """Read a JSON file.

    Raises:
        UserError: The file is not whole; it is named.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: it is no JSON ({error}).") from error


def write_json(file: Path, value: object, indent: int | None = 1) -> None:
    """Write a JSON file whole or not at all; a number that is not finite becomes null.

    Without ``indent`` it is made by C, which is faster: for what is soon written anew.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    text = json.dumps(finite(value), indent=indent, allow_nan=False) + "\n"
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError:  # a full disk: what was written of it is in the way
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Replace numbers that are not finite by None, at any depth, and tuples by lists.

    Example:
        >>> finite({"loss": float("nan"), "values": (1.0, float("inf"))})
        {'loss': None, 'values': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
