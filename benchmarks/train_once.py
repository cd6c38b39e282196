"""Eight adaptation settings for each trained model, against the drawn one alone.

    python -m benchmarks.train_once [--data omniglot --iterations 2000]

Draws configurations from the method's own space as a sweep does at its start, trains each once,
and ends it both ways in turn: with its own setting, and with the further ones that a sweep would
score it under. A trial costs its training, which both share, and its ending.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.record import Row, save
from search import registry
from search._optuna import Study
from search.adaptations import further_settings
from trainables._data import load
from trainables._learner import RunSettings, TaskShape

SHAPE = TaskShape(5, 1, 15)
FLOOR = 1.2


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="glyphs")
    parser.add_argument("--method", default="maml")
    parser.add_argument("--models", type=int, default=3, help="configurations drawn")
    parser.add_argument("--settings", type=int, default=8, help="for each trained model")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=200, help="validation tasks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="train_once")
    return parser.parse_args()


def main() -> None:
    """Trains, ends each model both ways, and saves."""
    args = arguments()
    torch.set_num_threads(args.threads)
    data, space = load(args.data, root=None), registry.space(args.method)
    run = RunSettings(args.iterations, seed=0, validation_tasks=args.tasks)
    details, training, endings, observations = [], 0.0, {1: 0.0, args.settings: 0.0}, 0
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder) / "journal", "draws", space, {"accuracy": "max"}, startup=99)
        configs = [study.ask().config for _ in range(args.models)]
    for config in configs:
        learner = registry.learner(args.method)(config, data, SHAPE, run)
        began = time.process_time()
        for _ in range(args.iterations):
            learner.step()
        trained = time.process_time() - began
        training += trained
        learner.finish()  # what torch prepares at the first time is nobody's cost
        took, further = {}, 0
        for settings in endings:
            began = time.process_time()
            outcome = learner.finish(further_settings(config, space, settings, seed=0))
            took[settings] = time.process_time() - began
            endings[settings] += took[settings]
            further = len(outcome.further)
        observations += 1 + further
        ends = " and ".join(f"{seconds:.1f} s" for seconds in took.values())
        details.append(f"{trained:.0f} s of training, then {ends}")
        print(f"{config}: {details[-1]}, {further} further", flush=True)
    one, many = training + endings[1], training + endings[args.settings]
    rows = [
        Row(
            f"cost_of_{args.settings}_settings",
            many / one,
            "times one setting",
            "lower",
            FLOOR,
            "own trials of one setting",
            f"processor seconds of {args.models} models in turn: {'; '.join(details)}",
        ),
        Row(
            "observations_per_model",
            observations / args.models,
            "trials",
            "higher",
            None,
            None,
            f"of {args.settings} settings; those that choose the same are one",
        ),
    ]
    save(args.name, rows, threads=args.threads)


if __name__ == "__main__":
    main()
