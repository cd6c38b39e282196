"""The door to Optuna's storages: the run's journal, and databases."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation  # a line's kind has no public name
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from search.databases import completed_url, unreachable
from search.errors import UserError

CONNECT_S = 10  # to reach a database; our default
_LASTING = (
    JournalOperation.CREATE_STUDY,
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_STATE_VALUES,
)


def open_journal(journal: Path) -> JournalStorage:
    """Open a journal file whose only writer is this process; made where there is none."""
    _drop_torn_line(journal)
    return JournalStorage(_Journal(str(journal), lock_obj=_NoLock(str(journal))))


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
        with Path(self._file_path).open("ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            if any(log["op_code"] in _LASTING for log in logs):
                os.fsync(file.fileno())


class _NoLock(JournalFileOpenLock):
    """The run's driver lock stands for it: one writer, and none left behind by a kill."""

    @override
    def acquire(self) -> bool:
        return True

    @override
    def release(self) -> None:
        return None


def _drop_torn_line(journal: Path) -> None:
    """Cut a last line that a killed driver left half-written; it was never acted upon."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
