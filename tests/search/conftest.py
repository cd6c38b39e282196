"""Fixtures of the sweeps' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import fakes

if TYPE_CHECKING:
    from collections.abc import Iterator


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
