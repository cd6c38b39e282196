"""Caches of their own; the real data where FEWTUNE_DATA names it."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of its own, which is also the default one."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FEWTUNE_CACHE", str(folder))
    monkeypatch.delenv("FEWTUNE_DATA", raising=False)
    return folder


@pytest.fixture(scope="session")
def real_root():
    """The folder with the real archives."""
    named = os.environ.get("FEWTUNE_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("needs the real archives: set FEWTUNE_DATA to their folder")
    return Path(named)


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory):
    """One cache for all tests of real data: each source is decoded once."""
    return tmp_path_factory.mktemp("real-cache")
