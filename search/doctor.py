"""``fewtune doctor``: would a sweep run here, and if not, what to do.

Nothing is left behind: what is written to try the storage is deleted.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from search import findings, registry
from search.addresses import RUNS, is_address, shown
from search.bucket import check_bucket
from search.errors import UserError
from search.findings import Finding
from search.preflight import check_gpu, check_networks, check_study, load_data
from search.probe import Facts, Question, marked, now, probe, standing
from trainables._data import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from search.config import ResourcesConfig, SweepConfig
    from spaces._domains import Value
    from trainables._data import Dataset

STEP_S, CLOCK_S = 300.0, 20.0  # patience with a step of the method, and with a clock; our default
_COLOURS = {"fine": "green", "look": "yellow", "stops": "red"}


@dataclass(frozen=True)
class Report:
    """The doctor's findings, in the order in which they were made."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing would stop a sweep."""
        return all(one.state != "stops" for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"healthy": self.healthy, "findings": [asdict(one) for one in self.findings]}

    def print(self, console: Console) -> None:
        """Print a table: what was looked at, how it is, what was found and what to do."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in ("check", "", "found", "do"):
            table.add_column(head, no_wrap=head in ("check", ""))
        for one in self.findings:
            colour = _COLOURS[one.state]
            state = f"[{colour}]{one.state}[/{colour}]"
            table.add_row(one.check, state, escape(one.said), escape(one.remedy))
        console.print(table, highlight=False)


def examine(
    config: SweepConfig, address: str | None = None, storage: str | Path | None = None
) -> Report:
    """Look at everything that a sweep needs, as far as what is found wrong allows.

    Args:
        config: The sweep.
        address: Of a Ray cluster; None: this machine, without starting Ray.
        storage: Where run directories are made; None: the file's.
    """
    found: list[Finding] = []
    data: Dataset | None = None
    with _noting(found, "data"):
        data = load_data(config)
        found.append(Finding("data", "fine", f"{data.name}, {data.size} px: {_tasks(config)} fit."))
    with _noting(found, "study"):
        check_study(config)
    if data is not None:
        with _noting(found, "space"):
            check_networks(config, data)
            found.append(Finding("space", "fine", "Networks at its limits fit the images."))
    place = str(storage or config.storage)
    machines: list[Finding] = []
    with _noting(machines, "cluster"):
        there = standing(Path(RUNS if is_address(place) else place))
        if address is None:
            machines += _this_machine(config, data, there)
        else:
            machines += _cluster(config, data, there, address, place if is_address(place) else "")
    if is_address(place):
        with _noting(found, "bucket"):
            check_bucket(place)
            found.append(Finding("bucket", "fine", f"{shown(place)} is written and read."))
    found += machines
    return Report(tuple(found))


def _this_machine(config: SweepConfig, data: Dataset | None, place: Path) -> list[Finding]:
    from search.largest import largest, step_here  # noqa: PLC0415 - torch, where there is data

    here = {"this machine": probe(Question(str(place)))}
    found = [
        *findings.of_versions(here),
        *findings.of_storage(here, str(place)),
        *findings.of_disk(here),
    ]
    with _noting(found, "gpu"):
        check_gpu(config)
    found += _own_room(config.resources)
    if data is not None and all(one.state != "stops" for one in found):
        settings = largest(config, data.channels, data.size)
        found += findings.of_step(step_here(config, settings), config.resources)
    return found


def _own_room(wanted: ResourcesConfig) -> list[Finding]:
    cores = os.cpu_count() or 1
    if wanted.cpu > cores:
        told = f"A trial asks for {wanted.cpu:g} CPU, and this machine has {cores}."
        return [Finding("room", "stops", told, "Ask for less (resources.cpu in the sweep file).")]
    at_once = min(int(cores / wanted.cpu + 1e-9), wanted.concurrent or cores)
    return [Finding("room", "fine", f"{at_once} of its trials at a time fit {cores} CPU.")]


def _cluster(
    config: SweepConfig, data: Dataset | None, place: Path, address: str, bucket: str
) -> list[Finding]:
    from search import _nodes  # noqa: PLC0415 - Ray, where there is a cluster
    from search._cluster import SharedData, connected  # noqa: PLC0415

    with connected(address):
        shared = None if data is None else SharedData.of(config.data, data.fingerprint)
        with marked(place) as marker:
            question = Question(str(place), marker, shared, bucket)
            answers = _nodes.on_every_node(probe, question)
        said: dict[str, Facts] = {a.node.name: a.said for a in answers if a.said is not None}
        found = findings.of_answers(answers, str(place), shown(bucket))
        found += findings.of_data(said) if data is not None else []
        found += findings.of_clocks(_skews())
        room = findings.of_room(config.resources, _nodes.nodes(), _nodes.free())
        found += room
        if data is not None and shared is not None and room[0].state == "fine":
            from search.largest import largest  # noqa: PLC0415

            settings = largest(config, data.channels, data.size)
            found += _step_there(config, settings, shared.for_all_nodes(data))
    return found


def _step_there(config: SweepConfig, settings: Mapping[str, Value], data: Any) -> list[Finding]:  # noqa: ANN401 - SharedData
    from search import _nodes  # noqa: PLC0415
    from search.largest import step  # noqa: PLC0415

    wanted = config.resources
    answer = _nodes.as_a_trial(
        step, config, dict(settings), data, registry.carry(config.method),
        cpu=wanted.cpu, gpu=wanted.gpu, patience_s=STEP_S,
    )  # fmt: skip
    if answer.said is None:
        told = f"A step of the largest setting did not end: {answer.silence}."
        return [Finding("step", "stops", told, "Narrow the space, or look into Ray's logs.")]
    return findings.of_step(answer.said, wanted)


def _skews() -> dict[str, tuple[float, float]]:
    """Ask each node for its time, once its worker is warm; it was read within the round trip."""
    from search import _nodes  # noqa: PLC0415

    _nodes.on_every_node(now, None, patience_s=CLOCK_S)
    found = {}
    for node in _nodes.nodes():
        sent = time.time()
        answers = _nodes.on_every_node(now, None, patience_s=CLOCK_S, among=[node])
        back = time.time()
        if (clock := answers[0].said) is not None:
            found[node.name] = (clock - (sent + back) / 2, (back - sent) / 2)
    return found


@contextmanager
def _noting(found: list[Finding], check: str) -> Iterator[None]:
    """Turn the user's mistake inside into a finding."""
    try:
        yield
    except (UserError, DataError) as error:
        found.append(Finding(check, "stops", str(error)))


def _tasks(config: SweepConfig) -> str:
    data = config.data
    return f"{data.ways}-way {data.shots}-shot tasks with {data.queries} queries"
