"""The door to Optuna's storages: the run's journal, and databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from search.databases import completed_url, unreachable
from search.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

CONNECT_S = 10  # to reach a database; our default


def open_journal(journal: Path) -> JournalStorage:
    """Open a journal file whose only writer is this process; made where there is none."""
    _drop_torn_line(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock(str(journal))))


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
