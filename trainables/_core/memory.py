"""Peak memory of an adaptation, measured: the bytes of all its tensors at the worst moment.

What counts is what adapting to one task takes on top of the student's stored weights and the
task's support images: views, maps, patches, gradients, the task's own copy of what is updated, and
what is made once and stays: for a shape the index lists of gather and scatter, for labels the room
for the errors of a head that is updated alone. What is alive together counts together; a tensor
that is gone makes room.

On a CPU every operation of torch is watched and every storage counted from its making to its end,
so two measurements agree to the byte; what a routine borrows within one call is not seen: torch's
own convolution, which large maps take, lays its patches out there. On a GPU torch's own allocator
tells its peak, in its own blocks.
"""

from __future__ import annotations

import resource
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # torch's notes on extending it
from typing_extensions import override

from trainables._core import kernels
from trainables._core.cost import MIB
from trainables._core.evaluate import on_a_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from trainables._core.episodes import Episodes
    from trainables._core.evaluate import Setting
    from trainables._core.networks import Network

STEPS = 2  # the second step meets all that a step can meet; later ones need no more to speak of


def held_mib(device: str) -> float | None:
    """Mebibytes that this process holds now: of a GPU's allocator, else resident.

    Returns:
        None where the system does not tell.
    """
    if device != "cpu":
        return torch.cuda.memory_reserved() / MIB
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize() / MIB


def adapt_mib(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    episodes: Episodes,
    setting: Setting,
    pattern: str,
) -> float:
    """Mebibytes that adapting to one task needs at its worst moment.

    Args:
        network: the student.
        meta: its meta-parameters, not counted.
        episodes: one task; its support images are not counted.
        setting: steps, rate, ways, views and mode.
        pattern: what is updated.
    """
    short = replace(setting, steps=min(setting.steps, STEPS))

    def fresh() -> Callable[[], None]:
        """By a network that holds no index lists yet."""
        return partial(on_a_device, replace(network), meta, episodes, short, pattern)

    once = fresh()
    once()  # index lists are made, and a GPU's libraries take what they keep for good
    if episodes.support.is_cuda:
        return _allocated(fresh, episodes.support.device) / MIB
    given = [*meta.values(), episodes.support, episodes.support_labels]
    ledger = Ledger(given)
    with ledger:
        once()
    return (ledger.peak + ledger.found) / MIB


def _allocated(fresh: Callable[[], Callable[[], None]], device: torch.device) -> int:
    kernels.forget()
    before: int = torch.cuda.memory_allocated(device)
    once = fresh()
    once()
    torch.cuda.reset_peak_memory_stats(device)
    once()
    peak: int = torch.cuda.max_memory_allocated(device)
    return peak - before


class Ledger(TorchDispatchMode):
    """Bytes of the tensors that operations make, from their making to their end.

    Attributes:
        live: of tensors made here and still there.
        peak: the most that were ever live together.
        found: of tensors that were there already and were read, the ``given`` ones aside.
    """

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.found = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in given:
            self._enter(tensor.untyped_storage(), 0)

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for storage in self._unknown((*args, *(kwargs or {}).values())):
            self.found += storage.nbytes()
            self._enter(storage, 0)
        out = func(*args, **(kwargs or {}))
        for storage in self._unknown(out):
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            self._enter(storage, storage.nbytes())
        return out

    def _unknown(self, tree: object) -> Iterator[torch.UntypedStorage]:
        if isinstance(tree, torch.Tensor):
            storage = tree.untyped_storage()
            if id(storage) not in self._known:
                yield storage
        elif isinstance(tree, list | tuple):
            for branch in tree:
                yield from self._unknown(branch)

    def _enter(self, storage: torch.UntypedStorage, size: int) -> None:
        key = id(storage)
        self._known[key] = weakref.ref(storage, lambda _: self._leave(key, size))

    def _leave(self, key: int, size: int) -> None:
        del self._known[key]
        self.live -= size
