"""Faults of a cluster, again and again: how often a sweep came through whole.

    python -m benchmarks.faults [--faults NAME,...] [--repeats N] [--minutes M] [--seed S]

Three hosts in network namespaces with a Ray cluster across them (``tests/hosts.py``; needs root and
iproute2), a sweep of real processes with a method that leaves a trace of every step, and a fault at
a seeded random moment. What must hold afterwards is checked in ``tests/faults.py``. A row is the
share of the repeats that held; its floor is 1. The faults take turns, so that a limit of time cuts
all of them alike, and a row says how many repeats there were and how many are asked for.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.record import Row, save
from tests import fakes, hosts
from tests.faults import FAULTS
from tests.lost import FAULTS as ALONE

ASKED = {name: count for name, (_, count) in (FAULTS | ALONE).items()}


@dataclass
class Tally:
    """What came of one fault so far."""

    name: str
    asked: int
    seconds: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Repeats so far."""
        return len(self.seconds)

    def row(self) -> Row:
        """The share that held."""
        held = self.done - len(self.broken)
        said = f"{held} of {self.done} held; {self.asked} are asked for"
        said += f"; {sum(self.seconds) / self.done:.0f} s each"
        return Row(
            self.name, held / self.done, "share", "higher", 1.0,
            detail="; ".join([said, *self.broken[:3]]),
        )  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", default=",".join(ASKED), help="names, with commas between")
    parser.add_argument("--repeats", type=int, help="at most so many of each; all if left out")
    parser.add_argument("--minutes", type=float, help="after which no repeat begins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="faults")
    args = parser.parse_args()
    args.faults = [name for name in args.faults.split(",") if name]
    if unknown := sorted(set(args.faults) - set(ASKED)):
        parser.error(f"there are {', '.join(ASKED)}; found {', '.join(unknown)}")
    return args


def turns(asked: dict[str, int]) -> list[tuple[str, int]]:
    """Faults and numbers of their repeats, so ordered that all are as far as each other.

    Example:
        >>> turns({"a": 4, "b": 2})
        [('a', 0), ('b', 0), ('a', 1), ('a', 2), ('b', 1), ('a', 3)]
    """
    every = [(n / count, name, n) for name, count in asked.items() for n in range(count)]
    return [(name, n) for _, name, n in sorted(every, key=lambda one: one[0])]


def inject(tally: Tally, number: int, cluster: hosts.Cluster, folder: Path, seed: int) -> None:
    """One fault, counted; what did not hold is kept in one line."""
    began = time.monotonic()
    chance = random.Random(f"{tally.name} {number} {seed}")
    try:
        where = folder / f"{tally.name}-{number}"
        if tally.name in ALONE:
            ALONE[tally.name][0](where, chance)
        else:
            FAULTS[tally.name][0](cluster, where, chance)
    except Exception as error:  # noqa: BLE001 - counted, and the next repeat begins anew
        traceback.print_exc()
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        tally.broken.append(f"repeat {number}: {first}")
        cluster.rejoin()
    tally.seconds.append(time.monotonic() - began)
    mark = "MISS" if tally.broken and tally.broken[-1].startswith(f"repeat {number}:") else "ok"
    print(f"{mark} {tally.name} {number}: {tally.seconds[-1]:.0f} s", flush=True)


def main() -> int:
    """Injects, and saves."""
    args = arguments()
    if why := hosts.missing():
        print(f"Faults are injected into three hosts, and {why}.")
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was done by then is saved
    fakes.install()
    counts = {name: min(ASKED[name], args.repeats or 10**9) for name in args.faults}
    tallies = {name: Tally(name, ASKED[name]) for name in args.faults}
    began = time.monotonic()
    with (
        suppress(KeyboardInterrupt),
        hosts.cluster() as cluster,
        tempfile.TemporaryDirectory(prefix="ftruns") as made,
    ):
        for name, number in turns(counts):
            if args.minutes is not None and time.monotonic() - began > 60 * args.minutes:
                break
            inject(tallies[name], number, cluster, Path(made), args.seed)
    rows = [tally.row() for tally in tallies.values() if tally.done]
    if not rows:
        return 1
    save(args.name, rows)
    return int(not all(row.holds() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
