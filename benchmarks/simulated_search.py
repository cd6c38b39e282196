"""Compute to a given feasible hypervolume: our search against the stock ones, on recorded runs.

    python -m benchmarks.simulated_search [--seeds 20] [--workers 4] [--tolerance 0.08]

The runs of ``recorded`` answer what a search (``searches``) suggests: the nearest one that it has
not had yet. A model must be small, ``--params``, and its pattern may lose one point. Hypervolume is
measured in three boxes (``simulator.Goal``), and a search that never reaches a share counts with
what it spent, or if it is ours with that and every run that it may train, in full.

    random    uniform, no constraints, no stopping
    tpe       Optuna's TPE as OptunaSearch sets it up: several objectives, no constraints
    tpe_asha  the same under Ray's ASHA on accuracy; a stopped trial counts as complete
    ours      the sweep's Study and ParetoHalving
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler

from benchmarks.record import RESULTS, Row, save
from benchmarks.recorded import WIDTHS, space_of
from benchmarks.searches import (
    ADAPTATION,
    KNOWN,
    OBJECTIVES,
    SETTINGS,
    STARTUP,
    InOrder,
    Ours,
    Stock,
    halving,
)
from benchmarks.simulator import Entry, Goal, Table, compute_to, simulate, simulate_for
from search._optuna import Study
from search.config import EarlyStoppingConfig
from search.constraints import Constraint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.simulator import Moment, Search, Within

DROP, PARAMS = "quality_drop <= 0.01", 5000
CONSTRAINTS = (DROP, f"student_params <= {PARAMS}")
BOXES: Mapping[str, Within] = {"": "everything", "feasible_": "feasible", "near_front_": "front"}
TARGET, SHARES = 0.9, (0.8, 0.9, 0.95)
FLOOR, KEPT_FLOOR, SPENT_FLOOR = 1 / 3, 0.98, 0.5


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="recorded_omniglot")
    parser.add_argument("--params", type=int, default=PARAMS, help="of a student, at most")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--most", type=int, default=400, help="trials after which an arm ends")
    parser.add_argument(
        "--tolerance", type=float, default=EarlyStoppingConfig().tolerance, help="of our halving"
    )
    parser.add_argument("--stopped", type=int, default=100, help="runs, for early stopping alone")
    parser.add_argument("--name", default="simulated_search")
    return parser.parse_args()


def arms(
    table: Table,
    constraints: list[Constraint],
    iterations: int,
    folder: Path,
    early: EarlyStoppingConfig,
) -> dict[str, Callable[[int], Search]]:
    """Every search by its name, given a seed."""

    def stock(
        sampler: Callable[..., optuna.samplers.BaseSampler], seed: int, *, asha: bool = False
    ) -> Stock:
        scheduler = AsyncHyperBandScheduler(
            time_attr="iteration", metric="accuracy", mode="max",
            max_t=iterations, grace_period=iterations // 8,
        )  # fmt: skip
        return Stock(table, sampler(seed=seed), scheduler if asha else None)

    def ours(seed: int) -> Ours:
        journal = Path(tempfile.mkdtemp(dir=folder)) / "study.journal"
        whole = {**table.space, **ADAPTATION}
        study = Study(journal, "s", whole, OBJECTIVES, constraints, seed=seed, startup=STARTUP)
        return Ours(table, study, halving(iterations, constraints, early))

    return {
        "random": partial(stock, optuna.samplers.RandomSampler),
        "tpe": partial(stock, optuna.samplers.TPESampler),
        "tpe_asha": partial(stock, optuna.samplers.TPESampler, asha=True),
        "ours": ours,
    }


def reached(traces: list[list[Moment]], share: float, else_s: float = 0.0) -> list[float]:
    """Seconds to a share in every seed; where it never was what was spent, and so much more."""
    return [
        trace[-1].seconds + else_s if (found := compute_to(trace, share)) is None else found
        for trace in traces
    ]


def rows_of_arms(
    traces: dict[str, list[list[Moment]]], single_s: float, all_s: float, prefix: str = ""
) -> list[Row]:
    """Ours against the best of the others, at every share.

    Args:
        traces: of every arm, seed by seed.
        single_s: what a run takes.
        all_s: what all runs take that ours may train, which ours is charged where it ended before.
        prefix: of the rows' names.
    """
    rows = []
    for share in SHARES:
        charged = {name: all_s if name == "ours" else 0.0 for name in traces}
        medians = {
            name: statistics.median(reached(t, share, charged[name])) for name, t in traces.items()
        }
        others = {name: seconds for name, seconds in medians.items() if name != "ours"}
        best = min(others, key=lambda name: others[name])
        short = {n: sum(compute_to(t, share) is None for t in ts) for n, ts in traces.items()}
        cut = ", ".join(f"{n} in {k}" for n, k in short.items() if k)
        detail = ", ".join(f"{n} {s:.0f} s" for n, s in medians.items())
        rows.append(
            Row(
                f"{prefix}compute_to_{share * 100:g}_percent",
                medians["ours"] / others[best],
                "share",
                "lower",
                FLOOR if share == TARGET else None,
                f"{best}, the best of the others",
                f"medians: {detail}; a run takes {single_s:.1f} s"
                + (f"; ended before: {cut} of {len(traces['ours'])} seeds" if cut else ""),
            )
        )
    return rows


def stopping(
    table: Table, goal: Goal, iterations: int, args: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Hypervolume kept and compute spent by early stopping, of the same runs in the same order."""
    kept, spent = [], []
    early, runs = EarlyStoppingConfig(tolerance=args.tolerance), args.stopped
    for seed in range(args.seeds):
        order = np.random.default_rng(seed).permutation(len(table.entries))[:runs]
        entries = [table.entries[i] for i in order]
        scheduler = halving(iterations, list(goal.constraints), early)
        with_it = simulate(InOrder(entries, scheduler), goal, workers=args.workers)[-1]
        without = simulate(InOrder(entries, None), goal, workers=args.workers)[-1]
        kept.append(with_it.share / without.share)
        spent.append(with_it.seconds / without.seconds)
    return kept, spent


