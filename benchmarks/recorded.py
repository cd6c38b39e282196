"""A table of real runs: maml configurations drawn at random, each meta-trained once on Omniglot.

    FEWTUNE_DATA=... python -m benchmarks.recorded [--widths 4,20] [--configurations 210]

Simulated searches (``simulated_search``) draw their trials from it. Each run is the project's own
learner on one thread: 5-way 1-shot, first order, a quick validation at evenly spread reports, and
at the end the accuracy of every suffix pattern after each step 1 to ``STEPS`` on the same tasks, so
that any epsilon and any T can be answered. Seconds are those of the process, not of the wall.
Widths are cut short by default, for cheap runs; ``--widths 8,64`` are the method's own.

Runs are kept line by line under ``runs/benchmarks/`` as they end, in a file of their settings; the
command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.record import Row, save
from spaces._domains import Choice, Float, Int
from trainables._core.ending import VALIDATION_SEED, macs, scored_tasks
from trainables._core.evaluate import Setting
from trainables._core.patterns import candidates
from trainables._core.race import complete
from trainables._data import load
from trainables._learner import DivergedError, RunSettings, TaskShape
from trainables.maml import Maml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spaces._domains import Space, Value
    from trainables._data import Dataset

KEPT = Path("runs/benchmarks")
SHAPE = TaskShape(5, 1, 5)
STEPS = 5  # scored for every run, whatever it was trained with
REPORTS = 8
FIXED: Mapping[str, Value] = {"order": "first", "meta_batch": 4, "patterns": "suffixes"}
WIDTHS = (4, 20)
SPACE: Space = {
    "student.width": Int(*WIDTHS, log=True, why="small enough to train 200 of them on one core"),
    "student.depth": Int(2, 4, why="as in the method's own space"),
    "student.head": Choice(("shared", "prototype"), why="they differ in what adaptation gains"),
    "inner_steps": Int(1, STEPS, why="as many as are scored"),
    "inner_rate": Float(0.003, 1.0, log=True, why="as in the method's own space, less its tail"),
    "outer_rate": Float(1e-4, 3e-2, log=True, why="the method's own space and half a decade above"),
}


def space_of(widths: Sequence[int]) -> Space:
    """The space with these fewest and most filters."""
    return {**SPACE, "student.width": Int(*widths, log=True, why="as the command has it")}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="4,20", help="fewest and most filters, a comma between")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--configurations", type=int, default=210)
    parser.add_argument("--iterations", type=int, default=80)
    parser.add_argument("--quick-tasks", type=int, default=25)
    parser.add_argument("--validation-tasks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="recorded_omniglot")
    return parser.parse_args()


def drawn(space: Space, generator: np.random.Generator) -> dict[str, Value]:
    """One configuration, uniform in each parameter or in its logarithm."""
    return {name: _one(domain, float(generator.random())) for name, domain in space.items()}


def _one(domain: object, at: float) -> Value:
    """The value at a place in [0, 1)."""
    if isinstance(domain, Choice):
        return domain.options[int(at * len(domain.options))]
    if isinstance(domain, Float):
        low, high = (math.log(b) if domain.log else b for b in (domain.low, domain.high))
        value = low + at * (high - low)
        return math.exp(value) if domain.log else float(value)
    if isinstance(domain, Int):
        low, high = (domain.low - 0.5, domain.high + 0.5)
        if domain.log:
            return int(min(domain.high, max(domain.low, round(low * (high / low) ** at))))
        return min(domain.high, max(domain.low, round(low + at * (high - low))))
    msg = f"A drawn parameter is a range or a choice; found {domain}."
    raise TypeError(msg)


class Lap:
    """Seconds of this process since it was last asked."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def __call__(self) -> float:
        """To a tenth of a millisecond."""
        now = time.process_time()
        seconds, self._last = now - self._last, now
        return round(seconds, 4)


