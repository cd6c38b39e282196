"""Data are held against the tasks before a sweep costs anything."""

import pytest

from search.config import DataConfig, SweepConfig
from search.preflight import load_data
from trainables._data import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path / "cache"))


def test_tasks_the_classes_can_fill_are_loaded():
    config = SweepConfig(method="maml", data=DataConfig(size=20, queries=5))
    found = load_data(config)
    assert (found.name, found.size, found.channels) == ("glyphs", 20, 1)


def test_tasks_the_classes_cannot_fill_are_refused_with_the_numbers():
    config = SweepConfig(method="maml", data=DataConfig(size=20, shots=5, queries=5000))
    with pytest.raises(DataError, match="5-way 5-shot with 5000 queries needs 5005 images in each"):
        load_data(config)
