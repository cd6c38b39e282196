"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A background job is started with Ctrl-C ignored, and hands that on; tests that send it care."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
