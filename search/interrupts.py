"""Ctrl-C and SIGTERM: once asks the trials to save their state and stop, twice stops at once.

SIGTERM is what Slurm, Kubernetes and a machine that is about to be taken back send.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASKED = "Stopping: each running trial saves its state first; Ctrl-C again stops at once."


class Interrupt:
    """Catches both while it is entered; in the main thread, for no other is told of signals.

    Args:
        say: Writes a line for the user.
        signals: That are caught.
    """

    def __init__(
        self, say: Callable[[str], None], signals: Sequence[signal.Signals] = SIGNALS
    ) -> None:
        self._say, self._signals = say, signals
        self._asked = self._said = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._first) for one in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)

    def asked(self) -> bool:
        """Tell whether either came."""
        return self._asked

    def tick(self) -> None:
        """Say what goes on, once, and outside the signal's handler."""
        if self._asked and not self._said:
            self._said = True
            self._say(ASKED)

    def _first(self, *_: object) -> None:
        self._asked = True
        for one in self._signals:
            signal.signal(one, signal.default_int_handler)
