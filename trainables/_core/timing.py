"""Times that can be believed: warmed up, repeated where noisy, and told with their spread.

Of the laps of one round, each a whole adaptation,

    ms = median,    spread = (q75 - q25) / median,    drift = |median(2nd half) / median(1st) - 1|

Noise is the larger of spread and drift. The first round whose noise is at most ``NOISY`` counts;
where none is so steady, the one of least noise is kept and called noisy, and rejected where its
noise exceeds ``USELESS``: half of the laps then lie as far apart as the time is long.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NOISY, USELESS = 0.25, 1.0  # our defaults; beside other programs' full load 0.3 to 0.5 is usual
ROUNDS = 4  # at most: our default
STEADY, UNSTEADY, REJECTED = "steady", "noisy", "rejected"


@dataclass(frozen=True)
class Timed:
    """Milliseconds after t = 0..T steps.

    Attributes:
        ms: medians.
        p95: 95th percentiles, by interpolation between the laps.
        spread: of the whole adaptation: quartile to quartile, as a share of the median.
        drift: of the whole adaptation: the second half of the laps against the first.
        rounds: how many were run.
        alone: whether nothing else of ours ran meanwhile.
        device: where, in words.
    """

    ms: tuple[float, ...]
    p95: tuple[float, ...]
    spread: float
    drift: float
    rounds: int = 1
    alone: bool = True
    device: str = ""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Timed:
        """Reads what ``asdict`` wrote, by way of JSON.

        Raises:
            TypeError: it is of another form.
        """
        return cls(**{**said, "ms": tuple(said["ms"]), "p95": tuple(said["p95"])})

    @property
    def noise(self) -> float:
        """The larger of spread and drift."""
        return max(self.spread, self.drift)

    @property
    def verdict(self) -> str:
        """Whether the median can be believed: steady, noisy or rejected."""
        if self.noise > USELESS:
            return REJECTED
        return STEADY if self.alone and self.noise <= NOISY else UNSTEADY


def timed(laps: Sequence[Sequence[float]], *, rounds: int = 1, alone: bool = True) -> Timed:
    """One round.

    Args:
        laps: ``[laps][T + 1]``: for each lap the milliseconds after t = 0..T steps; 4 or more.
        rounds: how many were run by now.
        alone: whether nothing else of ours ran meanwhile.
    """
    columns = list(zip(*laps, strict=True))
    whole, half = columns[-1], len(laps) // 2
    low, middle, high = statistics.quantiles(whole, n=4, method="inclusive")
    first, second = statistics.median(whole[:half]), statistics.median(whole[-half:])
    p95 = [statistics.quantiles(column, n=20, method="inclusive")[-1] for column in columns]
    return Timed(
        tuple(map(statistics.median, columns)),
        tuple(p95),
        (high - low) / middle,
        abs(second / first - 1),
        rounds,
        alone,
    )


def repeated(
    laps: Callable[[], Sequence[Sequence[float]]], *, rounds: int = ROUNDS, alone: bool = True
) -> Timed:
    """The first steady round, or the one of least noise.

    Args:
        laps: runs a round, warm-up aside.
        rounds: how many at most.
        alone: whether nothing else of ours runs meanwhile.
    """
    best: Timed | None = None
    for number in range(1, rounds + 1):
        found = timed(laps(), rounds=number, alone=alone)
        if best is None or found.noise < best.noise:
            best = found
        if found.noise <= NOISY:
            return found
    if best is None:
        msg = f"At least one round is timed; found {rounds}."
        raise ValueError(msg)
    return replace(best, rounds=rounds)
