"""MAML Conv-4 on Omniglot: how accurate after how long, and what its patterns save.

    FEWTUNE_DATA=... python -m benchmarks.omniglot_maml [--iterations 5000]

Trains one student in this process, scores it on test classes, then scores all 31 patterns on
validation classes, chooses at epsilon = 1 point and measures the chosen and the full pattern's
adaptation in turn, one task at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.record import Row, save
from trainables._core import evaluate
from trainables._core.ending import CHUNK, TEST_SEED, at_size
from trainables._core.episodes import Sampler
from trainables._core.evaluate import Setting
from trainables._core.patterns import Score, choose, full
from trainables._data import Dataset, load
from trainables._learner import RunSettings, TaskShape
from trainables.maml import Maml

PAIRS = 60  # timed pairs, chosen and full in turn
EPSILON = 0.01
FLOORS = {64: 0.95}  # width -> accuracy on test classes


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--head", choices=["prototype", "shared", "linear"], default="prototype")
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--order", choices=["first", "second"], default="first")
    parser.add_argument("--outer-rate", type=float, default=3e-3)
    parser.add_argument("--inner-rate", type=float, default=0.1)
    parser.add_argument("--meta-batch", type=int, default=8)
    parser.add_argument("--train-queries", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks")
    parser.add_argument("--table-tasks", type=int, default=300, help="validation tasks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--student", type=Path, default=Path("runs/omniglot_maml"))
    parser.add_argument("--name", default="omniglot_maml")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def train(args: argparse.Namespace, data: Dataset) -> tuple[Maml, list[tuple[float, float]]]:
    """Meta-trains and notes (seconds, quick validation accuracy) on the way."""
    config = {
        "student.width": args.width,
        "student.head": args.head,
        "views": args.views,
        "inner_steps": 5,
        "inner_rate": args.inner_rate,
        "order": args.order,
        "outer_rate": args.outer_rate,
        "meta_batch": args.meta_batch,
        "choice": "table",  # two choices are read off it
    }
    run = RunSettings(
        args.iterations, seed=0, device=args.device, validation_tasks=args.table_tasks
    )
    learner = Maml(config, data, TaskShape(5, 1, args.train_queries), run)
    curve = []
    started = time.perf_counter()
    for i in range(args.iterations):
        learner.step()
        if (i + 1) % max(1, args.iterations // 20) == 0:
            curve.append((time.perf_counter() - started, learner.validate()["accuracy"]))
            print(f"{i + 1} iterations, {curve[-1][0]:.0f} s, {curve[-1][1]:.4f}", flush=True)
    return learner, curve


def paired_times(
    learner: Maml, setting: Setting, chosen: Score, data: Dataset
) -> dict[str, list[float]]:
    """Milliseconds of one adaptation, the two patterns in turn; three runs' median each time."""
    sampler = Sampler(data.test, data, learner.rig.shape, learner.run.device)
    found: dict[str, list[float]] = {"chosen": [], "full": []}
    meta = {n: p.detach() for n, p in learner.rig.meta.items()}
    network = learner.rig.network
    for task in sampler.fixed(TEST_SEED, PAIRS, 1):
        for name, pattern in (("chosen", chosen.pattern), ("full", full(5))):
            laps = evaluate.milliseconds(network, meta, task, setting, pattern, runs=3)
            found[name].append(laps[chosen.step if name == "chosen" else setting.steps])
    return found


def main() -> None:
    """Trains, scores, chooses, times and saves."""
    args = arguments()
    torch.set_num_threads(args.threads)
    data = load("omniglot", root=None)
    args.student.mkdir(parents=True, exist_ok=True)
    learner, curve = train(args, data)
    seconds = learner.rig.seconds
    shape = TaskShape(5, 1, 15)
    network, meta = learner.rig.network, {n: p.detach() for n, p in learner.rig.meta.items()}
    setting = Setting(5, args.inner_rate, 5, args.views, inductive=True)
    test = Sampler(data.test, data, shape, args.device)
    torch.save(learner.state_dict(), args.student.with_suffix(".pt"))
    outcome = learner.finish()
    outcome.student.save(args.student)
    rows = [Score(**cast("dict[str, Any]", row)) for row in outcome.table]
    at_five = [row for row in rows if row.step == setting.steps]
    chosen, _ = choose(at_five, EPSILON)
    free, _ = choose(rows, EPSILON)
    episodes = at_size(test.fixed(TEST_SEED, args.tasks, CHUNK), network.into[-1])
    wanted = {chosen.pattern: [5], full(5): [0, 5]}
    wanted[free.pattern] = sorted({*wanted.get(free.pattern, []), free.step})
    on_test = evaluate.score(network, meta, episodes, setting, wanted)
    beside = Setting(5, args.inner_rate, 5, args.views, inductive=False)
    episodes = at_size(test.fixed(TEST_SEED, args.tasks, CHUNK), network.into[-1])
    transductive = evaluate.score(network, meta, episodes, beside, {full(5): [5]})[full(5), 5]
    accuracy, ci95 = evaluate.interval(on_test[full(5), 5])
    torch.set_num_threads(1)
    result = [
        Row(
            "test_accuracy",
            accuracy,
            "share",
            "higher",
            FLOORS.get(args.width),
            "MAML paper: 0.987 (transductive)",
            f"inductive, full pattern, T=5, +-{ci95:.4f} over {args.tasks} tasks of test classes",
        ),
        Row(
            "test_accuracy_step_0",
            evaluate.interval(on_test[full(5), 0])[0],
            "share",
            "higher",
            None,
            None,
            "the same model and tasks before the first inner step",
        ),
        Row(
            "test_accuracy_transductive",
            evaluate.interval(transductive)[0],
            "share",
            "higher",
            None,
            "MAML paper: 0.987",
            "the same model and tasks, query batch statistics",
        ),
        Row("train_minutes", seconds / 60, "min", "lower", 40, None, f"{args.threads} threads"),
    ]
    for name, row in (("fixed_steps", chosen), ("free_steps", free)):
        times = paired_times(learner, setting, row, data)
        ratio = statistics.median(
            f / c for f, c in zip(times["full"], times["chosen"], strict=True)
        )
        drop, drop_ci = evaluate.interval(on_test[full(5), 5] - on_test[row.pattern, row.step])
        detail = (
            f"{row.pattern} after {row.step} steps, {statistics.median(times['chosen']):.2f} ms "
            f"against {statistics.median(times['full']):.2f} ms, one thread"
        )
        result += [
            Row(
                f"adapt_speedup_{name}", ratio, "x", "higher", 3.0, "own full pattern, T=5", detail
            ),
            Row(
                f"test_drop_{name}",
                drop,
                "share",
                "lower",
                EPSILON,
                "own full pattern",
                f"paired over {args.tasks} test tasks, +-{drop_ci:.4f}",
            ),
        ]
    save(args.name, result, curve=curve, table=outcome.table)
    print(json.dumps(outcome.metrics))


if __name__ == "__main__":
    main()
