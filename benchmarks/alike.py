"""What came of a sweep, and whether two sweeps of the same trials came to the same."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchmarks.empty_trials import steady
from search.results import load_results
from tests.clock import timeless
from trainables._core.student import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spaces._domains import Value


@dataclass(frozen=True)
class Trial:
    """What must be the same however a trial was disturbed."""

    state: str
    config: Mapping[str, Value]
    metrics: Mapping[str, Any]  # but for the clock's
    weights: bytes  # of the student


@dataclass(frozen=True)
class Ran:
    """What came of one sweep.

    Attributes:
        trials: By number.
        front: Numbers.
        seconds: From the first trial that ended to the last: starting processes and scoring the
            front are left out.
        per_hour: Trials, once processes have started; see ``empty_trials.steady``.
        notes: What trials say happened on the way.
        beside: Cores that were busy just before and just after, with everybody else's work.
    """

    trials: Mapping[int, Trial]
    front: Sequence[int]
    seconds: float
    per_hour: float
    notes: Mapping[int, Sequence[str]] = field(default_factory=dict)
    beside: float = 0.0

    @property
    def states(self) -> dict[str, int]:
        """State -> how many trials are in it."""
        return dict(Counter(trial.state for trial in self.trials.values()))


def read(path: Path) -> Ran:
    """What a finished run's files say."""
    results = load_results(path)
    rows = results.trials
    ends = [datetime.fromisoformat(r["ended"]).timestamp() for r in rows]
    trials = {r["id"]: trial_of(r, results.run.trial(r["id"]) / "student" / WEIGHTS) for r in rows}
    return Ran(
        trials,
        [one["id"] for one in results.front()],
        max(ends) - min(ends),
        3600 / steady(ends),
        {r["id"]: r["notes"] for r in rows if r["notes"]},
    )


def trial_of(result: Mapping[str, Any], weights: Path) -> Trial:
    """What is compared of a trial's ``result.json``; one without a student has no weights."""
    stored = weights.read_bytes() if weights.is_file() else b""
    return Trial(result["state"], result["config"], timeless(result["metrics"]), stored)


def same(one: Ran, other: Ran) -> float:
    """Share of the trials of either sweep that are identical in both."""
    return _share(one.trials, other.trials)


def same_front(one: Ran, other: Ran) -> float:
    """Share of the trials on either front that are on both, and identical."""
    return _share(*({n: ran.trials[n] for n in ran.front} for ran in (one, other)))


def _share(one: Mapping[int, Trial], other: Mapping[int, Trial]) -> float:
    either = one.keys() | other.keys()
    if not either:
        return 0.0  # nothing was found, so nothing is shown
    return sum(n in one and n in other and one[n] == other[n] for n in either) / len(either)


def went_on(ran: Ran) -> dict[int, int]:
    """Trial -> the meta-iteration it went on from, where it lost its process and a checkpoint lay.

    Example:
        >>> went_on(Ran({}, [], 0.0, 0.0, {3: ["went on from meta-iteration 40"], 4: ["slow"]}))
        {3: 40}
    """
    found = {n: re.findall(r"went on from meta-iteration (\d+)", " ".join(notes))
             for n, notes in ran.notes.items()}  # fmt: skip
    return {n: int(at[-1]) for n, at in found.items() if at}
