"""Faults of a cluster, again and again: how often a sweep came through whole.

    python -m benchmarks.faults [--faults NAME,...] [--repeats N] [--minutes M] [--onward]

Three hosts in network namespaces with a Ray cluster across them (``tests/hosts.py``; needs root and
iproute2), a sweep of real processes with a method that leaves a trace of every step, and a fault at
a seeded random moment. What must hold afterwards is checked in ``tests/faults.py``. A row is the
share of the repeats that held; its floor is 1. The faults take turns, so that a limit of time cuts
all of them alike, and a row says how many repeats there were and how many are asked for.

All repeats take hours, so each is kept with the commit it was taken at, and ``--onward`` goes on
from those that held: the others, and those that did not, are injected. A row counts the newest of
each, and tells of an earlier one that did not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.record import RESULTS, Row, commit, save
from tests import fakes, hosts
from tests.faults import FAULTS
from tests.lost import FAULTS as ALONE

ASKED = {name: count for name, (_, count) in (FAULTS | ALONE).items()}


@dataclass(frozen=True)
class Repeat:
    """One fault, injected once; ``broken`` says what did not hold."""

    fault: str
    number: int
    seconds: float
    commit: str
    broken: str = ""
    seed: int = 0


@dataclass
class Tally:
    """What came of one fault so far, the newest last."""

    name: str
    asked: int
    repeats: list[Repeat] = field(default_factory=list)

    @property
    def newest(self) -> dict[int, Repeat]:
        """The last time that each repeat was taken."""
        return {one.number: one for one in self.repeats}

    @property
    def held(self) -> set[int]:
        """Those that held then."""
        return {number for number, one in self.newest.items() if not one.broken}

    def row(self) -> Row:
        """The share that held."""
        newest = self.newest.values()
        held = [one for one in newest if not one.broken]
        mean = sum(one.seconds for one in newest) / len(newest)
        places = Counter(one.commit for one in newest)
        said = [f"{len(held)} of {len(newest)} held; {self.asked} are asked for; {mean:.0f} s each"]
        if len(places) > 1:
            said.append(", ".join(f"{count} at {place}" for place, count in places.items()))
        broken = [one for one in self.repeats if one.broken]
        broken.sort(key=lambda one: one is not self.newest[one.number])
        for one in broken[:3]:
            again = "" if one is self.newest[one.number] else f" at {one.commit}, taken again"
            said.append(f"repeat {one.number}{again}: {one.broken}")
        share = len(held) / len(newest)
        return Row(self.name, share, "share", "higher", 1.0, detail="; ".join(said))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", default=",".join(ASKED), help="names, with commas between")
    parser.add_argument("--repeats", type=int, help="at most so many of each; all if left out")
    parser.add_argument("--minutes", type=float, help="after which no repeat begins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--onward", action="store_true", help="from the stored repeats")
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


def kept(file: Path, seed: int = 0) -> list[Repeat]:
    """The repeats with this seed that a result file holds."""
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    repeats = [Repeat(**one) for one in document.get("repeats", [])]
    return [one for one in repeats if one.seed == seed and one.fault in ASKED]


def inject(tally: Tally, number: int, cluster: hosts.Cluster, folder: Path, seed: int) -> None:
    """One fault, counted; what did not hold is kept in one line."""
    began, broken = time.monotonic(), ""
    chance = random.Random(f"{tally.name} {number} {seed}")
    try:
        where = folder / f"{tally.name}-{number}"
        if tally.name in ALONE:
            ALONE[tally.name][0](where, chance)
        else:
            FAULTS[tally.name][0](cluster, where, chance)
    except Exception as error:  # noqa: BLE001 - counted, and the next repeat begins anew
        traceback.print_exc()
        said = str(error).replace(f"{folder}/", "")  # where this machine has it tells nobody more
        broken = said.splitlines()[0] if said else type(error).__name__
        cluster.rejoin()
    seconds = round(time.monotonic() - began, 1)
    tally.repeats.append(Repeat(tally.name, number, seconds, commit(), broken, seed))
    print(f"{'MISS' if broken else 'ok'} {tally.name} {number}: {seconds:.0f} s", flush=True)


def main() -> int:
    """Injects, and saves."""
    args = arguments()
    if why := hosts.missing():
        print(f"Faults are injected into three hosts, and {why}.")
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was done by then is saved
    fakes.install()
    counts = {name: min(ASKED[name], args.repeats or 10**9) for name in args.faults}
    tallies = {name: Tally(name, ASKED[name]) for name in ASKED}
    for one in kept(RESULTS / f"{args.name}.json", args.seed) if args.onward else []:
        tallies[one.fault].repeats.append(one)
    began = time.monotonic()
    with (
        suppress(KeyboardInterrupt),
        hosts.cluster() as cluster,
        tempfile.TemporaryDirectory(prefix="ftruns") as made,
    ):
        for name, number in turns(counts):
            if args.minutes is not None and time.monotonic() - began > 60 * args.minutes:
                break
            if number not in tallies[name].held:
                inject(tallies[name], number, cluster, Path(made), args.seed)
    rows = [tally.row() for tally in tallies.values() if tally.repeats]
    if not rows:
        return 1
    every = [asdict(one) for tally in tallies.values() for one in tally.repeats]
    save(args.name, rows, repeats=every)
    return int(not all(row.holds() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
