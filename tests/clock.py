"""What of a trial's numbers depends on the clock, in one place: all else is the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

CLOCK = frozenset({
    "adapt_ms", "adapt_ms_p95", "adapt_ms_spread", "adapt_timing", "adapt_speedup", "lease_s",
    "predicted_ms", "prediction_error", "train_seconds", "iterations_per_s", "tasks_per_s",
    "process_mib",
})  # fmt: skip


def timeless(numbers: Mapping[str, T]) -> dict[str, T]:
    """Metrics, or a row of a table, without what the clock says."""
    return {name: value for name, value in numbers.items() if name not in CLOCK}
