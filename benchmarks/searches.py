"""Searches that a simulated clock drives: stock samplers and schedulers, and the sweep's own.

Objectives are accuracy, parameters and multiply-accumulates of an adaptation. An adaptation setting
is an epsilon and a number of steps, 8 in all: a stock search draws it as parameters and trains a
model for each; ours trains once, scores all settings, stops by Pareto rank, and refuses what is too
large before it costs anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import optuna
from ray.tune.schedulers import TrialScheduler

from benchmarks.recorded import SPACE, STEPS
from benchmarks.simulator import Job, Setting
from search._schedulers import ParetoHalving
from spaces._domains import Choice, Float, Int

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.simulator import Entry, Lap, Table
    from search._optuna import Study
    from search.config import EarlyStoppingConfig
    from search.constraints import Constraint
    from search.metrics import Direction
    from spaces._domains import Space, Value

OBJECTIVES: Mapping[str, Direction] = {
    "accuracy": "max", "student_params": "min", "adapt_macs": "min"
}  # fmt: skip
SETTINGS = [Setting(e, t) for e, t in product((0.0, 0.005, 0.01, 0.02), (1, STEPS))]
ADAPTATION: Space = {
    "epsilon": Choice((0.0, 0.005, 0.01, 0.02), why="none, and around the constraint"),
    "adapt_steps": Choice((1, STEPS), why="the least and the most that are scored"),
}
WHOLE: Space = {**SPACE, **ADAPTATION}
STARTUP = 10  # random draws at first: the default of both sides
KNOWN = "student_"  # how the metrics begin that are known before training


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
        trial = self.study.ask(_distributions({**self.table.space, **ADAPTATION}))
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
        early = [c for c in self.study.constraints if c.metric.startswith(KNOWN)]
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


def halving(
    iterations: int, constraints: list[Constraint], early: EarlyStoppingConfig
) -> ParetoHalving:
    """As a sweep with this section has it."""
    return ParetoHalving(
        iterations, OBJECTIVES, constraints=constraints, grace=early.grace,
        reduction=early.reduction, tolerance=early.tolerance,
    )  # fmt: skip
