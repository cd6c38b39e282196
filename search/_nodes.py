"""Ray's nodes, asked one by one: each question is a task bound to its node.

Needs a connected Ray; ``_cluster.py`` connects.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as NodeAffinity

from search.probe import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE_S = 75.0  # Ray takes 65 to give a machine up that has fallen silent; our default
NOTICED_S, LOOK_S = 30.0, 0.5  # it takes 15 where the process died, and is looked at so often

Asked = TypeVar("Asked")
Said = TypeVar("Said")


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: how people call it, how Ray does, and what it has in all."""

    name: str
    id: str
    resources: dict[str, float]


@dataclass(frozen=True)
class Answer(Generic[Said]):
    """What a node answered; else why it did not, and whether it is lost since."""

    node: Node
    said: Said | None
    silence: str = ""
    lost: bool = False


def nodes() -> list[Node]:
    """Return the machines that are alive."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [n for n in found if n["Alive"]]
    names = [f"{n['NodeManagerHostname']} ({n['NodeManagerAddress']})" for n in alive]
    return [  # several nodes on one machine, as in tests, are told apart by Ray's name
        Node(name if names.count(name) == 1 else f"{name} {n['NodeID'][:6]}", n["NodeID"],
             n["Resources"])
        for name, n in zip(names, alive, strict=True)
    ]  # fmt: skip


def on_every_node(
    function: Callable[[Asked], Said],
    asked: Asked,
    *,
    patience_s: float = PATIENCE_S,
    among: Sequence[Node] | None = None,
) -> list[Answer[Said]]:
    """Run a function once on each node, beside whatever runs there.

    One that dies meanwhile is ``lost``; by the return Ray knows of it too, or has had its time.

    Args:
        function: What to run; each node imports it from its own installation.
        asked: Its argument.
        patience_s: Seconds after which a node counts as silent.
        among: The nodes; None: all.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    sent = [
        (node, task.options(scheduling_strategy=NodeAffinity(node.id, soft=False)).remote(asked))
        for node in (nodes() if among is None else among)
    ]
    until = time.monotonic() + patience_s
    answers = [_answer(node, reference, until - time.monotonic()) for node, reference in sent]
    if all(one.said is not None for one in answers):
        return answers
    alive = _alive_without({one.node.id for one in answers if one.lost})
    lost = [one.lost or (one.said is None and one.node.id not in alive) for one in answers]
    return [replace(one, lost=gone) for one, gone in zip(answers, lost, strict=True)]


def _alive_without(lost: set[str]) -> set[str]:
    """Return who is alive, as soon as Ray knows of the lost; nothing is planned on them then."""
    until = time.monotonic() + NOTICED_S
    while (alive := {node.id for node in nodes()}) & lost and time.monotonic() < until:
        time.sleep(LOOK_S)
    return alive


def as_a_trial(
    function: Callable[..., Said], *asked: object, cpu: float, gpu: float, patience_s: float
) -> Answer[Said]:
    """Run a function where a trial would run, holding what a trial holds."""
    task = ray.remote(num_cpus=cpu, num_gpus=gpu, max_retries=0)(function)
    reference = task.remote(*asked)
    answer = _answer(Node("a node", "", {}), reference, patience_s)
    if answer.said is None:
        ray.cancel(reference, force=True)
    return answer


def free() -> dict[str, float]:
    """Return what nobody holds at the moment, on all nodes together."""
    left: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return left


def _answer(node: Node, reference: ray.ObjectRef[Said], wait_s: float) -> Answer[Said]:
    try:
        return Answer(node, ray.get(reference, timeout=max(0.1, wait_s)))
    except ray.exceptions.GetTimeoutError:
        return Answer(node, None, "it did not answer in time")
    except ray.exceptions.NodeDiedError as error:
        return Answer(node, None, first_line(error), lost=True)
    except (ray.exceptions.RayError, ImportError) as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, ImportError):
            return Answer(node, None, f"fewtune cannot be imported there ({first_line(cause)})")
        return Answer(node, None, first_line(cause))
