"""Meta-training with products of bfloat16 factors against float32 ones: faster, and as good?

    FEWTUNE_DATA=... python -m benchmarks.precision [--threads 1]

``precision: medium`` rounds the factors of meta-training's matrix products (torch's
``set_float32_matmul_precision``); adaptation stays float32. Meta-iterations of both take turns
within a round; then students of either precision, trained alike from the same start on the same
episodes, are scored on the same test tasks, full pattern, and their differences are paired.
"""

from __future__ import annotations

import argparse
from itertools import cycle
from typing import TYPE_CHECKING

import torch

from benchmarks.models import SHOTS, TRAIN_QUERIES, WAYS, Recipe, student
from benchmarks.record import Row, save
from benchmarks.timing import Contender, in_turns, milliseconds, ratio
from trainables._core import evaluate
from trainables._core.ending import CHUNK, TEST_SEED
from trainables._core.episodes import Sampler, TaskShape
from trainables._core.evaluate import Setting
from trainables._core.outer import MetaOptimiser
from trainables._core.patterns import full
from trainables._core.rig import Training, maml_update, student_rig
from trainables._data import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainables._data import Dataset

PRECISIONS = ("highest", "medium")
BATCHES = 4  # different meta-batches that timed iterations go round
FASTER, LOSS = 1.1, 0.01  # times; points of accuracy that count as unharmed: our marks


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="omniglot,cifar-fs", help="sources, commas between")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--test-tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def iteration(recipe: Recipe, data: Dataset) -> Callable[[], object]:
    """One meta-iteration as a trial runs it."""
    shape = TaskShape(WAYS, SHOTS, TRAIN_QUERIES)
    rig = student_rig(recipe.config(), data, shape, seed=0, device="cpu")
    outer = MetaOptimiser(rig.meta, recipe.outer_rate, 10**6)
    batches = cycle([rig.episodes() for _ in range(BATCHES)])

    def run() -> None:
        with Training(rig):
            maml_update(rig, outer, next(batches))

    return run


def accuracies(recipe: Recipe, data: Dataset, tasks: int) -> torch.Tensor:
    """Of a student on test tasks, ``[tasks]``."""
    network, meta = student(recipe, data)
    sampler = Sampler(data.test, data, TaskShape(WAYS, SHOTS, 15), "cpu")
    steps = recipe.inner_steps
    setting = Setting(steps, recipe.inner_rate, WAYS, views=0, inductive=True)
    wanted = {full(len(network.layers)): [steps]}
    found = evaluate.score(network, meta, sampler.fixed(TEST_SEED, tasks, CHUNK), setting, wanted)
    return next(iter(found.values()))


def rows_of(args: argparse.Namespace, source: str) -> list[Row]:
    """Speed in first and second order, and accuracy, on one source."""
    data, rows = load(source, root=None), []
    for order in ("first", "second"):
        recipes = {p: Recipe(source, args.width, "shared", 0, order=order, precision=p)
                   for p in PRECISIONS}  # fmt: skip
        contenders = [Contender(p, iteration(r, data), args.threads) for p, r in recipes.items()]
        times = in_turns(contenders, rounds=args.rounds)
        found = ratio(times, *PRECISIONS)
        said = " against ".join(f"{milliseconds(times, p):.0f} ms" for p in reversed(PRECISIONS))
        name = f"{source}_{order}_order_speedup"
        rows.append(
            Row(name, found.value, "x", "higher", FASTER, "own highest", f"{said}, {found.spread}")
        )
    for seed in range(args.seeds):
        exact, rounded = (
            accuracies(
                Recipe(source, args.width, "shared", args.iterations, seed=seed, precision=p),
                data,
                args.test_tasks,
            )
            for p in PRECISIONS
        )
        loss, half = evaluate.interval(exact - rounded)
        detail = f"highest {float(exact.mean()):.4f}, paired over {len(exact)} tasks, +-{half:.4f}"
        name = f"{source}_seed{seed}_loss"
        rows.append(Row(name, loss, "share", "lower", LOSS, "own highest", detail))
    return rows


def main() -> None:
    """Times, trains, scores and saves."""
    args = arguments()
    torch.set_num_threads(args.threads)
    rows = [row for source in args.data.split(",") for row in rows_of(args, source)]
    save("precision", rows, settings=vars(args))


if __name__ == "__main__":
    main()
