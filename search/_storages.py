"""The door to Optuna's storages: the run's journal, and databases."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation  # a line's kind has no public name
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from search.databases import completed_url, unreachable
from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

CONNECT_S = 10  # to reach a database; our default
_WAITING = (TrialState.WAITING,)
_LASTING = (
    JournalOperation.CREATE_STUDY,
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_STATE_VALUES,
)


def open_journal(journal: Path) -> JournalStorage:
    """Open a journal file whose only writer is this process; made where there is none.

    Raises:
        UserError: A line in it is damaged; a torn last line is for ``mend_journal``.
    """
    try:
        return _OneWriter(_Journal(str(journal), lock_obj=_NoLock(str(journal))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{journal}, the record of the study, is damaged{_where(journal)}. Restore it from a "
            "copy; what each trial found is in its result.json."
        ) from error


def mend_journal(journal: Path) -> str:
    """Cut a last line that a killed driver left half-written; it was never acted upon.

    Returns:
        What was done, as a sentence; empty where nothing was.
    """
    if not journal.exists():
        return ""
    with journal.open("rb+") as file:
        data = file.read()
        if not data or data.endswith(b"\n"):
            return ""
        whole = data.rfind(b"\n") + 1
        file.truncate(whole)
    return (
        f"The last line of {journal} was half-written ({len(data) - whole} bytes); it is cut off, "
        "and the study goes on from the line before."
    )


def open_database(reference: str) -> optuna.storages.RDBStorage:
    """Open the database that holds studies; its tables are made where there are none.

    Args:
        reference: The value of ``study``, other than ``journal``.

    Raises:
        UserError: It cannot be reached or used; its address and password are not shown.
    """
    url = completed_url(reference)
    timeout = {"connect_timeout": CONNECT_S} if url.startswith(("postgresql", "mysql")) else {}
    engine = {"pool_pre_ping": True, "connect_args": timeout}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=engine)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError) as error:
        raise UserError(unreachable(reference, url, error)) from None


def close_database(storage: optuna.storages.RDBStorage) -> None:
    """Close every connection of a database."""
    storage.remove_session()
    storage.engine.dispose()


class _Journal(JournalFileBackend):
    """A journal that is brought to the disk when a trial begins or ends, not at every parameter.

    Every line leaves this process at once, so that a killed driver loses none. A machine that loses
    its power may lose the last lines of a trial that had not ended, and no other: the disk takes
    all that was written before with what it is brought.
    """

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with Path(self._file_path).open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                data = memoryview(text.encode("utf-8"))
                while data:  # a disk that becomes full takes a part
                    data = data[file.write(data) :]
                if any(log["op_code"] in _LASTING for log in logs):
                    os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # half a line would hide those that come after
                raise


class _OneWriter(JournalStorage):
    """A journal that this process alone writes, so that it knows what waits.

    Every draw asks for all trials and for those that wait. Optuna looks at each of ten thousand
    for it, which takes as long as the rest of the draw.
    """

    def __init__(self, backend: JournalFileBackend) -> None:
        super().__init__(backend)
        self._waiting: dict[int, set[int]] = {}  # by study
        for study in self.get_all_studies():
            waiting = super().get_all_trials(study._study_id, False, _WAITING)  # noqa: FBT003, SLF001 - Optuna's
            self._waiting[study._study_id] = {t._trial_id for t in waiting}  # noqa: SLF001

    @override
    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial = super().create_new_trial(study_id, template_trial)
        if template_trial is not None and template_trial.state == TrialState.WAITING:
            self._waiting.setdefault(study_id, set()).add(trial)
        return trial

    @override
    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        for waiting in self._waiting.values():
            waiting.discard(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    @override
    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if not deepcopy and states == _WAITING:
            return [self.get_trial(one) for one in sorted(self._waiting.get(study_id, ()))]
        if deepcopy or states is not None:
            return super().get_all_trials(study_id, deepcopy, states)
        known = self._replay_result  # as it is: nobody else has written since
        return [known._trials[one] for one in known._study_id_to_trial_ids[study_id]]  # noqa: SLF001 - Optuna's


class _NoLock(JournalFileOpenLock):
    """The run's driver lock stands for it: one writer, and none left behind by a kill."""

    @override
    def acquire(self) -> bool:
        return True

    @override
    def release(self) -> None:
        return None


def _where(journal: Path) -> str:
    """Name the first line that is no JSON object; empty where all are."""
    for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
        try:
            whole = isinstance(json.loads(line), dict)
        except ValueError:
            whole = False
        if not whole:
            return f": line {number} is no JSON object"
    return ""