def rows_of_stopping(kept: list[float], spent: list[float], runs: int) -> list[Row]:
    """The two figures of early stopping."""
    told = f"median of {len(kept)} orders of {runs} runs, "
    return [
        Row(
            "hypervolume_kept", statistics.median(kept), "share", "higher", KEPT_FLOOR,
            "no early stopping", f"{told}{min(kept):.3f} to {max(kept):.3f}",
        ),
        Row(
            "compute_spent", statistics.median(spent), "share", "lower", SPENT_FLOOR,
            "no early stopping", f"{told}{min(spent):.3f} to {max(spent):.3f}",
        ),
    ]  # fmt: skip


def searched(
    args: argparse.Namespace,
    table: Table,
    goals: Sequence[Goal],
    constraints: list[Constraint],
    iterations: int,
) -> list[dict[str, list[list[Moment]]]]:
    """Of every goal what every arm has reached, seed by seed."""
    traces: list[dict[str, list[list[Moment]]]] = [{} for _ in goals]
    with tempfile.TemporaryDirectory() as folder:
        early = EarlyStoppingConfig(tolerance=args.tolerance)
        for name, make in arms(table, constraints, iterations, Path(folder), early).items():
            for seed in range(args.seeds):
                found = simulate_for(
                    goals, make(seed), workers=args.workers, until=max(SHARES), jobs=args.most
                )
                for by_name, trace in zip(traces, found, strict=True):
                    by_name.setdefault(name, []).append(trace)
                last = [trace[-1] for trace in found]
                shares = ", ".join(f"{one.share:.3f}" for one in last)
                shares += f", {len(found[0]) - 1} trials"
                print(f"{name} {seed}: {last[0].seconds:.0f} s, {shares}", flush=True)
    return traces


def main() -> None:
    """Simulates every arm and seed, and saves."""
    args = arguments()
    raw = json.loads((RESULTS / f"{args.table}.json").read_text(encoding="utf-8"))
    space = space_of(raw["fixed"].get("widths", WIDTHS))
    table = Table(space, tuple(Entry.of(run) for run in raw["runs"]))
    iterations = int(raw["fixed"]["iterations"])
    texts = (DROP, f"student_params <= {args.params}")
    constraints = [Constraint.parse(text) for text in texts]
    goals = {
        prefix: Goal.of(table, SETTINGS, OBJECTIVES, constraints, within=within)
        for prefix, within in BOXES.items()
    }
    single = statistics.median(entry.seconds for entry in table.entries)
    early = [c for c in constraints if c.metric.startswith(KNOWN)]
    allowed = [e for e in table.entries if all(c.holds(e.known) for c in early)]
    rows = [
        Row("refused_before_training", 1 - len(allowed) / len(table.entries), "share", "lower",
            detail=f"of {len(table.entries)} configurations, by {texts[1]}")
    ]  # fmt: skip
    found = searched(args, table, list(goals.values()), constraints, iterations)
    for prefix, traces in zip(goals, found, strict=True):
        rows += rows_of_arms(traces, single, sum(e.seconds for e in allowed), prefix)
    runs = min(args.stopped, len(table.entries))
    kept, spent = stopping(table, goals[""], iterations, args)
    rows += rows_of_stopping(kept, spent, runs)
    boxes = {BOXES[prefix]: goal.box for prefix, goal in goals.items()}
    save(
        args.name,
        rows,
        constraints=texts,
        tolerance=args.tolerance,
        whole=goals[""].whole,
        boxes=boxes,
    )


if __name__ == "__main__":
    main()
