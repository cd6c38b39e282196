"""Ctrl-C and SIGTERM: once is a question, twice an order."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from search._limits import Limits
from search.interrupts import ASKED, SIGNALS, Interrupt


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_once_asks_and_says_so_once_and_twice_ends(
    first: signal.Signals, second: signal.Signals
) -> None:
    said: list[str] = []
    before = [signal.getsignal(one) for one in SIGNALS]
    interrupt = Interrupt(said.append)
    with interrupt:
        interrupt.tick()
        assert not interrupt.asked()
        assert not said
        os.kill(os.getpid(), first)
        for _ in range(2):
            interrupt.tick()
        assert interrupt.asked()
        assert said == [ASKED]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_another_thread_leaves_the_signal_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[Any] = []

    def work() -> None:
        with Interrupt(seen.append):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_sweep_waits_for_those_that_ran_when_it_was_asked_and_for_no_others() -> None:
    pressed: list[bool] = []
    recorder = cast("Any", SimpleNamespace(hopeless=str))
    limits = Limits(recorder, interrupted=lambda: bool(pressed))
    limits.look({"a", "b"})
    assert not limits("a", {})
    assert not limits.no_more()
    pressed.append(True)
    limits.look({"a", "b"})
    assert limits("a", {})
    assert limits.no_more() == "interrupted"
    assert not limits.why, "the trials are not cut, as they would be by a budget"
    limits.look({"b", "c"})
    assert not limits.stop_all()
    limits.look({"c"})
    assert limits.stop_all()