def run(config: Mapping[str, Value], data: Dataset, settings: RunSettings) -> dict[str, Any]:
    """Meta-trains one configuration and scores it, as JSON-ready values."""
    lap = Lap()
    learner = Maml({**FIXED, **config}, data, SHAPE, settings)
    known = Maml.cheap({**FIXED, **config}, channels=data.channels, size=data.size, ways=SHAPE.ways)
    found: dict[str, Any] = {"config": dict(config), **known, "setup_s": lap()}
    curve: list[dict[str, float]] = []
    try:
        for report in range(1, REPORTS + 1):
            first, goal = ((r * settings.iterations) // REPORTS for r in (report - 1, report))
            losses = [learner.step()["loss"] for _ in range(first, goal)]
            trained = lap()
            check(losses, goal)
            seen = learner.validate()["accuracy"]
            curve.append(
                {
                    "iteration": goal,
                    "accuracy": round(seen, 5),
                    "train_s": trained,
                    "quick_s": lap(),
                }
            )
    except DivergedError as error:
        return {**found, "curve": curve, "failure": str(error), "spent_s": lap()}
    return {**found, "curve": curve, **scores(learner, settings), "score_s": lap()}


@cache
def omniglot() -> Dataset:
    """The data, once a process."""
    return load("omniglot", root=None)


def alone(config: Mapping[str, Value], settings: RunSettings) -> dict[str, Any]:
    """The same in a process of a pool, on one thread."""
    torch.set_num_threads(1)
    return run(config, omniglot(), settings)


def check(losses: list[float], iteration: int) -> None:
    """As a trial is checked.

    Raises:
        DivergedError: a loss is no finite number.
    """
    if not all(map(np.isfinite, losses)):
        msg = f"the loss became no number before meta-iteration {iteration}"
        raise DivergedError(msg)


def scores(learner: Maml, settings: RunSettings) -> dict[str, Any]:
    """Accuracy and price of every suffix pattern after 1 to ``STEPS`` steps."""
    network = learner.rig.network
    meta = {name: value.detach() for name, value in learner.rig.meta.items()}
    setting = Setting(STEPS, learner.config.inner_rate, SHAPE.ways, views=0, inductive=True)
    patterns = candidates(len(network.layers), "suffixes")
    scored = scored_tasks(
        network,
        meta,
        learner.rig.validation,
        setting,
        seed=settings.seed + VALIDATION_SEED,
        tasks=settings.validation_tasks,
        patterns=patterns,
    )
    complete(scored)
    accuracies = scored.accuracies()
    price = macs(network, setting, SHAPE, accuracies)
    steps = range(1, STEPS + 1)
    return {
        "accuracies": {
            p: [round(float(accuracies[p, t].double().mean()), 5) for t in steps] for p in patterns
        },
        "adapt_macs": {p: [int(price[p, t]) for t in steps] for p in patterns},
    }


def seconds(entry: Mapping[str, Any]) -> float:
    """What a run took from start to end."""
    curve = sum(point["train_s"] + point["quick_s"] for point in entry["curve"])
    return float(entry["setup_s"] + curve + entry.get("score_s", 0.0) + entry.get("spent_s", 0.0))


def best(entry: Mapping[str, Any]) -> float:
    """The best accuracy in a run's table; 0 for one that diverged."""
    return max((a for row in entry.get("accuracies", {}).values() for a in row), default=0.0)


def kept(file: Path) -> list[dict[str, Any]]:
    """The runs that have ended; a line that a kill tore is left out."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    file.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    return [json.loads(line) for line in lines[:-1]]


def rows_of(runs: list[dict[str, Any]]) -> list[Row]:
    """How many, how good, how long."""
    accuracies = sorted(best(entry) for entry in runs)
    took = [seconds(entry) for entry in runs]
    quarters = statistics.quantiles(accuracies, n=4)
    spread = f"quartiles {', '.join(f'{q:.3f}' for q in quarters)}; worst {accuracies[0]:.3f}"
    cores = f"one core each; {min(took):.1f} to {max(took):.1f}, in all {sum(took) / 60:.0f} min"
    diverged = sum("failure" in entry for entry in runs)
    return [
        Row("configurations", len(runs), "runs", "higher", 200, detail=f"{diverged} diverged"),
        Row("best_accuracy", accuracies[-1], "share", "higher", detail=spread),
        Row("seconds_median", statistics.median(took), "s", "lower", detail=cores),
    ]


def main() -> None:
    """Runs what is missing, and saves."""
    args = arguments()
    load("omniglot", root=None)  # said before anything is begun
    settings = RunSettings(
        args.iterations,
        seed=args.seed,
        validation_tasks=args.validation_tasks,
        quick_tasks=args.quick_tasks,
    )
    widths = [int(word) for word in args.widths.split(",")]
    space, generator = space_of(widths), np.random.default_rng(args.seed)
    configs = [drawn(space, generator) for _ in range(args.configurations)]
    told = (args.iterations, args.quick_tasks, args.validation_tasks, *widths, args.seed)
    file = KEPT / f"{'-'.join(map(str, (args.name, *told)))}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    runs = kept(file)
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        for entry in pool.map(partial(alone, settings=settings), configs[len(runs) :]):
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry) + "\n")
            runs.append(entry)
            print(f"{len(runs)}: {best(entry):.3f}, {seconds(entry):.1f} s", flush=True)
    fixed = {**FIXED, "iterations": args.iterations, "tasks": args.validation_tasks}
    save(args.name, rows_of(runs), fixed=fixed | {"widths": widths}, runs=runs)


if __name__ == "__main__":
    main()
