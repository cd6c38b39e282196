"""The lease of a node: whoever takes times there has it alone, whoever trains or scores shares it.

A time taken beside busy neighbours says how busy they were. So every meta-iteration and every
scored batch holds the lease shared, and a measurement holds it exclusively: it waits for the
pieces under way, and no new one begins before it ends.

Two files are locked with ``flock``. A lock goes with its process, however that ends, and needs no
server, so a sweep's actors, a second sweep and a single `train` on the node all see each other.
``flock`` lets new sharers pass a waiting measurer, hence the second file, a turnstile: everybody
goes through it one by one, and a measurer stays in it until it is done. Nor does ``flock`` keep a
queue, so who has measured asks again only when those who wait have had a try.

What it cannot hold back are other programs, other users of the machine, and containers with a
temporary folder of their own; what they do to a time shows in its spread (``timing``).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 300.0  # our default: longer than a meta-iteration, so the holder was stopped (Ctrl-Z)
SHORTEST_S, LONGEST_S = 0.0005, 0.01  # between two tries for a lock
COURTESY_S = 2 * LONGEST_S  # from one measurement to the next: who waits tries in between


class LeaseError(OSError):
    """The files of the lease cannot be used."""


class Lease:
    """The lease of a node, as one process has it; one thread of the process asks for it.

    Args:
        folder: where the two files are; all that shall see each other name the same one.
        patience_s: seconds after which a holder no longer counts, as it does not move.
        clock: of the waiting.

    Attributes:
        waited_s: how long this process has waited for others, all told.
    """

    def __init__(
        self,
        folder: Path,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.patience_s, self.waited_s = folder, patience_s, 0.0
        self._clock = clock
        self._process, self._turnstile, self._room = 0, -1, -1
        self._held, self._measured = "", float("-inf")

    @contextmanager
    def shared(self) -> Iterator[bool]:
        """Work for this long at the side of others, and of no measurement.

        Inside the lease's own ``with`` it changes nothing.

        Yields:
            Whether it was had; False after ``patience_s``.

        Raises:
            LeaseError: the files of the lease cannot be used.
        """
        if self._held:
            yield True
            return
        self._open()
        try:
            through = self._wait(self._turnstile, fcntl.LOCK_EX)
            had = through and self._wait(self._room, fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        yield from self._inside("shared", had=had)

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Have the node alone for this long.

        Yields:
            Whether it was had; False after ``patience_s``: times taken now are not to be trusted.

        Raises:
            LeaseError: the files of the lease cannot be used.
            RuntimeError: this process shares the lease, and would wait for itself.
        """
        if self._held == "shared":
            raise RuntimeError("Whoever shares the lease gives it back before measuring.")
        if self._held:
            yield True
            return
        self._open()
        early = self._measured + COURTESY_S - self._clock()
        if early > 0:
            time.sleep(early)
        had = self._wait(self._turnstile, fcntl.LOCK_EX) and self._wait(self._room, fcntl.LOCK_EX)
        try:
            yield from self._inside("exclusive", had=had)
        finally:
            self._measured = self._clock()

    def _inside(self, how: str, *, had: bool) -> Iterator[bool]:
        self._held = how
        try:
            yield had
        finally:
            self._held = ""
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def _wait(self, file: int, how: int) -> bool:
        began, pause = self._clock(), SHORTEST_S
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = self._clock() - began
                if waited > self.patience_s:
                    self.waited_s += waited
                    return False
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_S)
            else:
                self.waited_s += self._clock() - began
                return True

    def _open(self) -> None:
        """Open the files in this process: a lock that came through a fork is the parent's."""
        if self._process == os.getpid():
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            files = [os.open(self.folder / n, flags, 0o600) for n in ("turnstile", "room")]
        except OSError as error:
            msg = (
                f"Times are taken alone on a machine, by locks in {self.folder}, which cannot be "
                f"written: {error.strerror}. Make it writable, or set TMPDIR to another folder."
            )
            raise LeaseError(msg) from error
        self._turnstile, self._room = files
        self._process = os.getpid()


@lru_cache(maxsize=1)
def node() -> Lease:
    """The lease of this machine, for this user: in the folder for temporary files."""
    return Lease(Path(tempfile.gettempdir()) / f"fewtune-{os.getuid()}" / "lease")
