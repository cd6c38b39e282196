"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# Hypothesis' own, which it takes by itself on a CI that it knows: a busy machine fails nothing, and
# what failed fails again; `pytest --hypothesis-profile default` draws anew
settings.load_profile("ci")


def pytest_configure() -> None:
    """Give tests a Ctrl-C that works: a background job starts with it ignored and hands that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
