"""What the doctor says of a sweep and its machines: fine, to be looked at, or in the way.

Pure: facts in, findings out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search._nodes import Answer, Node
    from search.config import ResourcesConfig
    from search.probe import Facts

LEAST_GIB, FEW_GIB = (
    1.0,
    5.0,
)  # free disk below which a sweep stops, or is worth a look; our default
OVERHEAD_MIB = (
    600.0  # of a process on a GPU, besides its tensors: libraries and kernels; our default
)
SPARE = 0.05  # of a GPU's memory that is not planned with; our default
SKEW_S = 2.0  # of a node's clock; our default


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        check: What was looked at.
        state: ``fine``, ``look`` (goes on, but should be known) or ``stops`` (a sweep would fail).
        said: What was found.
        remedy: What to do; empty where nothing is.
    """

    check: str
    state: Literal["fine", "look", "stops"]
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class Step:
    """What one meta-iteration and one validation of a setting took.

    Attributes:
        device: ``cpu`` or the GPU's name.
        seconds: Of both together, with what is done once.
        peak_mib: Memory at the worst moment: of the process on a CPU, of its tensors on a GPU.
        total_mib: Of the GPU; 0 on a CPU.
        failure: Why it came to nothing; empty where it did not.
    """

    device: str
    seconds: float
    peak_mib: float
    total_mib: float = 0.0
    failure: str = ""

    @property
    def share(self) -> float:
        """The share of the GPU that a trial of this setting needs, rounded up to hundredths."""
        if not self.total_mib:
            return 0.0
        usable = (1 - SPARE) * self.total_mib
        return math.ceil(100 * (self.peak_mib + OVERHEAD_MIB) / usable) / 100


def of_answers(answers: Sequence[Answer[Facts]], place: str, bucket: str = "") -> list[Finding]:
    """Judge what several nodes say of themselves and of the storage they share.

    Args:
        answers: Of the nodes.
        place: The directory.
        bucket: That the run is kept in, as it may be shown; empty: none.
    """
    silent = [
        Finding("nodes", "stops", f"{one.node.name}: {one.silence}.",
                "See that it is up and has fewtune installed, with the pins of constraints.txt.")
        for one in answers if one.said is None and not one.lost
    ]  # fmt: skip
    gone = [
        Finding("nodes", "look", f"{one.node.name} was lost while it was asked.",
                "It takes trials once it has joined the cluster again, without being asked.")
        for one in answers if one.lost
    ]  # fmt: skip
    said = {one.node.name: one.said for one in answers if one.said is not None}
    if not silent:
        silent = [Finding("nodes", "fine", f"{_count(len(said), 'node')} answered.")]
    return [*silent, *gone, *of_versions(said), *of_storage(said, place, bucket), *of_disk(said)]


def of_versions(said: Mapping[str, Facts]) -> list[Finding]:
    """Hold the nodes' versions against each other; the most common one is taken for right.

    ``fewtune`` is the digest of its code, not a number.
    """
    if not said:
        return []
    found = []
    for name in next(iter(said.values())).versions:
        each = {node: facts.versions.get(name, "none") for node, facts in said.items()}
        usual = Counter(each.values()).most_common(1)[0][0]
        others = [f"{version} on {node}" for node, version in each.items() if version != usual]
        if others:
            told = f"{name} is {usual} on most nodes, and {', '.join(others)}."
            remedy = "Install the same on all: results from different versions do not compare."
            found.append(Finding("versions", "stops", told, remedy))
    if found:
        return found
    known = next(iter(said.values())).versions
    told = ", ".join(f"{name} {version}" for name, version in known.items())
    return [Finding("versions", "fine", told + ".")]


def afar(said: Mapping[str, Facts]) -> bool:
    """Tell whether the nodes do not share the directory, and save in the bucket then."""
    return any(facts.storage for facts in said.values())


def of_storage(said: Mapping[str, Facts], place: str, bucket: str = "") -> list[Finding]:
    """Say which nodes do not reach the storage: the directory, or else the bucket, all of them."""
    if bucket and afar(said):
        return _of_bucket(said, place, bucket)
    remedy = "mount it there, writable, or keep the run in a bucket (--storage s3://BUCKET/PREFIX)."
    found = [
        Finding(
            "storage",
            "stops",
            f"{node} cannot use {place}: {facts.storage}.",
            f"All nodes need it, to go on with each other's trials: {remedy}",
        )
        for node, facts in said.items()
        if facts.storage
    ]
    fine = Finding(
        "storage", "fine", f"{place} is written and read{' by all nodes' if len(said) > 1 else ''}."
    )
    return found or ([fine] if said else [])


def _of_bucket(said: Mapping[str, Facts], place: str, bucket: str) -> list[Finding]:
    lacking = next(node for node, facts in said.items() if facts.storage)
    remedy = (
        f"All nodes need one of the two, to go on with each other's trials, and {lacking} lacks "
        f"{place}. Have the node's role or environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) "
        "allow to write there."
    )
    found = [
        Finding("storage", "stops", f"{node} cannot use {bucket}: {facts.bucket}.", remedy)
        for node, facts in said.items()
        if facts.bucket
    ]
    told = f"{lacking} lacks {place}, so trials save in {bucket}, which all nodes write and read."
    return found or [Finding("storage", "fine", told)]


