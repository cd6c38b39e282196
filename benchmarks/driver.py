"""The driver alone: study, halving and run record of a sweep of ten thousand trials, no processes.

    python -m benchmarks.driver [--trials 10000] [--workers 1000]

A simulated clock stands for the workers: each trial reports eight times and lasts as long as a
seeded draw says. Once every worker has its trial, what is timed is all that the driver does while a
tenth of the trials ends and is replaced: the sampler, the scheduler, the journal and the files;
what it keeps is traced in the tenth after the first and in the one before the last, since tracing
slows it down. A study of 2,000 finished observations is asked alone.
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
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.record import Row, save
from benchmarks.searches import OBJECTIVES, STARTUP, WHOLE, halving
from benchmarks.simulated_search import CONSTRAINTS
from search._optuna import Study
from search.config import EarlyStoppingConfig
from search.constraints import Constraint
from search.recorder import Recorder
from search.rundir import RunDir
from trainables._core.digests import write_digest

if TYPE_CHECKING:
    from spaces._domains import Value

REPORTS, ITERATIONS = 8, 80
STEP_FLOOR, ASK_FLOOR_MS = 1.5, 100.0
SHARE = 10  # the first and the last tenth are compared
TRACED = (1, SHARE - 2)  # the tenths whose memory is traced, counted from 0
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


@dataclass(frozen=True)
class Mark:
    """A moment of a driver."""

    seconds: float
    kept_kib: float  # since the mark before, where that was traced


class Driver:
    """What a session holds of a sweep, with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        constraints = [Constraint.parse(text) for text in CONSTRAINTS]
        run = RunDir.create(folder / "run")
        self.study = Study(run.journal, "s", WHOLE, OBJECTIVES, constraints, startup=STARTUP)
        self.recorder = Recorder(run, self.study)
        self.halving = halving(ITERATIONS, constraints, EarlyStoppingConfig())
        self.student = folder / "checkpoint"
        (self.student / "student").mkdir(parents=True)
        (self.student / "student" / "student.json").write_text("{}", encoding="utf-8")
        write_digest(self.student, "")
        self.seconds = 0.0  # of the driver's own

    def mark(self) -> Mark:
        """What was spent by now, and kept since tracing began."""
        return Mark(self.seconds, tracemalloc.get_traced_memory()[0] / 1024)

    def start(self) -> int:
        """Asks for a trial and notes it."""
        began = time.process_time()
        suggestion = self.study.ask()
        self.recorder.start(suggestion)
        self.seconds += time.process_time() - began
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
        self.seconds += time.process_time() - began
        return goes_on


def drive(driver: Driver, trials: int, workers: int) -> list[Mark]:
    """Runs until so many trials ended, every worker at work; a mark at each tenth of them."""
    rng = np.random.default_rng(0)
    clock: list[tuple[float, int, int]] = []  # time, trial, report
    for _ in range(workers):
        heapq.heappush(clock, (rng.exponential(), driver.start(), 1))
    marks, ended, part = [driver.mark()], 0, max(1, trials // SHARE)
    while ended < trials:
        now, number, report = heapq.heappop(clock)
        if driver.report(number, report):
            heapq.heappush(clock, (now + rng.exponential(), number, report + 1))
            continue
        heapq.heappush(clock, (now + rng.exponential(), driver.start(), 1))
        ended += 1
        if ended % part == 0:
            marks.append(driver.mark())
            print(f"{ended} trials: {marks[-1]}", flush=True)
            tracemalloc.stop()
            if len(marks) - 1 in TRACED:
                tracemalloc.start()
    return marks


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


def rows_of(marks: list[Mark], part: int, asked: list[float]) -> list[Row]:
    """The last tenth of the trials against the first, and the ask."""
    first, *_, last = ((b.seconds - a.seconds) / part * 1e3 for a, b in pairwise(marks))
    early, late = (marks[tenth + 1].kept_kib / part for tenth in TRACED)
    return [
        Row(
            "step_last_over_first", last / first, "x", "lower", STEP_FLOOR,
            detail=f"{part} trials each: {last:.1f} ms and {first:.1f} ms a trial",
        ),
        Row(
            "memory_last_over_first", late / early, "x", "lower", STEP_FLOOR,
            detail=f"{late:.1f} KiB (next to last tenth) and {early:.1f} KiB (second) kept a trial",
        ),
        Row(
            "ask", statistics.median(asked), "ms", "lower", ASK_FLOOR_MS,
            detail=f"median of {len(asked)}; longest {max(asked):.1f} ms",
        ),
    ]  # fmt: skip


def main() -> None:
    """Drives, asks, and saves."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        asked = ask_ms(Path(folder), args.observations, args.asks)
        if args.profile:
            profile(Path(folder), args.trials, args.workers)
            return
        marks = drive(Driver(Path(folder)), args.trials, args.workers)
    save(args.name, rows_of(marks, max(1, args.trials // SHARE), asked))


def profile(folder: Path, trials: int, workers: int) -> None:
    """Prints where the time goes."""
    seen = cProfile.Profile()
    driver = Driver(folder / "seen")
    seen.runcall(drive, driver, trials, workers)
    pstats.Stats(seen).sort_stats("cumulative").print_stats(40)


if __name__ == "__main__":
    main()
