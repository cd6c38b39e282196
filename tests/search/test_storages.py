"""The run's journal knows what waits without a look at every trial; here it is held to Optuna's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from search._storages import open_journal

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial

ASKED = [None, (TrialState.WAITING,), (TrialState.RUNNING,), (TrialState.COMPLETE, TrialState.FAIL)]


def told(trials: list[FrozenTrial]) -> list[tuple[int, TrialState, dict[str, object]]]:
    return [(t.number, t.state, t.params) for t in trials]


def at_random(study: optuna.Study, chance: random.Random) -> None:
    """One thing that a sweep does to its study."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    what = chance.choice(["enqueue", "ask", "ask", "tell", "add"])
    if what == "enqueue":
        study.enqueue_trial({"x": chance.random()})
    elif what == "ask":
        study.ask().suggest_float("x", 0, 1)
    elif what == "add":
        study.add_trial(optuna.trial.create_trial(values=[0.0]))
    elif running:
        state = chance.choice([TrialState.FAIL, TrialState.COMPLETE])
        values = [0.5] if state == TrialState.COMPLETE else None
        study.tell(chance.choice(running).number, values, state=state)


@pytest.mark.parametrize("seed", range(3))
def test_it_says_of_all_trials_what_optunas_own_says(tmp_path: Path, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chance = random.Random(seed)
    storage = open_journal(tmp_path / "journal")
    study = optuna.create_study(storage=storage, study_name="a")
    other = optuna.create_study(storage=storage, study_name="b")
    seen = set()
    for turn in range(40):
        at_random(study if chance.random() < 0.8 else other, chance)
        if turn == 20:  # as a resumed sweep does
            storage = open_journal(tmp_path / "journal")
            study, other = (optuna.load_study(study_name=n, storage=storage) for n in "ab")
        for one in (study, other):
            for states in ASKED:
                mine = one.get_trials(deepcopy=False, states=states)
                theirs = JournalStorage.get_all_trials(storage, one._study_id, states=states)
                assert told(mine) == told(theirs)
                seen.add((states, bool(mine)))
    assert {(states, True) for states in ASKED} <= seen
