"""A driver of its own process, for tests that kill one: ``python -m tests.drive WORD ...``.

``sweep STORAGE NAME TRIALS`` starts a sweep with the fake method, ``resume RUN`` goes on with one.
Every report writes a checkpoint.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from search import session, sweep
from search.config import SweepConfig
from spaces._domains import Fixed
from tests import fakes
from trainables._ray import Chunks

PAUSE_S, ITERATIONS = 0.1, 20


def slow_config(trials: int) -> SweepConfig:
    """A sweep whose trials take about two seconds each."""
    return SweepConfig(
        method="fake",
        space={"pause_s": Fixed(PAUSE_S, why="slow enough to be killed in the middle")},
        data={"source": "glyphs", "queries": 5},  # type: ignore[arg-type]  # pydantic reads it
        budget={"trials": trials, "iterations": ITERATIONS},  # type: ignore[arg-type]
        evaluation={"validation_tasks": 5, "test_tasks": 5},  # type: ignore[arg-type]
        early_stopping={"enabled": False},  # type: ignore[arg-type]
    )


def main(word: str, *rest: str) -> None:
    """Do as the words say."""
    fakes.install()
    often = functools.partial(Chunks, checkpoint_s=0.0)
    setattr(session, "Chunks", often)  # noqa: B010 - every report writes a checkpoint
    if word == "sweep":
        storage, name, trials = rest
        sweep.run_sweep(slow_config(int(trials)), name=name, storage=storage)
    else:
        sweep.resume(Path(rest[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
