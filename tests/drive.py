"""A driver of its own process, for tests that kill one: ``python -m tests.drive WORD ...``.

``sweep STORAGE NAME TRIALS`` starts a sweep with the fake method, ``resume RUN`` goes on with one;
both take ``--address`` of a cluster, and addresses of buckets. Every report writes a checkpoint. It
ends as ``fewtune`` does.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from search import mirror, session, sweep
from search.config import SweepConfig
from search.outlets import end
from search.remote import Remote
from spaces._domains import Fixed
from tests import fakes
from trainables._trial import Chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE_S, ITERATIONS = 0.1, 20


def slow_config(
    trials: int, seed: int = 0, pause_s: float = PAUSE_S, *, scales: bool = False
) -> SweepConfig:
    """A sweep whose trials take about two seconds each."""
    return SweepConfig(
        method="fake",
        space={"pause_s": Fixed(pause_s, why="slow enough to be killed in the middle")},
        data={"source": "glyphs", "queries": 5},  # type: ignore[arg-type]  # pydantic reads it
        budget={"trials": trials, "iterations": ITERATIONS},  # type: ignore[arg-type]
        evaluation={"validation_tasks": 5, "test_tasks": 5},  # type: ignore[arg-type]
        early_stopping={"enabled": False},  # type: ignore[arg-type]
        resources={"scales": scales, "concurrent": 2 if scales else None},  # type: ignore[arg-type]
        seed=seed,
    )


def read(words: Sequence[str]) -> argparse.Namespace:
    """What the words say."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--address")
    common.add_argument("--mirror-s", type=float, help="between two looks of a run's copy")
    common.add_argument("--turns", type=int, help="patience with a bucket that fails")
    common.add_argument("--checkpoint-s", type=float, default=0.0)
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="word", required=True)
    new = kinds.add_parser("sweep", parents=[common])
    new.add_argument("storage", help="a directory, or the address of a bucket")
    new.add_argument("name")
    new.add_argument("trials", type=int)
    new.add_argument("--seed", type=int, default=0)
    new.add_argument("--pause-s", type=float, default=PAUSE_S)
    new.add_argument("--scales", action="store_true", help="nodes are to come")
    kinds.add_parser("resume", parents=[common]).add_argument("run")
    return parser.parse_args(words)


def main(*words: str) -> None:
    """Do as the words say."""
    args = read(words)
    fakes.install()
    often = functools.partial(Chunks, checkpoint_s=args.checkpoint_s)
    setattr(session, "Chunks", often)  # noqa: B010 - every report writes a checkpoint
    if args.mirror_s is not None:
        last_s = mirror.LAST_S if args.turns is None else 10.0 * args.turns
        kept_up = functools.partial(mirror.Mirror, every_s=args.mirror_s, last_s=last_s)
        setattr(mirror, "Mirror", kept_up)  # noqa: B010
    if args.turns is not None:
        usual, turns = Remote.of, args.turns
        hasty = lambda run: (found := usual(run)) and replace(found, turns=turns)  # noqa: E731
        setattr(Remote, "of", hasty)  # noqa: B010
    if args.word == "sweep":
        config = slow_config(args.trials, args.seed, args.pause_s, scales=args.scales)
        sweep.run_sweep(config, name=args.name, storage=args.storage, address=args.address)
    else:
        sweep.resume(args.run, address=args.address)


if __name__ == "__main__":
    end(lambda: main(*sys.argv[1:]), debug=False)
