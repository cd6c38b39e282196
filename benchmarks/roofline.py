"""Cost against the limit: counted operations over time, as a share of what the machine multiplies.

    python -m benchmarks.roofline [--device cuda]

The limit is the fastest large matrix product of this machine, on as many threads as the work has.
Between the two lies the rate of the work's own matrix products, run alone one after the other: what
is lost there is lost to their small shapes, the rest to everything around them. Operations are two
for each multiply-accumulate of convolutions and matrix products, counted as they are called. The
profiles beside the rows are torch.profiler's, the operations with the most time of their own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from benchmarks.record import Row, save
from benchmarks.timing import Contender, in_turns, milliseconds, ratio, threads_said
from trainables._core.episodes import Episodes
from trainables._core.evaluate import Setting, on_a_device
from trainables._core.networks import conv4
from trainables._core.outer import MetaOptimiser
from trainables._core.patterns import full
from trainables._core.rig import maml_update, student_rig
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._data import load
from trainables._learner import TaskShape

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 1024  # of the large product's matrices
WAYS = 5
TOP = 15  # operations of a profile
PROFILED = 5  # runs
ATEN = torch.ops.aten
IN_PLACE = (ATEN.addmm_, ATEN.baddbmm_)  # which torch's counter does not know
PRODUCTS = (ATEN.mm, ATEN.bmm, ATEN.addmm, ATEN.baddbmm, *IN_PLACE)


@dataclass(frozen=True)
class Work:
    """Something to hold against the limit, and the threads it is given."""

    name: str
    run: Callable[[], object]
    threads: int


class Products(TorchDispatchMode):
    """Takes down the matrix products that are called, for running them alone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in PRODUCTS:
            own = tuple(a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args)
            self.calls.append((func, own, kwargs or {}))
        return func(*args, **(kwargs or {}))

    @torch.inference_mode()
    def again(self) -> None:
        """All of them, one after the other."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--meta-batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=28, help="px of an image")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5, help="runs of a turn, adaptation")
    parser.add_argument("--threads", type=int, default=2, help="of meta-training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="roofline")
    return parser.parse_args()


def adaptation(args: argparse.Namespace, pattern: str) -> Callable[[], object]:
    """One task adapted with a pattern, and the statistics a prediction needs."""
    network = conv4((1, args.size, args.size), width=args.width, head="shared", ways=WAYS)
    generator = torch.Generator().manual_seed(0)
    meta = {n: p.to(args.device) for n, p in network.init(generator).items()}
    images = torch.randn(1, WAYS, args.size, args.size, 1, generator=generator).to(args.device)
    labels = torch.arange(WAYS, device=args.device)
    task = Episodes(images, labels, images, labels, 1, WAYS)
    setting = Setting(args.steps, 0.1, WAYS, 0, inductive=True)
    return lambda: on_a_device(network, meta, task, setting, pattern)


def meta_training(args: argparse.Namespace) -> Callable[[], object]:
    """One meta-iteration of second-order MAML, as a trial runs it."""
    config = MethodConfig(
        student=StudentSettings(width=args.width),
        inner_steps=args.steps,
        meta_batch=args.meta_batch,
    )
    data = load("glyphs", size=args.size)
    rig = student_rig(config, data, TaskShape(WAYS, 1, 15), seed=0, device=args.device)
    outer, episodes = MetaOptimiser(rig.meta, config.outer_rate, 10**6), rig.episodes()
    return lambda: maml_update(rig, outer, episodes)


def _in_place(_into: object, a: list[int], b: list[int], **_rest: object) -> int:
    """Operations of a product added to what is there."""
    return 2 * prod(a) * b[-1]


def operations(work: Work) -> int:
    """Two for each multiply-accumulate, counted on one thread, which sees every call."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    known = dict.fromkeys(IN_PLACE, _in_place)
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work.run()
    torch.set_num_threads(before)
    return int(counter.get_total_flops())


def profiled(work: Work, device: str) -> list[dict[str, str | float | int]]:
    """The operations with the most time of their own, milliseconds and calls of one run.

    On one thread: the profiler sees no other.
    """
    torch.set_num_threads(1)
    on_device = device != "cpu"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=kinds) as seen:
        for _ in range(PROFILED):
            work.run()
    events = list(seen.key_averages())
    own = {e.key: e.self_device_time_total if on_device else e.self_cpu_time_total for e in events}
    total = sum(own.values())
    events.sort(key=lambda e: -own[e.key])
    return [
        {
            "operation": e.key,
            "self_ms": round(own[e.key] / PROFILED / 1e3, 4),
            "share": round(own[e.key] / total, 4),
            "calls": round(e.count / PROFILED, 1),
        }
        for e in events[:TOP]
    ]


def rows_of(args: argparse.Namespace, work: Work) -> list[Row]:
    """A work's rate, as a share of the large product's and of its own products'."""
    counted = operations(work)
    products = Products()
    with products:
        work.run()
    a, b = (torch.randn(SIDE, SIDE, device=args.device) for _ in range(2))
    contenders = [
        Contender("work", work.run, work.threads),
        Contender("limit", lambda: torch.mm(a, b), work.threads),
    ]
    alone = work.name.startswith("adaptation")  # meta-training's convolutions are not all products
    if alone:
        contenders.append(Contender("products", products.again, work.threads))
    repeats = args.repeats if alone else 1
    times = in_turns(contenders, rounds=args.rounds, repeats=repeats, device=args.device)
    limit, found = 2 * SIDE**3, ratio(times, "limit", "work")
    share = found.value * counted / limit
    rate = counted / milliseconds(times, "work") / 1e6
    most = limit / milliseconds(times, "limit") / 1e6
    detail = (
        f"{counted / 1e6:.1f} million operations in {milliseconds(times, 'work'):.2f} ms, "
        f"{rate:.1f} of {most:.1f} GFLOP/s on {threads_said(work.threads)}"
    )
    peer = f"product of two {SIDE} x {SIDE} matrices"
    rows = [Row(f"{work.name}_of_limit", share, "share", "higher", None, peer, detail)]
    if alone:
        own = ratio(times, "products", "work")
        detail = (
            f"{len(products.calls)} products alone take {milliseconds(times, 'products'):.2f} ms"
        )
        row_id = f"{work.name}_in_products"
        rows.append(Row(row_id, own.value, "share", "higher", None, "its own products", detail))
    return rows


def main() -> None:
    """Adaptation with every layer and with the head, and meta-training, against the limit."""
    args = arguments()
    torch.set_num_threads(args.threads)  # a meta-batch is cut for as many
    works = [
        Work("adaptation_full", adaptation(args, full(5)), 1),
        Work("adaptation_head", adaptation(args, "00001"), 1),
        Work("meta_training", meta_training(args), args.threads),
    ]
    rows = [row for work in works for row in rows_of(args, work)]
    profiles = {work.name: profiled(work, args.device) for work in works}
    save(args.name, rows, settings=vars(args), profiles=profiles)


if __name__ == "__main__":
    main()
