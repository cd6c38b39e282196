"""Compute to a given feasible hypervolume: our search against the stock ones, on recorded runs.

    python -m benchmarks.simulated_search [--seeds 20] [--workers 4]

The runs of ``recorded`` answer what a search suggests: the nearest one that it has not had yet.
Objectives are accuracy, parameters and multiply-accumulates of an adaptation; a model must be small
and its pattern may lose one point. An adaptation setting is an epsilon and a number of steps, 8 in
all. Stock searches draw it as parameters and train a model for each; ours trains once, scores all
settings, stops by Pareto rank, and refuses what is too large before it costs anything.

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
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.record import RESULTS, Row, save
from benchmarks.recorded import SPACE, STEPS
from benchmarks.simulator import Entry, Goal, Job, Setting, Table, compute_to, simulate
from search._optuna import Study
from search._schedulers import ParetoHalving
from search.config import EarlyStoppingConfig
from search.constraints import Constraint
from spaces._domains import Choice, Float, Int

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.simulator import Lap, Moment, Search
    from search.metrics import Direction
    from spaces._domains import Space, Value

OBJECTIVES: Mapping[str, Direction] = {
    "accuracy": "max", "student_params": "min", "adapt_macs": "min"
}  # fmt: skip
CONSTRAINTS = ("quality_drop <= 0.01", "student_params <= 5000")
SETTINGS = [Setting(e, t) for e, t in product((0.0, 0.005, 0.01, 0.02), (1, STEPS))]
ADAPTATION: Space = {
    "epsilon": Choice((0.0, 0.005, 0.01, 0.02), why="none, and around the constraint"),
    "adapt_steps": Choice((1, STEPS), why="the least and the most that are scored"),
}
WHOLE: Space = {**SPACE, **ADAPTATION}
TARGET, SHARES = 0.9, (0.8, 0.9, 0.95)
FLOOR, KEPT_FLOOR, SPENT_FLOOR = 1 / 3, 0.98, 0.5
NEAR = "near_front_"  # of the rows whose box is the feasible front's own
STARTUP = 10  # random draws at first: the default of both sides


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="recorded_omniglot")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--most", type=int, default=200, help="trials after which an arm ends")
    parser.add_argument("--stopped", type=int, default=100, help="runs, for early stopping alone")
    parser.add_argument("--name", default="simulated_search")
    return parser.parse_args()


def setting_of(config: Mapping[str, Value]) -> Setting:
    """The adaptation setting that was drawn."""
    return Setting(float(config["epsilon"]), int(config["adapt_steps"]))


@dataclass
class Stock:
    """Optuna's sampler as Ray Tune's OptunaSearch uses it, with or without ASHA on accuracy."""

    table: Table
    sampler: optuna.samplers.BaseSampler
    asha: Any = None  # Ray's AsyncHyperBandScheduler, given no more of a trial than its name
    tried: dict[Setting, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Opens a study without constraints."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if d == "max" else "minimize" for d in OBJECTIVES.values()
        ]
        self.study = optuna.create_study(sampler=self.sampler, directions=directions)

    def next(self) -> Job | None:
        """The nearest run that this setting has not had."""
        trial = self.study.ask(_distributions(WHOLE))
        setting = setting_of(trial.params)
        tried = self.tried.setdefault(setting, set())
        place = self.table.nearest(trial.params, tried)
        if place is None:
            return None
        tried.add(place)
        tune_trial = SimpleNamespace(trial_id=str(trial.number))
        if self.asha is not None:
            self.asha.on_trial_add(None, tune_trial)
        return Job(trial.number, self.table.entries[place], setting, tune_trial)

    def report(self, job: Job, lap: Lap) -> bool:
        """As ASHA says; what it stops is told as complete, with the last values it had."""
        if self.asha is None:
            return True
        row = {"iteration": lap.iteration, **lap.metrics}
        goes_on = self.asha.on_trial_result(None, job.extra, row) == TrialScheduler.CONTINUE
        if not goes_on and lap is not job.entry.laps[-1]:
            full, last = max(job.entry.adapt_macs, default=""), job.setting
            macs = job.entry.adapt_macs[full][last.steps - 1] if full and last else None
            self._tell(job, {**job.entry.known, **lap.metrics, "adapt_macs": macs})
            return False
        return True

    def finish(self, job: Job) -> list[dict[str, Any]]:
        """One model, one setting."""
        answer = job.entry.answer(job.setting) if job.setting else None
        self._tell(job, answer or {})
        return [answer] if answer else []

    def _tell(self, job: Job, metrics: Mapping[str, Any]) -> None:
        values = [float(metrics[n]) for n in OBJECTIVES if metrics.get(n) is not None]
        if len(values) < len(OBJECTIVES):
            self.study.tell(job.number, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(job.number, values)


@dataclass
class Ours:
    """The sweep's own study and scheduler: train once, score many, refuse what cannot hold."""

    table: Table
    study: Study
    halving: ParetoHalving | None
    tried: set[int] = field(default_factory=set)
    refused: int = 0

    def next(self) -> Job | None:
        """The nearest run not trained yet; what breaks a bound known by then is passed by."""
        early = [c for c in self.study.constraints if c.metric.startswith("student_")]
        while True:
            suggestion = self.study.ask()
            place = self.table.nearest(suggestion.config, self.tried)
            if place is None:
                return None
            self.tried.add(place)
            entry = self.table.entries[place]
            if all(c.holds(entry.known) for c in early):
                return Job(suggestion.number, entry, extra=suggestion.config)
            self.refused += 1
            self.study.prune(suggestion.number, entry.known, "breaks a bound before training")

    def report(self, job: Job, lap: Lap) -> bool:
        """As the halving says."""
        seen = {**job.entry.known, **lap.metrics}
        if self.halving is None or self.halving.decide(str(job.number), lap.iteration, seen):
            return True
        self.study.prune(job.number, seen, "others were better")
        return False

    def finish(self, job: Job) -> list[dict[str, Any]]:
        """Every setting's answer; settings that choose alike are told once."""
        own = setting_of(job.extra)
        answer = job.entry.answer(own)
        if answer is None:
            self.study.fail(job.number, {"kind": "diverged"}, {})
            return []
        self.study.complete(job.number, answer)
        told = {(answer["pattern"], answer["inner_steps"]): answer}
        for setting in SETTINGS:
            other = job.entry.answer(setting) or {}
            key = (other["pattern"], other["inner_steps"])
            if key in told:
                continue
            told[key] = other
            beside = {"epsilon": setting.epsilon, "adapt_steps": setting.steps}
            self.study.propose({**job.extra, **beside})
            self.study.complete(self.study.ask().number, other)
        return list(told.values())


