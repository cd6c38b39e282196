"""The one door to Optuna: a study that can be asked, told, killed and opened again.

The study is the record of the search. It is multi-objective and constrained (``set_constraint``,
Optuna 5), lies in a journal file whose only writer is the driver, and is named by its content, so
that two sweeps never merge by accident. Failed trials are told FAIL with a reason, trials stopped
early PRUNED, and a tell that Optuna refuses is an error here too.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import optuna
from optuna.trial import TrialState
from typing_extensions import override

from search._sampler import Sight, WindowedTPE
from search._storages import close_database, mend_journal, open_database, open_journal
from search.databases import JOURNAL
from search.errors import OUT_OF_MEMORY, UserError
from search.pareto import losses
from search.rundir import finite
from spaces._domains import Choice, Domain, Fixed, Float, Int, Space, Value, active

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from search.constraints import Constraint
    from search.metrics import Direction
    from search.points import Observation

ORIGIN = "observed in"  # the user attribute that marks another run's trial
OF = "of"  # user attribute of a trial that is another's model, adapted differently
MEMORY_CONSTRAINT = "fits in memory"

WAITING, RUNNING = TrialState.WAITING.name, TrialState.RUNNING.name


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number in the study, and what was drawn for it."""

    number: int
    config: dict[str, Value]


def study_name(
    name: str, space: Space, objectives: Mapping[str, Direction], contents: Sequence[str]
) -> str:
    """Name a study by its content: what is searched, for what, from which data and students."""
    content = json.dumps([[f"{k}: {v}" for k, v in space.items()], dict(objectives), *contents])
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


