"""Each fault of a cluster once, on three hosts of real processes; ``make faults`` repeats them."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import pytest

from tests import hosts
from tests.faults import FAULTS, TRIALS, ended, sweep
from tests.lost import FAULTS as ALONE
from tests.processes import end, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[hosts.Cluster]:
    """Three hosts, where they can be had."""
    if why := hosts.missing():
        pytest.skip(why)
    with hosts.cluster() as ours:
        yield ours


@pytest.mark.parametrize("name", FAULTS)
def test_a_sweep_survives(
    name: str, cluster: hosts.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import fakes

    fakes.install(monkeypatch)
    FAULTS[name][0](cluster, tmp_path / name, random.Random(f"{name} 0"))


@pytest.mark.timeout(900)  # the bucket, what makes it fail and the sweep share two cores
@pytest.mark.parametrize("name", ALONE)
def test_a_sweep_survives_without_hosts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import fakes

    fakes.install(monkeypatch)
    ALONE[name][0](tmp_path / name, random.Random(f"{name} 0"))


@pytest.mark.parametrize("sign", ["run", "run/.fewtune-marker-*"], ids=["before", "while"])
def test_a_sweep_begins_though_a_node_dies_as_it_is_asked(
    sign: str, cluster: hosts.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes it for alive, and for a while says that it is dead and lists it."""
    from tests import fakes

    fakes.install(monkeypatch)
    raylet = cluster.workers[1].raylet()
    with sweep(cluster, tmp_path / "late", random.Random(sign)) as ours:
        until(lambda: any(ours.folder.glob(sign)), within_s=240)
        end(raylet)
        ours.finish()
        assert len(ended(ours.run)) == TRIALS
        assert f"({cluster.workers[1].address}) was lost while it was asked" in ours.said
    cluster.rejoin()


def test_a_client_without_the_token_is_refused(cluster: hosts.Cluster, tmp_path: Path) -> None:
    token, log = tmp_path / "token", tmp_path / "log"
    token.write_text("f" * 64, "utf-8")
    asked = cluster.head.popen(
        sys.executable, "-c", hosts._ALIVE, cluster.address, log=log,
        RAY_AUTH_TOKEN_PATH=str(token),
    )  # fmt: skip
    assert asked.wait(timeout=60) == 1
    assert "token" in log.read_text("utf-8").lower()
