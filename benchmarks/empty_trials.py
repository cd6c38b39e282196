"""What a trial costs that does nothing: ours with everything on, against plain Ray Tune.

    python -m benchmarks.empty_trials [--trials 200] [--rounds 3]

Each arm runs in a process and a Ray of its own, on two cores, two trials at a time:

    documented   a function that reports once, as Ray Tune's documentation shows it; a fifth of
                 the trials, for it starts a process for each
    reuse        a class with actors reused, checkpoints that work, and the default loggers
    ours         a sweep: study on disk, early stopping, run record, checkpoints, TensorBoard,
                 8 reports a trial

The learner of ours counts to 8 and keeps a real student. The first quarter of the trials starts
processes and is left out: a figure is the time from its end to the end of the last trial, over the
trials in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from typing_extensions import override

from benchmarks.record import Row, save

ARMS = ("documented", "reuse", "ours")
FLOOR_S = 0.1
CORES, REPORTS = 2, 8
FEWER = 5  # documented trials are one of so many
STARTING = 4  # one of so many trials comes before the steady state


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help="run this one, and print its figure")
    parser.add_argument("--name", default="empty_trials")
    return parser.parse_args()


def steady(ends: list[float]) -> float:
    """Seconds a trial, from the times at which trials ended."""
    ends = sorted(ends)
    first = len(ends) // STARTING
    return (ends[-1] - ends[first]) / (len(ends) - 1 - first)


def peer(folder: Path, trials: int, *, reuse: bool) -> list[float]:
    """When each of Ray Tune's own trials ended."""
    import ray  # noqa: PLC0415 - an arm's own process
    from ray import tune  # noqa: PLC0415

    class Ends(tune.Callback):
        """Notes when trials end."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        @override
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.monotonic())

    class Reused(tune.Trainable):
        """Ends at its first step."""

        @override
        def step(self) -> dict[str, Any]:
            return {"score": self.config["x"], "done": True}

        @override
        def save_checkpoint(self, checkpoint_dir: str) -> None:
            Path(checkpoint_dir, "state").write_text("", encoding="utf-8")

        @override
        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

        @override
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

    def documented(config: dict[str, Any]) -> None:
        tune.report({"score": config["x"]})

    ray.init(num_cpus=CORES, include_dashboard=False)  # noqa: TID251 - Tune without us
    ends = Ends()
    tuner = tune.Tuner(
        Reused if reuse else documented,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(folder), callbacks=[ends], verbose=0),
    )
    tuner.fit()
    ray.shutdown()
    return ends.ends


def ours(folder: Path, trials: int) -> list[float]:
    """When each trial of a sweep ended, from its study."""
    from search import sweep  # noqa: PLC0415 - an arm's own process
    from search._storages import open_journal  # noqa: PLC0415
    from search.config import SweepConfig  # noqa: PLC0415
    from tests import fakes  # noqa: PLC0415

    fakes.install()
    config = SweepConfig.model_validate(
        {
            "method": "fake",
            "data": {"source": "glyphs", "queries": 5},
            "budget": {"trials": trials, "iterations": REPORTS},
            "evaluation": {"validation_tasks": 5, "test_tasks": 0, "reports": REPORTS},
            "resources": {"cpu": 1, "concurrent": CORES},
        }
    )
    run = sweep.run_sweep(config, name="empty", storage=folder)
    storage = open_journal(run / "study.journal")
    told = storage.get_all_trials(storage.get_all_studies()[0]._study_id)  # noqa: SLF001
    return [t.datetime_complete.timestamp() for t in told if t.datetime_complete is not None]


def measure(arm: str, trials: int) -> float:
    """Seconds a trial of an arm, in this process."""
    trials = trials // FEWER if arm == "documented" else trials
    with tempfile.TemporaryDirectory() as folder:
        if arm == "ours":
            return steady(ours(Path(folder), trials))
        return steady(peer(Path(folder), trials, reuse=arm == "reuse"))


def rows_of(found: dict[str, list[float]], trials: int) -> list[Row]:
    """Ours against its floor, and how far the others are."""
    median = {arm: statistics.median(seconds) for arm, seconds in found.items()}
    rows = []
    for arm, seconds in found.items():
        count = trials // FEWER if arm == "documented" else trials
        told = f"median of {len(seconds)} rounds of {count} trials, "
        told += f"{min(seconds):.3f} to {max(seconds):.3f} s"
        floor = FLOOR_S if arm == "ours" else None
        rows.append(Row(f"{arm}_s", median[arm], "s a trial", "lower", floor, detail=told))
    rows += [
        Row(f"over_{arm}", median["ours"] / median[arm], "x", "lower", None, f"Ray Tune, {arm}")
        for arm in ARMS[:-1]
    ]
    return rows


def main() -> None:
    """Measures the arms in turn, and saves."""
    args = arguments()
    if args.arm:
        print(json.dumps({"seconds": measure(args.arm, args.trials)}))
        return
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(args.rounds):
        for arm in ARMS:
            words = [sys.executable, "-m", "benchmarks.empty_trials", "--arm", arm]
            words += ["--trials", str(args.trials)]
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            found[arm].append(float(json.loads(said.splitlines()[-1])["seconds"]))
            print(f"round {number + 1}, {arm}: {found[arm][-1]:.3f} s a trial", flush=True)
    save(args.name, rows_of(found, args.trials))


if __name__ == "__main__":
    main()