@dataclass
class InOrder:
    """Runs in a drawn order, each scored with every setting: early stopping is all that differs."""

    entries: list[Entry]
    halving: ParetoHalving | None
    number: int = 0

    def next(self) -> Job | None:
        """The next of the order."""
        if self.number >= len(self.entries):
            return None
        self.number += 1
        return Job(self.number, self.entries[self.number - 1])

    def report(self, job: Job, lap: Lap) -> bool:
        """As the halving says."""
        seen = {**job.entry.known, **lap.metrics}
        return self.halving is None or self.halving.decide(str(job.number), lap.iteration, seen)

    def finish(self, job: Job) -> list[dict[str, Any]]:
        """Every setting's answer."""
        return [answer for setting in SETTINGS if (answer := job.entry.answer(setting))]


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, domain in space.items():
        if isinstance(domain, Float):
            found[name] = optuna.distributions.FloatDistribution(
                domain.low, domain.high, log=domain.log
            )
        elif isinstance(domain, Int):
            found[name] = optuna.distributions.IntDistribution(
                domain.low, domain.high, log=domain.log
            )
        elif isinstance(domain, Choice):
            found[name] = optuna.distributions.CategoricalDistribution(domain.options)
    return found


def halving(iterations: int, constraints: list[Constraint]) -> ParetoHalving:
    """As a sweep has it by default."""
    early = EarlyStoppingConfig()
    return ParetoHalving(
        iterations, OBJECTIVES, constraints=constraints, grace=early.grace,
        reduction=early.reduction,
    )  # fmt: skip


