"""A meta-batch in chunks of tasks: over the cores, and within memory.

Tasks do not know of each other, so chunks of them run side by side, one thread each: two threads
on the five images of one task win little, two tasks on two threads win nearly everything. Sums
are taken in the order of the chunks, so that the numbers do not depend on who was first.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainables._core.episodes import Episodes

Part = TypeVar("Part")
Found = TypeVar("Found")

_LOG = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "tasks", torch.set_num_threads, (1,))


def side_by_side(fn: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """``fn`` of every part, in order, on as many threads as torch has here."""
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1 or torch.cuda.is_initialized():
        return [fn(part) for part in parts]
    grad = torch.is_grad_enabled()  # a thread's own, and on in a new one

    def same_mode(part: Part) -> Found:
        with torch.set_grad_enabled(grad):
            return fn(part)

    return list(_workers(torch.get_num_threads()).map(same_mode, parts))


@dataclass
class Chunks:
    """How many tasks go together; it halves itself when memory runs out, and says so."""

    size: int

    def over(self, fn: Callable[[Episodes], Found], episodes: Episodes) -> list[Found]:
        """``fn`` of every chunk of the meta-batch, in order.

        Raises:
            RuntimeError: memory runs out with a single task.
        """
        while True:
            try:
                return side_by_side(fn, episodes.split(self.size))
            except RuntimeError as error:
                if not out_of_memory(error) or min(self.size, episodes.tasks) == 1:
                    raise
                self.size = (min(self.size, episodes.tasks) + 1) // 2
                _LOG.warning("Out of memory; going on with %d tasks at a time.", self.size)
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, of the GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
