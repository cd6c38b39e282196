"""The driver alone: study, halving and run record of a sweep of ten thousand trials, no processes.

    python -m benchmarks.driver [--trials 10000] [--workers 1000]

A simulated clock stands for the workers: each trial reports eight times and lasts as long as a
seeded draw says. Once every worker has its trial, what is timed is all that the driver does while a
tenth of the trials ends and is replaced: the sampler, the scheduler, the journal and the files. The
last tenth and the first one of a second driver go in turns, each in a process of its own: a machine
may change its speed while the tenths between go by. What a driver keeps is traced in the tenth
after the first and in the one before the last, since tracing slows it down. A study of 2,000
finished observations is asked alone.
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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
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
TURNS = 50  # of the last tenth and the first
HELD: list[Sweep] = []  # in a process of its own the one that is driven there


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
        self.halving = halving(ITERATIONS, constraints, EarlyStoppingConfig())
        self.student = folder / "checkpoint"
        (self.student / "student").mkdir(parents=True)
        (self.student / "student" / "student.json").write_text("{}", encoding="utf-8")
        write_digest(self.student, "")
        self.seconds = 0.0  # of the driver's own

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


class Sweep:
    """A driver and its workers, every one at work, on a simulated clock."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.driver, self.rng = Driver(folder), np.random.default_rng(0)
        self.clock: list[tuple[float, int, int]] = []  # time, trial, report
        for _ in range(workers):
            self._start(0.0)

    def end(self, trials: int) -> float:
        """Until so many more have ended and were replaced: the driver's seconds."""
        before = self.driver.seconds
        while trials:
            now, number, report = heapq.heappop(self.clock)
            if self.driver.report(number, report):
                then = now + self.rng.exponential()
                heapq.heappush(self.clock, (then, number, report + 1))
                continue
            self._start(now)
            trials -= 1
        return self.driver.seconds - before

    def _start(self, now: float) -> None:
        then = now + self.rng.exponential()
        heapq.heappush(self.clock, (then, self.driver.start(), 1))


def apart(folder: Path, workers: int) -> ProcessPoolExecutor:
    """A process that drives a sweep of its own."""
    return ProcessPoolExecutor(1, get_context("spawn"), begin, (folder, workers))


def begin(folder: Path, workers: int) -> None:
    """There: every worker has its trial."""
    HELD.append(Sweep(folder, workers))


def end(trials: int) -> float:
    """There: the seconds of so many more."""
    return HELD[0].end(trials)


def kept_kib(trials: int) -> float:
    """There: what is kept of so many more."""
    tracemalloc.start()
    HELD[0].end(trials)
    kept = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    return kept


def drive(folder: Path, part: int, workers: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of the last tenth and of the first, turn by turn; KiB kept of two others."""
    kept = []
    with apart(folder / "late", workers) as late, apart(folder / "early", workers) as early:
        for tenth in range(SHARE - 1):
            if tenth in TRACED:
                kept.append(late.submit(kept_kib, part).result())
            else:
                late.submit(end, part).result()
            print(f"{(tenth + 1) * part} trials", flush=True)
        seconds = [
            [one.submit(end, part // TURNS).result() for one in (late, early)] for _ in range(TURNS)
        ]
    return [pair[0] for pair in seconds], [pair[1] for pair in seconds], kept


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


def rows_of(
    last: list[float], first: list[float], kept: list[float], part: int, asked: list[float]
) -> list[Row]:
    """The last tenth of the trials against the first, and the ask."""
    early, late = (kib / part for kib in kept)
    ratios = sorted(a / b for a, b in zip(last, first, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    ms = [sum(seconds) / part * 1e3 for seconds in (last, first)]
    return [
        Row(
            "step_last_over_first", ms[0] / ms[1], "x", "lower", STEP_FLOOR,
            detail=f"{part} trials each, in {len(ratios)} turns: {ms[0]:.1f} ms and {ms[1]:.1f} ms "
            f"a trial, middle half of turns {low:.2f} to {high:.2f}",
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
        part = max(1, args.trials // (SHARE * TURNS)) * TURNS  # a tenth, whole in its turns
        found = drive(Path(folder), part, args.workers)
    save(args.name, rows_of(*found, part, asked))


def profile(folder: Path, trials: int, workers: int) -> None:
    """Prints where the time goes."""
    seen = cProfile.Profile()
    sweep = Sweep(folder / "seen", workers)
    seen.runcall(sweep.end, trials)
    pstats.Stats(seen).sort_stats("cumulative").print_stats(40)


if __name__ == "__main__":
    main()
