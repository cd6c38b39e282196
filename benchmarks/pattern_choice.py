"""Choosing a pattern by racing, against scoring all 31 patterns of a Conv-4.

    FEWTUNE_DATA=... python -m benchmarks.pattern_choice [--heads shared,prototype]

Takes one Omniglot student a head (``models``), then runs both ways on the same
validation tasks, in turn: the whole table goes chunk by chunk, and after each third of it every
epsilon is raced from nothing. Both end with what a trial reports: the chosen pattern and the full
one on all tasks, and the adaptation times of every pattern that was scored.

The tables together are a pool of tasks whose accuracies are known for all patterns and steps. From
it each seeded repeat draws N tasks in a new order, races on them and is held to their own table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from benchmarks.models import Recipe, student
from benchmarks.record import Row, save
from trainables._core.ending import CHUNK, VALIDATION_SEED, macs, measure, scored_tasks
from trainables._core.episodes import Sampler, TaskShape
from trainables._core.evaluate import Setting, interval
from trainables._core.patterns import Score, candidates, choose, full
from trainables._core.race import Scored, Terms, race
from trainables._data import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainables._core.evaluate import Accuracies
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._core.race import Key
    from trainables._data import Dataset

SHAPE = TaskShape(5, 1, 15)
STEPS = 5
EPSILONS = (0.005, 0.01, 0.02)
TIME_FLOOR, SAME_FLOOR = 1 / 8, 0.95
REFERENCE = (full(5), STEPS)
THIRDS = 3  # races a table, for every epsilon


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", default="shared,prototype")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=300, help="N, validation tasks of a choice")
    parser.add_argument("--tables", type=int, default=2, help="whole tables; their tasks: the pool")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="pattern_choice")
    return parser.parse_args()


@dataclass(frozen=True)
class Scene:
    """A student, the tasks it is judged on, and what its patterns cost."""

    network: Network
    meta: Params
    sampler: Sampler
    setting: Setting
    costs: dict[Key, float]


def scene(recipe: Recipe, data: Dataset, device: str) -> Scene:
    """Everything a choice needs, with a student that is meta-trained unless it is kept."""
    network, params = student(recipe, data)
    setting = Setting(STEPS, recipe.inner_rate, SHAPE.ways, views=0, inductive=True)
    keys = [(p, t) for p in candidates(len(network.layers)) for t in range(1, STEPS + 1)]
    return Scene(
        network,
        {n: p.to(device) for n, p in params.items()},
        Sampler(data.validation, data, SHAPE, device),
        setting,
        macs(network, setting, SHAPE, keys),
    )


@dataclass
class Clock:
    """Seconds inside its ``with``: of this process on a CPU, on the wall with a GPU at work."""

    device: str
    seconds: float = 0.0
    wall: float = 0.0

    def _now(self) -> tuple[float, float]:
        if self.device != "cpu":
            torch.cuda.synchronize()
        wall = time.perf_counter()
        return (time.process_time() if self.device == "cpu" else wall), wall

    def __enter__(self) -> None:
        self._start = self._now()

    def __exit__(self, *_: object) -> None:
        seconds, wall = self._now()
        self.seconds += seconds - self._start[0]
        self.wall += wall - self._start[1]


@dataclass
class Measured:
    """One whole table and the races beside it."""

    accuracies: Accuracies
    table: Clock
    races: dict[float, list[Clock]] = field(default_factory=dict)
    chosen: dict[float, list[Key]] = field(default_factory=dict)


def terms(epsilon: float) -> Terms:
    """What an entry is held to."""
    return Terms(REFERENCE, epsilon, SHAPE.ways * SHAPE.queries)


def empty(given: Scene, seed: int, tasks: int) -> Scored:
    """A table of all patterns and steps, nothing scored yet."""
    return scored_tasks(
        given.network,
        given.meta,
        given.sampler,
        given.setting,
        seed=seed,
        tasks=tasks,
        patterns=dict.fromkeys(pattern for pattern, _ in given.costs),
    )


def side_by_side(given: Scene, seed: int, tasks: int) -> Measured:
    """The whole table, and after each third of it a race for every epsilon."""

    def priced(scored: Scored) -> None:
        args = (given.network, given.meta, given.sampler, given.setting)
        measure(*args, seed, scored.accuracies())

    device = given.sampler.device
    table, scored = Clock(device), empty(given, seed, tasks)
    found = Measured({}, table)
    chunks = len(scored.ends)
    for number in range(1, chunks + 1):
        with table:
            scored.extend(scored.keys, number)
        if number * THIRDS % chunks < THIRDS:
            print(f"chunk {number} of {chunks}: {table.seconds:.0f} s of the table", flush=True)
            for epsilon in EPSILONS:
                clock = Clock(device)
                with clock:
                    raced = empty(given, seed, tasks)
                    key = race(raced, given.costs, terms(epsilon))
                    priced(raced)
                found.races.setdefault(epsilon, []).append(clock)
                found.chosen.setdefault(epsilon, []).append(key)
    with table:
        priced(scored)
    found.accuracies = scored.accuracies()
    return found


def of_the_table(accuracies: Accuracies, costs: dict[Key, float], epsilon: float) -> Key:
    """The choice that the complete table gives."""
    rows = [
        Score(p, t, *interval(values), 0.0, 0.0, int(costs[p, t]), 0.0, len(values))
        for (p, t), values in accuracies.items()
    ]
    chosen, _ = choose(rows, epsilon)
    return chosen.pattern, chosen.step


def drawn(pool: Accuracies, seed: int, tasks: int) -> Accuracies:
    """N tasks of the pool in a new order."""
    of = len(pool[REFERENCE])
    index = torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:tasks]
    return {key: values[index] for key, values in pool.items()}


def from_pool(accuracies: Accuracies, chunk: int = CHUNK) -> Scored:
    """An empty table over tasks whose accuracies are known."""
    parts = {key: values.split(chunk) for key, values in accuracies.items()}
    score: Callable[..., Accuracies] = lambda number, wanted: {  # noqa: E731
        (p, t): parts[p, t][number] for p, steps in wanted.items() for t in steps
    }
    return Scored(score, [len(part) for part in parts[REFERENCE]], accuracies)


def same_choice(
    pool: Accuracies, costs: dict[Key, float], epsilon: float, tasks: int, repeats: int
) -> tuple[int, list[Key]]:
    """In how many repeats the race chose as the table of the same tasks; the table's choices."""
    agreed, chosen = 0, []
    for seed in range(repeats):
        accuracies = drawn(pool, seed, tasks)
        chosen.append(of_the_table(accuracies, costs, epsilon))
        agreed += race(from_pool(accuracies), costs, terms(epsilon)) == chosen[-1]
    return agreed, chosen


