"""Contenders in turns, so that whatever else the machine does befalls them all alike."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Seconds = dict[str, list[float]]  # contender -> its time in every round

FEW = 2  # rounds that decide a contender's best form


@dataclass(frozen=True)
class Contender:
    """Something to time, with the number of threads it is given."""

    name: str
    run: Callable[[], object]
    threads: int = 1


def threads_said(count: int) -> str:
    """1 thread, 2 threads."""
    return f"{count} thread" + "s" * (count != 1)


@dataclass(frozen=True)
class Ratio:
    """How many times slower, the median over rounds, and the middle half of the rounds."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> str:
        """The same in words."""
        return f"middle half of rounds {self.low:.2f} to {self.high:.2f}"


def in_turns(
    contenders: Sequence[Contender], *, rounds: int, repeats: int = 1, device: str = "cpu"
) -> Seconds:
    """Seconds of one run, round by round, every contender in each round, the order reversed.

    Args:
        contenders: whom to time.
        rounds: how often all of them have their turn.
        repeats: runs of a turn, whose median counts; one more goes before them if there are any.
        device: where they run.
    """
    found: Seconds = {c.name: [] for c in contenders}
    before = torch.get_num_threads()
    for turn in range(rounds + 1):
        for c in contenders if turn % 2 else reversed(contenders):
            torch.set_num_threads(c.threads)
            if repeats > 1:
                c.run()
            seconds = statistics.median(_seconds(c, device) for _ in range(repeats))
            if turn:  # the first round warms up
                found[c.name].append(seconds)
    torch.set_num_threads(before)
    return found


def _seconds(contender: Contender, device: str) -> float:
    started = _now(device)
    contender.run()
    return _now(device) - started


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def best_form(
    forms: Iterable[Contender], *, name: str, repeats: int = 1, device: str = "cpu"
) -> tuple[Contender, str]:
    """The fastest of a contender's forms under ``name``, and which one that was."""
    forms = list(forms)
    found = in_turns(forms, rounds=FEW, repeats=repeats, device=device)
    best = min(forms, key=lambda form: min(found[form.name]))
    return Contender(name, best.run, best.threads), best.name


def ratio(times: Seconds, slow: str, fast: str) -> Ratio:
    """``slow`` over ``fast``, round by round."""
    each = [s / f for s, f in zip(times[slow], times[fast], strict=True)]
    if len(each) < 2:
        return Ratio(each[0], each[0], each[0])
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(middle, low, high)


def milliseconds(times: Seconds, name: str) -> float:
    """The median over rounds."""
    return statistics.median(times[name]) * 1e3