@dataclass
class Study:
    """One Optuna study and the translation of a space to it. Pickles as what opens it again.

    Attributes:
        journal: The journal file; made where there is none.
        storage: ``journal``, or what names a database's URL; the URL itself is never kept.
        fresh: Whether the study must not be there yet; a database may hold another run's.
        name: What ``study_name`` returned.
        space: What is drawn, in this order.
        objectives: Metric to direction.
        constraints: What a feasible trial keeps.
        seed: Of the sampler; the n-th draw depends on it, on n and on what is told by then.
        startup: Trials drawn at random before the sampler models anything.
        mended: What of the journal had to be mended when it was opened; empty: nothing.
    """

    journal: Path
    name: str
    space: Space
    objectives: Mapping[str, Direction]
    constraints: Sequence[Constraint] = ()
    seed: int = 0
    startup: int = 10
    storage: str = JOURNAL
    fresh: bool = False
    mended: str = ""

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if d == "max" else "minimize" for d in self.objectives.values()
        ]
        self._live: dict[int, optuna.Trial] = {}
        self._sight = Sight()
        self._asked = self._beside = 0  # draws so far, and trials of models trained before
        try:
            self._study = optuna.create_study(
                study_name=self.name,
                storage=self._opened(),
                directions=directions,
                sampler=self._sampler(0),
                load_if_exists=not self.fresh,
            )
        except optuna.exceptions.DuplicatedStudyError:
            self.close()
            raise UserError(
                f"The database (`study` in the sweep file) has a study {self.name} already: "
                "another run writes to it. Give this run another --name."
            ) from None
        self.fresh = False
        with warnings.catch_warnings():  # experimental, and only names columns in other tools
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(self.objectives))
        trials = self._trials()
        self._beside = sum(OF in t.user_attrs for t in trials)
        self._asked = sum(t.state != TrialState.WAITING for t in trials) - self._beside

    @override
    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs to open the study itself."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the study again."""
        self.__dict__.update(state)
        self.__post_init__()

    def close(self) -> None:
        """Give a database's connections back; a journal has nothing open."""
        if self._database is not None:
            close_database(self._database)

    def _opened(self) -> optuna.storages.BaseStorage:
        self._database: optuna.storages.RDBStorage | None = None
        if self.storage != JOURNAL:
            self._database = open_database(self.storage)
            return self._database
        self.mended = mend_journal(self.journal)
        return open_journal(self.journal)

    def states(self) -> dict[int, str]:
        """Return the state of every trial by its number."""
        return {t.number: t.state.name for t in self._trials()}

    def propose(self, config: Mapping[str, Value]) -> None:
        """Queue a configuration to be handed out before anything is drawn."""
        drawn = {k: v for k, v in config.items() if not isinstance(self.space[k], Fixed)}
        queued = [t.system_attrs.get("fixed_params") for t in self._trials()]
        if drawn not in queued:  # unlike skip_if_exists, which other runs' trials would count for
            self._study.enqueue_trial(drawn)

    def begun(self) -> bool:
        """Tell whether a trial of this study's own was handed out."""
        return any(
            t.state != TrialState.WAITING and ORIGIN not in t.user_attrs for t in self._trials()
        )

    def observe(self, observations: Sequence[Observation]) -> None:
        """Add what other runs observed, for the sampler to learn from; what is there stays once.

        Raises:
            ValueError: One of them has no finite number for an objective or a constraint.
        """
        known = {t.user_attrs.get(ORIGIN) for t in self._trials()}
        for one in observations:
            if one.origin in known:
                continue
            if problem := self.unusable(one.metrics):
                raise ValueError(f"The trial {one.origin} cannot be observed: {problem}")
            drawn = {k: v for k, v in one.config.items() if not isinstance(self.space[k], Fixed)}
            trial = optuna.trial.create_trial(
                params=drawn,
                distributions={name: distribution_of(self.space[name]) for name in drawn},
                values=self._values(one.metrics),
                user_attrs={**finite(dict(one.metrics)), ORIGIN: one.origin},
                constraints={str(c): c.violation(one.metrics) for c in self.constraints},
            )
            self._study.add_trial(trial)
            self._asked += 1

    def ask(self) -> Suggestion:
        """Draw the next trial."""
        self._study.sampler = self._sampler(self._asked)
        trial = self._study.ask()
        self._asked += 1
        self._live[trial.number] = trial
        return Suggestion(trial.number, self._draw(trial))

    def ask_again(self, number: int) -> Suggestion:
        """Hand out a trial that was left running, with the configuration it had.

        What a killed driver had not drawn yet is drawn now.
        """
        self._study.sampler = self._sampler(number)
        return Suggestion(number, self._draw(self._trial(number)))

    @property
    def next(self) -> int:
        """The number that the next trial will have."""
        return len(self._trials())

    def add(self, config: Mapping[str, Value], metrics: Mapping[str, object], of: int) -> int:
        """Record a complete trial that nobody asked for: another adaptation of a trained model.

        Returns:
            Its number.

        Raises:
            ValueError: An objective or a constraint has no finite number.
        """
        if problem := self.unusable(metrics):
            raise ValueError(f"A trial beside {of} cannot be recorded as complete: {problem}")
        drawn = {k: v for k, v in config.items() if not isinstance(self.space[k], Fixed)}
        told = {k: finite(v) for k, v in metrics.items() if v is not None}
        signs = [-1.0 if d == "max" else 1.0 for d in self.objectives.values()]
        point = losses(metrics, self.objectives) or ()
        number = self.next
        self._study.add_trial(
            optuna.trial.create_trial(
                values=[s * x for s, x in zip(signs, point, strict=True)],
                params=drawn,
                distributions={name: distribution_of(self.space[name]) for name in drawn},
                user_attrs={**told, OF: of},
                constraints={str(c): c.violation(metrics) for c in self.constraints},
            )
        )
        self._beside += 1
        return number

    def complete(self, number: int, metrics: Mapping[str, object]) -> None:
        """Record a finished trial.

        Raises:
            ValueError: An objective or a constraint has no finite number, or the trial had ended.
        """
        if problem := self.unusable(metrics):
            raise ValueError(f"Trial {number} cannot be recorded as complete: {problem}")
        self._describe(number, metrics)
        self._tell(number, TrialState.COMPLETE, self._values(metrics))

    def prune(self, number: int, metrics: Mapping[str, object], reason: str) -> None:
        """Record a trial that was stopped early, with what it had reached."""
        self._describe(number, metrics)
        self._trial(number).set_user_attr("stopped", reason)
        self._tell(number, TrialState.PRUNED, None)

    def fail(
        self, number: int, failure: Mapping[str, object], metrics: Mapping[str, object]
    ) -> None:
        """Record a trial that failed, with kind and reason.

        One that ran out of memory broke a constraint that nobody wrote down; the sampler knows
        nothing of FAIL trials, so it is told as a PRUNED one that is infeasible.
        """
        self._describe(number, metrics)
        trial = self._trial(number)
        trial.set_user_attr("failure", finite(dict(failure)))
        if failure.get("kind") != OUT_OF_MEMORY:
            self._tell(number, TrialState.FAIL, None)
            return
        if MEMORY_CONSTRAINT not in self._frozen(number).constraints:
            trial.set_constraint(MEMORY_CONSTRAINT, 1.0)
        self._tell(number, TrialState.PRUNED, None)

    def unusable(self, metrics: Mapping[str, object]) -> str:
        """Say why metrics cannot be told as complete; an empty string where they can."""
        needed = dict.fromkeys([*self.objectives, *(c.metric for c in self.constraints)])
        for name in needed:
            value = metrics.get(name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                return f"the metric {name} is missing."
            if not math.isfinite(value):
                return f"the metric {name} is {value}, which is no finite number."
        return ""

    def _values(self, metrics: Mapping[str, object]) -> list[float]:
        point = losses(metrics, self.objectives) or ()
        signs = [-1.0 if d == "max" else 1.0 for d in self.objectives.values()]
        return [s * x for s, x in zip(signs, point, strict=True)]

    def _describe(self, number: int, metrics: Mapping[str, object]) -> None:
        trial, known = self._trial(number), self._frozen(number).constraints
        for name, value in metrics.items():
            if value is not None:
                trial.set_user_attr(name, finite(value))
        for constraint in self.constraints:
            violation = constraint.violation(metrics)
            if math.isfinite(violation) and str(constraint) not in known:
                trial.set_constraint(str(constraint), violation)

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        self._study.tell(number, values, state=state)
        self._live.pop(number, None)

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._live:
            frozen = self._trials()[number]
            self._live[number] = optuna.Trial(self._study, frozen._trial_id)  # noqa: SLF001 - no public way to a running trial
        return self._live[number]

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        storage, trial = self._study._storage, self._trial(number)  # noqa: SLF001 - reads one trial, not all
        return storage.get_trial(trial._trial_id)  # noqa: SLF001

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _sampler(self, draw: int) -> optuna.samplers.BaseSampler:
        # Seeded anew for every draw: a resumed search must not repeat the first one's numbers.
        seed = int(np.random.SeedSequence([self.seed, draw]).generate_state(1)[0])
        startup = self.startup + self._beside
        return WindowedTPE(self._sight, seed=seed, n_startup_trials=startup)

    def _draw(self, trial: optuna.Trial) -> dict[str, Value]:
        drawn: dict[str, Value] = {}
        for name, domain in self.space.items():
            if active(domain, drawn):
                drawn[name] = _suggest(trial, name, domain)
        return drawn


def distribution_of(domain: Domain) -> optuna.distributions.BaseDistribution:
    """Return what ``_suggest`` draws from."""
    if isinstance(domain, Float):
        return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return optuna.distributions.IntDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Choice):
        return optuna.distributions.CategoricalDistribution(domain.options)
    raise TypeError(f"A fixed parameter is not drawn; found {domain.text()}.")


def _suggest(trial: optuna.Trial, name: str, domain: Domain) -> Value:
    if isinstance(domain, Float):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, Choice):
        return cast("Value", trial.suggest_categorical(name, domain.options))
    return domain.value