def rows_of(
    head: str, epsilon: float, tables: list[Measured], costs: dict[Key, float], repeats: int
) -> list[Row]:
    """The two figures of one head and epsilon."""
    tasks = len(tables[0].accuracies[REFERENCE])
    points = f"{head}_{epsilon * 100:g}"
    shares = [c.seconds / m.table.seconds for m in tables for c in m.races[epsilon]]
    walls = [c.wall / m.table.wall for m in tables for c in m.races[epsilon]]
    seconds = statistics.median(c.seconds for m in tables for c in m.races[epsilon])
    whole = statistics.median(m.table.seconds for m in tables)
    alike = [
        key == of_the_table(m.accuracies, costs, epsilon)
        for m in tables
        for key in m.chosen[epsilon]
    ]
    pool = {k: torch.cat([m.accuracies[k] for m in tables]) for k in tables[0].accuracies}
    agreed, chosen = same_choice(pool, costs, epsilon, tasks, repeats)
    common = sorted(set(chosen), key=chosen.count, reverse=True)[:3]
    return [
        Row(
            f"time_share_{points}",
            statistics.median(shares),
            "share",
            "lower",
            TIME_FLOOR,
            "own table of all 31 patterns",
            f"{seconds:.1f} s against {whole:.0f} s for N = {tasks}, median of {len(shares)} races "
            f"in turn with {len(tables)} tables ({min(shares):.3f} to {max(shares):.3f}; on the "
            f"wall {statistics.median(walls):.3f}); {sum(alike)} of them chose as the table",
        ),
        Row(
            f"same_choice_{points}",
            agreed / repeats,
            "share",
            "higher",
            SAME_FLOOR,
            "own table of all 31 patterns",
            f"{repeats} repeats draw N = {tasks} of {len(pool[REFERENCE])} tasks scored once; the "
            "tables chose "
            + ", ".join(f"{p} after {t} ({chosen.count((p, t))})" for p, t in common),
        ),
    ]


def main() -> None:
    """Trains, runs both ways, and saves."""
    args = arguments()
    torch.set_num_threads(args.threads)
    data = load("omniglot", root=None)
    rows: list[Row] = []
    for head in args.heads.split(","):
        given = scene(Recipe("omniglot", args.width, head, args.iterations), data, args.device)
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + args.tables)
        tables = [side_by_side(given, seed, args.tasks) for seed in seeds]
        for epsilon in EPSILONS:
            rows += rows_of(head, epsilon, tables, given.costs, args.repeats)
    save(args.name, rows, threads=args.threads, device=args.device)


if __name__ == "__main__":
    main()