def arms(
    table: Table, constraints: list[Constraint], iterations: int, folder: Path
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
        study = Study(journal, "s", WHOLE, OBJECTIVES, constraints, seed=seed, startup=STARTUP)
        return Ours(table, study, halving(iterations, constraints))

    return {
        "random": partial(stock, optuna.samplers.RandomSampler),
        "tpe": partial(stock, optuna.samplers.TPESampler),
        "tpe_asha": partial(stock, optuna.samplers.TPESampler, asha=True),
        "ours": ours,
    }


def reached(traces: list[list[Moment]], share: float) -> list[float]:
    """Seconds to a share in every seed; a search that ended before counts as what it spent."""
    return [
        trace[-1].seconds if (found := compute_to(trace, share)) is None else found
        for trace in traces
    ]


def rows_of_arms(
    traces: dict[str, list[list[Moment]]], single_s: float, prefix: str = ""
) -> list[Row]:
    """Ours against the best of the others, at every share."""
    rows = []
    for share in SHARES:
        medians = {name: statistics.median(reached(t, share)) for name, t in traces.items()}
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
    table: Table, goal: Goal, iterations: int, runs: int, seeds: int, workers: int
) -> tuple[list[float], list[float]]:
    """Hypervolume kept and compute spent by early stopping, of the same runs in the same order."""
    kept, spent = [], []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(table.entries))[:runs]
        entries = [table.entries[i] for i in order]
        scheduler = halving(iterations, list(goal.constraints))
        with_it = simulate(InOrder(entries, scheduler), goal, workers=workers)[-1]
        without = simulate(InOrder(entries, None), goal, workers=workers)[-1]
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
    goal: Goal,
    constraints: list[Constraint],
    iterations: int,
) -> dict[str, list[list[Moment]]]:
    """What every arm has reached, seed by seed."""
    traces: dict[str, list[list[Moment]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in arms(table, constraints, iterations, Path(folder)).items():
            for seed in range(args.seeds):
                trace = simulate(
                    make(seed), goal, workers=args.workers, until=max(SHARES), jobs=args.most
                )
                traces.setdefault(name, []).append(trace)
                print(f"{name} {seed}: {trace[-1]}, {len(trace) - 1} trials", flush=True)
    return traces


def main() -> None:
    """Simulates every arm and seed, and saves."""
    args = arguments()
    raw = json.loads((RESULTS / f"{args.table}.json").read_text(encoding="utf-8"))
    table = Table(SPACE, tuple(Entry.of(run) for run in raw["runs"]))
    iterations = int(raw["fixed"]["iterations"])
    constraints = [Constraint.parse(text) for text in CONSTRAINTS]
    goals = {
        prefix: Goal.of(table, SETTINGS, OBJECTIVES, constraints, near=bool(prefix))
        for prefix in ("", NEAR)
    }
    single = statistics.median(entry.seconds for entry in table.entries)
    rows: list[Row] = []
    for prefix, goal in goals.items():
        rows += rows_of_arms(searched(args, table, goal, constraints, iterations), single, prefix)
    runs = min(args.stopped, len(table.entries))
    kept, spent = stopping(table, goals[""], iterations, runs, args.seeds, args.workers)
    rows += rows_of_stopping(kept, spent, runs)
    boxes = {prefix or "whole": goal.box for prefix, goal in goals.items()}
    save(args.name, rows, constraints=CONSTRAINTS, whole=goals[""].whole, boxes=boxes)


if __name__ == "__main__":
    main()
