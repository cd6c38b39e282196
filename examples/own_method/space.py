"""What is searched for Reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces._domains import Float, Int

if TYPE_CHECKING:
    from spaces._domains import Space

SPACE: Space = {
    "student.width": Int(8, 64, log=True, why="64 filters on Omniglot in the paper, 32 elsewhere"),
    "inner_steps": Int(1, 10, why="5 and 8 in the paper; more steps carry the weights further"),
    "inner_rate": Float(0.01, 1.0, log=True, why="plain descent needs more than the paper's Adam"),
    "step": Float(0.1, 1.0, log=True, why="1 in the paper, falling to 0; a decade below it"),
    "epsilon": Float(0.0, 0.05, stage="adaptation", why="0 keeps the best accuracy of the table"),
}

PUBLISHED = {"Nichol et al. 2018, Omniglot": {"student.width": 64, "inner_steps": 5, "step": 1.0}}
