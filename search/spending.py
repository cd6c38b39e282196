"""What a run cost, what it got for it, and what early stopping saved.

A stopped trial's saving is an estimate: the meta-iterations it had left, at its own pace until
then. Its ending (the table of patterns) would have come on top and is not counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from search.rundir import STOPPED_EARLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Spending:
    """The compute of a run's trials.

    Attributes:
        trial_hours: Hours that trials held their resources, added up.
        cpu_hours: The same, times the CPU cores of a trial.
        gpu_hours: The same, times the GPUs of a trial.
        hypervolume_per_hour: Hypervolume over GPU-hours where trials hold GPUs, else over
            CPU-hours; None without either.
        saved_hours: Estimate of the trial hours that early stopping saved.
        stopped: How many trials that estimate is of.
        refused: Configurations refused before training; they cost nothing.
    """

    trial_hours: float
    cpu_hours: float
    gpu_hours: float
    hypervolume_per_hour: float | None
    saved_hours: float
    stopped: int
    refused: int

    def to_json(self) -> dict[str, Any]:
        """Return the part ``spending`` of ``results --json``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Say it to people."""
        unit = "GPU" if self.gpu_hours else "CPU"
        hours = self.gpu_hours or self.cpu_hours
        line = f"cost: {hours:.3g} {unit}-hours"
        if self.hypervolume_per_hour is not None:
            line += f"; hypervolume {self.hypervolume_per_hour:.3g} per {unit}-hour"
        if not self.stopped:
            return [line] if hours else []
        share = self.saved_hours / (self.trial_hours + self.saved_hours)
        saved = (
            f"early stopping saved about {100 * share:.0f} % of the trial time without it "
            f"({self.saved_hours:.3g} h; an estimate from each stopped trial's own pace)"
        )
        return [line, saved]


def spending(
    trials: Iterable[Mapping[str, Any]],
    *,
    iterations: int,
    cpu: float,
    gpu: float,
    hypervolume: float | None,
) -> Spending:
    """Add up what trials cost.

    Args:
        trials: As their ``result.json`` has them.
        iterations: Meta-iterations of a full trial.
        cpu: CPU cores that one trial holds.
        gpu: GPUs that one trial holds.
        hypervolume: Of the run; None where it has none.
    """
    known = list(trials)
    hours = sum(float(t["cost_s"]) for t in known) / 3600
    unit_hours = hours * (gpu or cpu)
    per_hour = None if hypervolume is None or not unit_hours else hypervolume / unit_hours
    savings = [saved_s(t, iterations) for t in known]
    stopped = [s for s in savings if s is not None]
    return Spending(
        trial_hours=hours,
        cpu_hours=hours * cpu,
        gpu_hours=hours * gpu,
        hypervolume_per_hour=per_hour,
        saved_hours=sum(stopped) / 3600,
        stopped=len(stopped),
        refused=sum(t["state"] == "REFUSED" for t in known),
    )


def used_up(
    seconds: float, held: tuple[float, float], limits: tuple[float | None, float | None]
) -> str:
    """Say which budget of compute is used up; an empty string while none is.

    Args:
        seconds: That trials held their resources, added up.
        held: CPU cores and GPUs of one trial.
        limits: ``budget.cpu_hours`` and ``budget.gpu_hours``; None: no limit.

    Example:
        >>> used_up(7200, (2.0, 0.0), (4.0, None))
        'the budget of 4 CPU-hours (budget.cpu_hours) is used up'
        >>> used_up(7100, (2.0, 0.0), (4.0, 1.0))
        ''
    """
    for unit, share, limit in zip(("CPU", "GPU"), held, limits, strict=True):
        if limit is not None and share and seconds * share / 3600 >= limit:
            key = f"budget.{unit.lower()}_hours"
            return f"the budget of {limit:g} {unit}-hours ({key}) is used up"
    return ""


def saved_s(trial: Mapping[str, Any], iterations: int) -> float | None:
    """Estimate the seconds that stopping a trial early saved; None where it was not stopped so.

    Example:
        >>> trial = {"state": "PRUNED", "stopped": "stopped early at ...", "cost_s": 10.0}
        >>> saved_s({**trial, "reports": [{"iteration": 20}]}, 100)
        40.0
    """
    early = trial["state"] == "PRUNED" and str(trial.get("stopped")).startswith(STOPPED_EARLY)
    reports = trial.get("reports") or []
    at = int(reports[-1]["iteration"]) if reports else 0
    if not early or at < 1:
        return None
    return float(trial["cost_s"]) / at * max(0, iterations - at)
