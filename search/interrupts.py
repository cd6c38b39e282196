"""Ctrl-C: once asks the trials to save their state and stop, twice stops at once."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED = "Stopping: each running trial saves its state first; Ctrl-C again stops at once."


class Interrupt:
    """Catches Ctrl-C while it is entered; in the main thread, for no other is told of signals.

    Args:
        say: Writes a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._asked = self._said = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def asked(self) -> bool:
        """Tell whether Ctrl-C was pressed."""
        return self._asked

    def tick(self) -> None:
        """Say what goes on, once, and outside the signal's handler."""
        if self._asked and not self._said:
            self._said = True
            self._say(ASKED)

    def _first(self, *_: object) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
