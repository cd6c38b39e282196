"""A storage that fails under a run: full, read-only or gone, told in one sentence.

What was finished by then is whole, since every file is written whole or not at all; so the run is
ended, and goes on where it was once the storage is mended. No trial is blamed for it.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search.errors import FailedError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_REMEDY = {
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room there, or have the quota raised",
    errno.EROFS: "Have it writable again",
    errno.EIO: "See that it is sound",
    errno.ESTALE: "Mount it anew",
}
_SAID = {os.strerror(code): remedy for code, remedy in _REMEDY.items()}


class StorageError(FailedError):
    """The storage of a run failed.

    Args:
        run: The run directory.
        what: What the system said, such as ``No space left on device``.
    """

    def __init__(self, run: Path, what: str) -> None:
        super().__init__(
            f"The run at {run} cannot be written: {what}. What had finished is kept. "
            f"{_SAID[what]}, then `fewtune resume {run}` goes on."
        )


def trouble_in(text: str) -> str:
    """Return what a text says of a failed storage, in the system's words; empty where nothing.

    Example:
        >>> trouble_in("OSError: [Errno 28] No space left on device: '/mnt/a'")
        'No space left on device'
        >>> trouble_in("The actor died unexpectedly.")
        ''
    """
    return next((said for said in _SAID if said in text), "")


def trouble(error: BaseException | None) -> str:
    """Return what an error, or one behind it, says of a failed storage; empty where nothing.

    Example:
        >>> trouble(OSError(errno.EROFS, "pyarrow's words"))
        'Read-only file system'
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in _REMEDY:
            return os.strerror(error.errno)
        if said := trouble_in(str(error)):
            return said
        seen.append(error)
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def told(run: Path) -> Iterator[None]:
    """Tell of a storage that fails inside in one sentence.

    Raises:
        StorageError: It did.
    """
    before = threading.excepthook

    def hook(seen: threading.ExceptHookArgs) -> None:
        if not trouble(seen.exc_value):  # what a writer's thread met, its owner raises again
            before(seen)

    threading.excepthook = hook
    try:
        yield
    except (UserError, FailedError):
        raise
    except Exception as error:
        if what := trouble(error):
            raise StorageError(run, what) from error
        raise
    finally:
        threading.excepthook = before
