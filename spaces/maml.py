"""What is searched for MAML: Finn, Abbeel, Levine 2017, arXiv 1703.03400.

The other settings of the method (order, adapts, meta_batch, ...) change what is measured or what a
trial costs; they keep their default unless a sweep file gives them a value or a range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces._domains import Float, Int

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces._domains import Space, Value

SPACE: Space = {
    "student.width": Int(
        8,
        64,
        log=True,
        why="64 filters are the paper's Omniglot network; below 8 accuracy falls steeply (ours)",
    ),
    "student.depth": Int(
        2,
        4,
        why="4 blocks in the paper; each block halves the image, so fewer leave more to the head",
    ),
    "inner_steps": Int(
        1,
        10,
        why="1 and 5 in the paper's training, 10 at its test; each step adds its own time",
    ),
    "inner_rate": Float(
        0.001,
        1.0,
        log=True,
        why="0.4 on Omniglot and 0.01 on mini-ImageNet in the paper, with a decade to spare below",
    ),
    "outer_rate": Float(
        1e-4,
        1e-2,
        log=True,
        why="the paper's Adam rate 0.001 and a decade to either side",
    ),
    "test.steps": Int(
        1,
        10,
        stage="adaptation",
        why="the paper's test takes more steps than its training; all up to 10 cost one run",
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
    "Finn et al. 2017, Omniglot, 5-way": {
        "student.width": 64,
        "student.depth": 4,
        "student.norm": "batch",
        "student.head": "linear",
        "student.down": "stride",
        "inner_steps": 1,
        "inner_rate": 0.4,
        "outer_rate": 0.001,
        "meta_batch": 32,
        "order": "second",
        "adapts": "all",
        "normalisation": "transductive",
    },
    "Finn et al. 2017, mini-ImageNet, 5-way 1-shot": {
        "student.width": 32,
        "student.depth": 4,
        "student.norm": "batch",
        "student.head": "linear",
        "student.down": "pool",
        "inner_steps": 5,
        "inner_rate": 0.01,
        "outer_rate": 0.001,
        "meta_batch": 4,
        "order": "second",
        "adapts": "all",
        "normalisation": "transductive",
    },
    "Finn et al. 2017, mini-ImageNet, 5-way 5-shot": {
        "student.width": 32,
        "student.depth": 4,
        "student.norm": "batch",
        "student.head": "linear",
        "student.down": "pool",
        "inner_steps": 5,
        "inner_rate": 0.01,
        "outer_rate": 0.001,
        "meta_batch": 2,
        "order": "second",
        "adapts": "all",
        "normalisation": "transductive",
    },
}