def of_disk(said: Mapping[str, Facts]) -> list[Finding]:
    """Say where disks are full or nearly."""
    found, least = [], float("inf")
    for node, facts in said.items():
        for what, gib in facts.free_gib.items():
            least = min(least, gib)
            if gib < FEW_GIB:
                state: Literal["look", "stops"] = "stops" if gib < LEAST_GIB else "look"
                told = f"{node} has {gib:.1f} GiB left for {what}."
                found.append(Finding("disk", state, told, "Make room there."))
    fine = Finding(
        "disk",
        "fine",
        f"At least {least:.0f} GiB are free{' everywhere' if len(said) > 1 else ''}.",
    )
    return found or ([fine] if said else [])


def of_data(said: Mapping[str, Facts]) -> list[Finding]:
    """Say which nodes have the data by themselves; to the others it travels."""
    lacking = [node for node, facts in said.items() if facts.data]
    if not lacking:
        return [Finding("data", "fine", "Read on every node.")] if said else []
    reason = said[lacking[0]].data
    told = f"Not read on {', '.join(lacking)} ({reason}); it gets the driver's copy through Ray."
    return [Finding("data", "look", told, "Put the files there to spare memory and time.")]


def of_clocks(skews: Mapping[str, tuple[float, float]]) -> list[Finding]:
    """Say whose clock is off.

    Args:
        skews: Node -> seconds ahead of the driver's, and by how much that may be wrong.
    """
    off = {node: skew for node, (skew, doubt) in skews.items() if abs(skew) - doubt > SKEW_S}
    if not off:
        return [Finding("clock", "fine", "All clocks agree.")] if skews else []
    words = ", ".join(f"{node} by {skew:+.1f} s" for node, skew in off.items())
    told = f"Clocks differ from the driver's: {words}."
    return [
        Finding("clock", "look", told, "Times of the run's records lie apart; start NTP there.")
    ]


def of_room(
    wanted: ResourcesConfig, nodes: Sequence[Node], free: Mapping[str, float]
) -> list[Finding]:
    """Say whether a trial fits a node, how many do at a time, and why one would wait."""
    asked = f"A trial asks for {wanted.cpu:g} CPU and {wanted.gpu:g} GPU"
    fit = sum(_trials(node.resources, wanted) for node in nodes)
    if not fit and wanted.scales:
        told = (
            f"{asked}; no node has that yet, and trials wait for one that has (resources.scales)."
        )
        return [Finding("room", "look", told, "See that a worker of the cluster's file has it.")]
    if not fit:
        most = max((n.resources for n in nodes), key=lambda r: (r.get("GPU", 0), r.get("CPU", 0)))
        told = f"{asked}; no node has that, the largest {most.get('CPU', 0):g} CPU and "
        told += f"{most.get('GPU', 0):g} GPU. Trials would wait for ever."
        return [Finding("room", "stops", told, "Ask for less (resources in the sweep file).")]
    at_once = min(fit, wanted.concurrent or fit)
    now = _trials(dict(free), wanted)
    told = f"{asked}: {at_once} at a time on {_count(len(nodes), 'node')}."
    if now < 1:
        held = f"free are {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU"
        remedy = "Others hold the rest; trials wait until they let go."
        return [Finding("room", "look", f"{told} At the moment none: {held}.", remedy)]
    return [Finding("room", "fine", told)]


def of_step(step: Step, wanted: ResourcesConfig) -> list[Finding]:
    """Judge a step of the largest setting, and the share of a GPU that it implies."""
    if step.failure:
        remedy = "Narrow the space, or ask for more (resources in the sweep file)."
        told = f"A step of the largest setting failed on {step.device}: {step.failure}."
        return [Finding("step", "stops", told, remedy)]
    told = f"Forward, backward and a validation of the largest setting on {step.device}: "
    told += f"{step.seconds:.1f} s, at most {step.peak_mib:.0f} MiB."
    found = [Finding("step", "fine", told)]
    if not step.total_mib:
        return found
    share = f"The largest setting needs {step.share:.2f} of {step.device}"
    if wanted.gpu < min(1.0, step.share):
        told = f"{share}, and a trial asks for {wanted.gpu:g}."
        remedy = f"`--set resources.gpu={min(1.0, step.share):.2f}`, or narrow the space."
        return [*found, Finding("gpu", "stops", told, remedy)]
    return [*found, Finding("gpu", "fine", f"{share}; a trial asks for {wanted.gpu:g}.")]


def _trials(resources: Mapping[str, float], wanted: ResourcesConfig) -> int:
    fit = [resources.get("CPU", 0) / wanted.cpu]
    if wanted.gpu:
        fit.append(resources.get("GPU", 0) / wanted.gpu)
    return int(min(fit) + 1e-9)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
