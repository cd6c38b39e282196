"""Choosing a pattern by racing, against scoring all 31 patterns of a Conv-4.

    FEWTUNE_DATA=... python -m benchmarks.pattern_choice [--heads shared,prototype]

Meta-trains one small Omniglot student a head (kept under runs/), then runs both ways on the same
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
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.record import Row, save
from trainables._core import evaluate
from trainables._core.ending import VALIDATION_SEED, macs, measure, scored_tasks
from trainables._core.episodes import Sampler
from trainables._core.patterns import candidates, choose, full
from trainables._core.race import Scored, Terms, race
from trainables._data import load
from trainables._learner import RunSettings, TaskShape
from trainables.maml import Maml

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainables._core.evaluate import Accuracies
    from trainables._core.race import Key
    from trainables._core.rig import Rig

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
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--tasks", type=int, default=300, help="N, validation tasks of a choice")
    parser.add_argument("--tables", type=int, default=2, help="whole tables; their tasks: the pool")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, default=Path("runs"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="pattern_choice")
    return parser.parse_args()


def trained(args: argparse.Namespace, head: str, data: object) -> Rig:
    """A meta-trained student, from ``--models`` where it is already there."""
    config = {
        "student.width": args.width,
        "student.head": head,
        "inner_steps": STEPS,
        "inner_rate": 0.1,
        "order": "first",
        "outer_rate": 5e-3,
    }
    run = RunSettings(args.iterations, seed=0, device=args.device)
    learner = Maml(config, data, TaskShape(5, 1, 5), run)
    file = args.models / f"pattern_choice_{head}_{args.width}_{args.iterations}.pt"
    if file.is_file():
        learner.load_state_dict(torch.load(file, weights_only=True))  # noqa: TID251  its own file
    else:
        for _ in range(args.iterations):
            learner.step()
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(learner.state_dict(), file)
    rig = learner.rig
    rig.meta = {n: p.detach() for n, p in rig.meta.items()}
    rig.validation = Sampler(data.validation, data, SHAPE, args.device)
    return rig


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
    rows: dict[float, int] = field(default_factory=dict)  # pairs of pattern and task scored


def terms(epsilon: float) -> Terms:
    """What an entry is held to."""
    return Terms(REFERENCE, epsilon, SHAPE.ways * SHAPE.queries)


def side_by_side(rig: Rig, costs: dict[Key, float], seed: int, tasks: int) -> Measured:
    """The whole table, and after each third of it a race for every epsilon."""
    meta, setting = rig.meta, rig.setting

    def fresh() -> Scored:
        return scored_tasks(
            rig.network,
            meta,
            rig.validation,
            setting,
            seed=seed,
            tasks=tasks,
            patterns=candidates(5),
        )

    def timed(scored: Scored) -> None:
        measure(rig.network, meta, rig.validation, setting, seed, scored.accuracies())

    device = rig.validation.device
    table, scored = Clock(device), fresh()
    found = Measured({}, table)
    chunks = len(scored.ends)
    for number in range(1, chunks + 1):
        with table:
            scored.extend(scored.keys, number)
        if number * THIRDS % chunks < THIRDS:
            for epsilon in EPSILONS:
                clock = Clock(device)
                with clock:
                    raced = fresh()
                    key = race(raced, costs, terms(epsilon))
                    timed(raced)
                found.races.setdefault(epsilon, []).append(clock)
                found.chosen.setdefault(epsilon, []).append(key)
                found.rows[epsilon] = sum(map(raced.tasks, raced.keys))
        print(f"chunk {number} of {chunks}: {table.seconds:.0f} s of the table", flush=True)
    with table:
        timed(scored)
    found.accuracies = scored.accuracies()
    return found


def of_the_table(accuracies: Accuracies, costs: dict[Key, float], epsilon: float) -> Key:
    """The choice that the complete table gives."""
    rows = [
        evaluate.Score(p, t, *evaluate.interval(values), 0.0, int(costs[p, t]), len(values))
        for (p, t), values in accuracies.items()
    ]
    chosen, _ = choose(rows, epsilon)
    return chosen.pattern, chosen.step


def drawn(pool: Accuracies, seed: int, tasks: int) -> Accuracies:
    """N tasks of the pool in a new order."""
    of = len(pool[REFERENCE])
    index = torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:tasks]
    return {key: values[index] for key, values in pool.items()}


def from_pool(accuracies: Accuracies, chunk: int = 25) -> Scored:
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
    pools = {}
    for head in args.heads.split(","):
        rig = trained(args, head, data)
        keys = [(p, t) for p in candidates(5) for t in range(1, STEPS + 1)]
        costs = macs(rig.network, rig.setting, SHAPE, keys)
        tables = [
            side_by_side(rig, costs, VALIDATION_SEED + i, args.tasks) for i in range(args.tables)
        ]
        for epsilon in EPSILONS:
            rows += rows_of(head, epsilon, tables, costs, args.repeats)
        pools[head] = {
            "accuracy_full": evaluate.interval(
                torch.cat([m.accuracies[REFERENCE] for m in tables])
            )[0],
            "share_of_scores": {
                str(e): tables[0].rows[e] / (len(keys) * args.tasks) for e in EPSILONS
            },
        }
    save(args.name, rows, threads=args.threads, device=args.device, tables=pools)


if __name__ == "__main__":
    main()
