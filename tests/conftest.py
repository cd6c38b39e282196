"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Give tests a Ctrl-C that works: a background job starts with it ignored and hands that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
