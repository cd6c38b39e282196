"""What ends a sweep before its trials are done, as Ray Tune asks for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from typing_extensions import override

from search.progress import counted
from search.spending import used_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.recorder import Recorder


@dataclass
class Limits(Stopper):
    """Ends a sweep: wall clock, hours of compute, a plateau, or nothing but the same failure.

    Attributes:
        recorder: The run's.
        hours: Left for this session; None: no limit.
        cpu_hours: For the whole run; None: no limit.
        gpu_hours: For the whole run; None: no limit.
        plateau: Says that the hypervolume stands still; empty while it does not.
        why: Why the sweep ends before its trials are done; empty while it does not.
        hopeless: Whether that is because every trial failed alike.
        interrupted: Tells whether Ctrl-C was pressed: trials save their state, then stop.
    """

    recorder: Recorder
    hours: float | None = None
    cpu_hours: float | None = None
    gpu_hours: float | None = None
    plateau: Callable[[], str] = str
    why: str = ""
    hopeless: bool = False
    interrupted: Callable[[], bool] = bool
    began: float = field(default_factory=time.monotonic)
    _saving: set[str] | None = None  # trials that ran when Ctrl-C was pressed, and still do

    def over(self) -> str:
        """Say why the sweep ends; remembers the first reason."""
        if not self.why:
            self.why = self._spent() or self.plateau() or self._doomed()
        return self.why

    def no_more(self) -> str:
        """Say why no further trial is to be started; empty while they are."""
        return self.over() or ("interrupted" if self.interrupted() else "")

    def look(self, running: set[str]) -> None:
        """Note which trials run, at every turn; after Ctrl-C those are waited for."""
        if self.interrupted():
            self._saving = running if self._saving is None else self._saving & running

    def settle(self, missing: int) -> str:
        """Cut what a limit left running, and say what it stopped.

        One that was reached with the last trial stopped nothing: ``why`` is empty then.

        Args:
            missing: Trials that the run lacks, those left running among them.
        """
        if not self.why or self.hopeless:
            return ""
        left = [n for n in self.recorder.reconcile() if n in self.recorder.records]
        cut = sum(self.recorder.records[n].of is None for n in left)
        for number in left:
            self.recorder.cut(number, self.why)
        if not missing:
            self.why = ""
        counts = {"cut short": cut, "not run": missing - cut}
        return ", ".join(f"{counted(n, 'trial')} {what}" for what, n in counts.items() if n)

    @override
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop a trial that has reported, and so saves its state, once Ctrl-C was pressed."""
        return self.interrupted()

    @override
    def stop_all(self) -> bool:
        """Tell Tune to stop everything."""
        return bool(self.over()) or self._saving == set()

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Nothing travels: Tune pickles it, nobody reads it back."""
        return {}

    def _spent(self) -> str:
        if self.hours is not None and time.monotonic() - self.began > self.hours * 3600:
            return "the wall-clock budget (budget.hours) is used up"
        limits = (self.cpu_hours, self.gpu_hours)
        if limits == (None, None):
            return ""
        return used_up(self.recorder.cost_s, self.recorder.held, limits)

    def _doomed(self) -> str:
        why = self.recorder.hopeless()
        self.hopeless = bool(why)
        return why
