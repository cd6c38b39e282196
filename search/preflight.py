"""What is held against the data before a sweep costs anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables._data import Dataset, check_shape, load

if TYPE_CHECKING:
    from search.config import SweepConfig


def load_data(config: SweepConfig) -> Dataset:
    """Load a sweep's data, from the cache where it was decoded before, and check its tasks.

    Raises:
        DataError: The data is missing or wrong, or its classes cannot fill the tasks.
    """
    data = config.data
    found = load(
        data.source,
        root=data.path,
        size=data.size,
        channels=data.channels,
        split=data.split,
        seed=data.seed,
    )
    check_shape(found, data.ways, data.shots, data.queries)
    return found
