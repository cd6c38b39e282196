"""The door to Optuna's sampler: TPE on a bounded part of a long study.

An ask must cost the same after ten thousand trials as after a thousand. So what has ended is looked
at once, when it ends, and the sampler sees of it what the window shows, and of the trials that run
beside it the newest; without those it would draw the same again for every free worker.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from search.window import LIMIT, Window

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

RUNNING = LIMIT // 2
"""Running trials that a sampler looks at; our default."""

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Seen:
    """What TPE reads of an ended trial, taken from the study once and not at every draw."""

    number: int
    state: TrialState
    params: Mapping[str, Any]
    values: Sequence[float]
    intermediate_values: Mapping[int, float]
    constraints: Mapping[str, float]

    @classmethod
    def of(cls, trial: FrozenTrial) -> Seen:
        """Take it from the study's trial."""
        values = trial.values if trial.state == TrialState.COMPLETE else ()
        return cls(
            trial.number, trial.state, trial.params, values, trial.intermediate_values,
            trial.constraints,
        )  # fmt: skip

    @property
    def value(self) -> float:
        """That of the only objective."""
        return self.values[0]


@dataclass
class Sight:
    """What was read of a study so far; reading on costs what is new, and what runs.

    Attributes:
        window: Chooses among what has ended.
        running: Running trials that are looked at.
    """

    window: Window[FrozenTrial] = field(default_factory=Window[FrozenTrial])
    running: int = RUNNING
    _count: int = 0
    _open: set[int] = field(default_factory=set)
    _ended: list[FrozenTrial] = field(default_factory=list)
    _shown: dict[int, Seen] = field(default_factory=dict)

    def look(self, study: optuna.Study) -> list[FrozenTrial]:
        """Read on, and return what the sampler is to see, by rising number."""
        trials = study.get_trials(deepcopy=False)
        self._open.update(range(self._count, len(trials)))
        self._count = len(trials)
        signs = [-1.0 if d.name == "MAXIMIZE" else 1.0 for d in study.directions]
        points, running = {}, []
        for number in sorted(self._open):
            trial = trials[number]
            if trial.state == TrialState.RUNNING:
                running.append(trial)
            if not trial.state.is_finished():
                continue
            self._open.discard(number)
            if trial.state in _ENDED:
                insort(self._ended, trial, key=lambda t: t.number)
            if trial.state == TrialState.COMPLETE:
                points[number] = tuple(s * x for s, x in zip(signs, trial.values, strict=True))
        known = self._shown
        chosen = self.window.look(self._ended, points)
        self._shown = {t.number: known.get(t.number) or Seen.of(t) for t in chosen}
        seen = [*cast("list[FrozenTrial]", list(self._shown.values())), *running[-self.running :]]
        return sorted(seen, key=lambda t: t.number)


class View:
    """An Optuna study as its sampler sees it during one draw."""

    def __init__(self, study: optuna.Study, sight: Sight) -> None:
        self._study = study
        self._trials = sight.look(study)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a study has
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002, FBT001, FBT002 - Optuna's own signature
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[FrozenTrial]:
        return [t for t in self._trials if states is None or t.state in states]


class WindowedTPE(optuna.samplers.TPESampler):
    """Optuna's TPE on the trials that a sight shows of the study; lives for one draw."""

    def __init__(self, sight: Sight, **settings: Any) -> None:  # noqa: ANN401 - TPESampler's own
        super().__init__(**settings)
        self._sight = sight
        self._view: View | None = None

    @override
    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Draw one parameter; the study is read at the first one of a trial."""
        if self._view is None:
            self._view = View(study, self._sight)
        return super().sample_independent(
            cast("optuna.Study", self._view), trial, param_name, param_distribution
        )
