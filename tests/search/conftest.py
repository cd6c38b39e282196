"""Fixtures of the sweeps' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import bundles, fakes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One local Ray for all tests of a session that need one."""
    from search._cluster import connected

    with connected():
        yield


@pytest.fixture
def fake_method(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The method ``fake``, known to the registry."""
    fakes.install(monkeypatch)
    return fakes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A bundle."""
    return bundles.bundle(tmp_path / "bundle")


@pytest.fixture
def support(tmp_path: Path) -> Path:
    """Folders of labelled images."""
    return bundles.folders(tmp_path / "support")


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """The same with others."""
    return bundles.folders(tmp_path / "query", images=4, seed=1000)
