"""Accuracy lost where it hurts: in the hardest tasks, on tasks that both sides met.

Tasks are ordered by the mean of the two accuracies compared, A_i(full) + A_i(chosen), and the
hardest fifth of them is one group. Ordered by A_i(full) alone, tasks in which the full pattern was
merely unlucky would gather there and the drop would come out too small [our choice].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trainables._core.evaluate import Accuracies
    from trainables._core.race import Key

HARDEST = 0.2  # of the tasks, rounded up: our default


def drop_in_hardest(full: torch.Tensor, chosen: torch.Tensor) -> float:
    """Mean of ``full - chosen`` over the hardest fifth of the tasks.

    Args:
        full: accuracy of each task ``[tasks]`` with the pattern of meta-training.
        chosen: of the same tasks ``[tasks]``, with the chosen one.

    Raises:
        ValueError: they are of different numbers of tasks, or of none.

    Example:
        >>> full = torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0])
        >>> round(drop_in_hardest(full, torch.tensor([1.0, 0.25, 1.0, 0.75, 1.0])), 2)
        0.25
    """
    if len(full) != len(chosen) or not len(full):
        msg = (
            f"Accuracies are compared task by task; found {len(full)} tasks of the one and "
            f"{len(chosen)} of the other."
        )
        raise ValueError(msg)
    order = torch.argsort((full + chosen).double(), stable=True)
    worst = order[: math.ceil(HARDEST * len(full))]
    return float((full[worst].double() - chosen[worst].double()).mean())


def right_answers(
    accuracies: Accuracies, chosen: Key, full: Key, *, images: int, seed: int
) -> dict[str, object]:
    """Right answers of each task, for later comparisons in pairs; JSON-ready.

    Args:
        accuracies: of all (pattern, step) that were scored.
        chosen: the one that was taken.
        full: the one it is held against.
        images: query images of a task.
        seed: of the tasks: trials with the same met the same tasks.
    """

    def counts(key: Key) -> list[int]:
        return [round(value * images) for value in accuracies[key].tolist()]

    return {"seed": seed, "images": images, "right": counts(chosen), "right_full": counts(full)}
