"""What is searched for Lambda patterns: Khabarlak 2022, arXiv 2206.05930.

``checkpoint`` stands first and empty, which means: meta-train by MAML first. Given in a sweep file,
it fixes the network, and the parameters of meta-training are no longer drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces._domains import Choice, Fixed, Float, Int, When

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces._domains import Space, Value

_TRAINS = When("checkpoint", ("",))

SPACE: Space = {
    "checkpoint": Fixed(
        "",
        why="empty: MAML first; a path: patterns of that meta-trained model, without training",
    ),
    "student.width": Int(
        8,
        64,
        log=True,
        when=_TRAINS,
        why="32 filters in the author's CIFAR-FS network; a factor of two above and four below",
    ),
    "student.depth": Int(
        2,
        4,
        when=_TRAINS,
        why="4 blocks give 31 patterns; fewer blocks leave less to freeze",
    ),
    "inner_steps": Int(
        1,
        10,
        why="the table scores every step up to this one; the frozen prefix runs once for them all",
    ),
    "inner_rate": Float(
        0.001,
        1.0,
        log=True,
        why="MAML's published rates 0.01 and 0.4, with a decade to spare below",
    ),
    "outer_rate": Float(
        1e-4,
        1e-2,
        log=True,
        when=_TRAINS,
        why="MAML's Adam rate 0.001 and a decade to either side",
    ),
    "patterns": Choice(
        ("all", "suffixes"),
        stage="adaptation",
        why="all holds every pattern; suffixes are the ones that save most, and quicker to score",
    ),
    "test.steps": Int(
        1,
        10,
        stage="adaptation",
        why="MAML takes more steps at test than in training; all up to 10 cost one run",
    ),
    "test.rate": Float(
        0.001,
        1.0,
        log=True,
        stage="adaptation",
        why="the range of inner_rate: a rate once learnt with may be bettered at test (ours)",
    ),
    "epsilon": Float(
        0.0,
        0.05,
        stage="adaptation",
        why="0 keeps the best accuracy; more than 5 points of it is a different student (ours)",
    ),
}

PUBLISHED: Mapping[str, Mapping[str, Value]] = {
    "Khabarlak 2022, CIFAR-FS": {
        "student.width": 32,
        "student.depth": 4,
        "patterns": "all",
    },
}
