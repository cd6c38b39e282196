"""The driver alone: study, halving and run record of a sweep of ten thousand trials, no processes.

    python -m benchmarks.driver [--trials 10000] [--workers 1000]

A simulated clock stands for the workers: each trial reports eight times and lasts as long as a
seeded draw says. What is timed is what the driver does for a trial from its ask to its end: the
sampler, the scheduler, the journal and the files. A second pass counts the memory, since that slows
down what it counts. Then a study of 2,000 finished observations is asked alone.
"""

from __future__ import annotations

import argparse
import cProfile
import heapq
import json
import pstats
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.record import Row, save
from benchmarks.simulated_search import CONSTRAINTS, OBJECTIVES, STARTUP, WHOLE
from search._optuna import Study
from search._schedulers import ParetoHalving
from search.constraints import Constraint
from search.recorder import Recorder
from search.rundir import RunDir

if TYPE_CHECKING:
    from spaces._domains import Value

REPORTS, ITERATIONS = 8, 80
STEP_FLOOR, ASK_FLOOR_MS = 1.5, 100.0
SHARE = 10  # the first and the last tenth are compared
MIB = 2**20


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--observations", type=int, default=2_000)
    parser.add_argument("--asks", type=int, default=50)
    parser.add_argument("--profile", action="store_true", help="print one of the timed pass")
    parser.add_argument("--name", default="driver")
    return parser.parse_args()


def answer(config: dict[str, Value], share: float) -> dict[str, float]:
    """Metrics of a configuration after a share of its training, from a formula."""
    width, depth, steps = (
        float(config[name]) for name in ("student.width", "student.depth", "inner_steps")
    )
    off = np.log10(float(config["inner_rate"]) / 0.1) ** 2
    accuracy = (1 - 0.6 * np.exp(-0.1 * width * depth)) / (1 + 0.2 * off) * share**0.2
    macs = width**2 * depth * steps
    drop = float(config["epsilon"]) / 2
    return {
        "accuracy": float(accuracy - drop),
        "student_params": 9 * width**2 * depth,
        "adapt_macs": float(macs * (1 - 10 * drop)),
        "quality_drop": drop,
    }


class Driver:
    """What a session holds of a sweep, with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        constraints = [Constraint.parse(text) for text in CONSTRAINTS]
        run = RunDir.create(folder / "run")
        self.study = Study(run.journal, "s", WHOLE, OBJECTIVES, constraints, startup=STARTUP)
        self.recorder = Recorder(run, self.study)
        self.halving = ParetoHalving(ITERATIONS, OBJECTIVES, constraints=constraints)
        self.student = folder / "checkpoint"
        (self.student / "student").mkdir(parents=True)
        (self.student / "student" / "student.json").write_text("{}", encoding="utf-8")
        self.seconds: dict[int, float] = {}  # of the driver's own, by trial

    def start(self) -> int:
        """Asks for a trial and notes it."""
        began = time.process_time()
        suggestion = self.study.ask()
        self.recorder.start(suggestion)
        self.seconds[suggestion.number] = time.process_time() - began
        return suggestion.number

    def report(self, number: int, report: int) -> bool:
        """Notes one of the reports, the last of which is the end; whether the trial goes on."""
        began = time.process_time()
        at = report * ITERATIONS // REPORTS
        metrics = answer(self.recorder.records[number].config, report / REPORTS)
        row: dict[str, object] = {**metrics, "iteration": at, "cost_s": float(report)}
        last = report == REPORTS
        if last:
            row |= {"finished": True, "table": json.dumps([{"pattern": "1", "step": 1}])}
            self.recorder.checkpoint(number, str(self.student))
        self.recorder.report(number, row)
        goes_on = not last and self.halving.decide(str(number), at, metrics)
        if not goes_on:
            self.recorder.finish(number)
        self.recorder.hopeless()
        self.seconds[number] += time.process_time() - began
        return goes_on


def drive(driver: Driver, trials: int, workers: int) -> list[float]:
    """Runs the trials; KiB that the driver holds after each tenth of them that ended, if traced."""
    rng = np.random.default_rng(0)
    clock: list[tuple[float, int, int]] = []  # time, trial, report
    held, ended, begun = [tracemalloc.get_traced_memory()[0] / 1024], 0, 0
    while begun < min(workers, trials):
        heapq.heappush(clock, (rng.exponential(), driver.start(), 1))
        begun += 1
    while clock:
        now, number, report = heapq.heappop(clock)
        if driver.report(number, report):
            heapq.heappush(clock, (now + rng.exponential(), number, report + 1))
            continue
        ended += 1
        if ended % max(1, trials // SHARE) == 0:
            held.append(tracemalloc.get_traced_memory()[0] / 1024)
            print(f"{ended} trials", flush=True)
        if begun < trials:
            heapq.heappush(clock, (now + rng.exponential(), driver.start(), 1))
            begun += 1
    return held


def ask_ms(folder: Path, observations: int, asks: int) -> list[float]:
    """Milliseconds of an ask in a study of finished observations."""
    constraints = [Constraint.parse(text) for text in CONSTRAINTS]
    journal = folder / "asked.journal"
    study = Study(journal, "s", WHOLE, OBJECTIVES, constraints, startup=observations)
    for _ in range(observations):  # all at random: what they are like does not matter here
        suggestion = study.ask()
        study.complete(suggestion.number, answer(suggestion.config, 1.0))
    study.startup = STARTUP
    found = []
    for _ in range(asks):
        began = time.process_time()
        suggestion = study.ask()
        found.append((time.process_time() - began) * 1e3)
        study.complete(suggestion.number, answer(suggestion.config, 1.0))
    return found


def rows_of(seconds: list[float], held: list[float], asked: list[float], seen: int) -> list[Row]:
    """Last against first, and the ask."""
    part = max(1, len(seconds) // SHARE)
    first, last = (statistics.fmean(s) * 1e3 for s in (seconds[:part], seconds[-part:]))
    trials = len(seconds)
    early, late = ((b - a) / part for a, b in (held[:2], held[-2:]))
    whole = (held[-1] - held[0]) / 1024
    return [
        Row(
            "step_last_over_first", last / first, "x", "lower", STEP_FLOOR,
            detail=f"of {trials} trials, {part} each: {last:.1f} ms and {first:.1f} ms a trial",
        ),
        Row(
            "memory_last_over_first", late / early, "x", "lower", STEP_FLOOR,
            detail=f"{late:.1f} KiB and {early:.1f} KiB a trial; {whole:.0f} MiB in all",
        ),
        Row(
            f"ask_{seen}", statistics.median(asked), "ms", "lower", ASK_FLOOR_MS,
            detail=f"median of {len(asked)}; longest {max(asked):.1f} ms",
        ),
    ]  # fmt: skip


def main() -> None:
    """Drives, asks, and saves."""
    args = arguments()
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        asked = ask_ms(Path(folder), args.observations, args.asks)
        driver = Driver(Path(folder) / "timed")
        if args.profile:
            profile.enable()
        drive(driver, args.trials, args.workers)
        if args.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
            return
        tracemalloc.start()
        held = drive(Driver(Path(folder) / "traced"), args.trials, args.workers)
        tracemalloc.stop()
    seconds = [driver.seconds[number] for number in sorted(driver.seconds)]
    save(args.name, rows_of(seconds, held, asked, args.observations))


if __name__ == "__main__":
    main()
