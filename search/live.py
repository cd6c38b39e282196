"""What TensorBoard shows of a run, kept up from its copy in a bucket (``mirror``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from search.errors import UserError
from search.fetch import GoneError, contents
from search.mirror import files_of
from search.outlets import echo
from search.rundir import INFO, TENSORBOARD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.bucket import Bucket

EVERY_S = 5.0  # between two looks, as a copy is made; our default


class Live:
    """Keeps a run directory of TensorBoard's files alone as the bucket has them, while entered.

    Event files only grow, and a reader has them open: what is new is put at their end.

    Args:
        bucket: The run's copy.
        folder: The directory, made where there is none.
        every_s: Seconds between two looks.
    """

    def __init__(self, bucket: Bucket, folder: Path, *, every_s: float = EVERY_S) -> None:
        self.bucket, self.folder, self._every_s = bucket, folder, every_s
        self.say: Callable[[str], None] = lambda line: echo(line, to_stderr=True)
        self._digests: dict[str, str] = {}
        self._silent = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)

    def __enter__(self) -> Self:
        """Bring what there is, and begin.

        Raises:
            UserError: The bucket cannot be used, there is no run, or a file of it is damaged.
        """
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._ending.set()
        self._thread.join()

    def look(self) -> None:
        """Bring what is new.

        Raises:
            UserError: As when it was entered.
        """
        new = {path: one for path, one in files_of(self.bucket).items() if self._wanted(path, one)}
        try:
            for path, content, _ in contents(self.bucket, new):
                self._put(path, content)
                self._digests[path] = new[path]["digest"]
        except GoneError:  # there is a newer state, which the next look finds
            return

    def _wanted(self, path: str, one: dict[str, Any]) -> bool:
        shows = path == INFO or path.startswith(f"{TENSORBOARD}/")
        return shows and self._digests.get(path) != one["digest"]

    def _put(self, path: str, content: bytes) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path == INFO:
            file.write_bytes(content)
            return
        with file.open("ab") as out:
            out.write(content[out.tell() :])

    def _work(self) -> None:
        while not self._ending.wait(self._every_s):
            try:
                self.look()
            except (UserError, OSError) as error:
                if not self._silent:
                    self.say(f"TensorBoard shows the run as it was: {error}")
                self._silent = True
            else:
                self._silent = False
