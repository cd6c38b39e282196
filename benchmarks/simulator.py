"""A simulated clock over recorded runs: workers that train nothing, and what they would have taken.

A run of the table is a list of laps, each with its seconds and what is known after it. Whoever
searches hands out jobs, hears each lap, may stop the job there, and gets what a finished run
answers. Compute is the seconds of all workers together, whether or not something came of them.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, Protocol

from search.pareto import dominates, losses
from search.results import box_of, share_of_box
from spaces._domains import Choice, Float, Int

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from search.constraints import Constraint
    from search.metrics import Direction
    from search.pareto import Point
    from spaces._domains import Domain, Space, Value

Within = Literal["everything", "feasible", "front"]  # what a box is drawn around
SLACK = 1e-9  # accuracies are rounded sums


@dataclass(frozen=True)
class Setting:
    """What an adaptation is scored with; it costs no training."""

    epsilon: float
    steps: int


@dataclass(frozen=True)
class Lap:
    """A stretch of a run between two reports."""

    seconds: float
    iteration: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Entry:
    """One recorded run."""

    config: Mapping[str, Value]
    known: Mapping[str, float]  # before training
    laps: tuple[Lap, ...]
    score_s: float
    accuracies: Mapping[str, Sequence[float]]  # pattern -> after 1, 2, ... steps
    adapt_macs: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Entry:
        """What ``recorded`` wrote; a run that diverged has no accuracies."""
        known = {k: v for k, v in raw.items() if k.startswith("student_")}
        laps, waited = [], float(raw["setup_s"])
        for point in raw["curve"]:
            seconds = waited + point["train_s"] + point["quick_s"]
            laps.append(Lap(seconds, point["iteration"], {"accuracy": point["accuracy"]}))
            waited = 0.0
        rest = float(raw.get("score_s", 0.0)) + float(raw.get("spent_s", 0.0))
        tables = raw.get("accuracies", {}), raw.get("adapt_macs", {})
        return cls(raw["config"], known, tuple(laps), waited + rest, *tables)

    @property
    def seconds(self) -> float:
        """What the whole run takes."""
        return sum(lap.seconds for lap in self.laps) + self.score_s

    def answer(self, setting: Setting) -> dict[str, Any] | None:
        """The metrics of the cheapest pattern and step within epsilon; None where it diverged.

        The full pattern after ``setting.steps`` steps is what accuracy is held against.
        """
        if not self.accuracies:
            return None
        full = max(self.accuracies)  # "1111" sorts last
        against = self.accuracies[full][setting.steps - 1]
        macs, _, step, pattern = min(
            (self.adapt_macs[p][t], -row[t], t + 1, p)
            for p, row in self.accuracies.items()
            for t in range(setting.steps)
            if against - row[t] <= setting.epsilon + SLACK
        )
        accuracy = self.accuracies[pattern][step - 1]
        chosen = {"pattern": pattern, "inner_steps": step, "adapt_macs": macs}
        drop = against - accuracy
        return {**self.known, **chosen, "accuracy": accuracy, "quality_drop": drop}


def place(domain: Domain, value: Value) -> float:
    """Where a number lies in its range, in [0, 1], by its logarithm where the range is one.

    >>> place(Float(1.0, 100.0, log=True, why="an example"), 10.0)
    0.5
    """
    if not isinstance(domain, Float | Int) or domain.high == domain.low:
        return 0.0
    low, high, at = float(domain.low), float(domain.high), float(value)
    if domain.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)


def distance(space: Space, a: Mapping[str, Value], b: Mapping[str, Value]) -> float:
    """Euclidean over the parameters' places; unlike options lie 1 apart."""
    return math.dist(
        [0.0 if isinstance(d, Choice) else place(d, a[n]) for n, d in space.items()]
        + [float(a[n] != b[n]) for n, d in space.items() if isinstance(d, Choice)],
        [0.0 if isinstance(d, Choice) else place(d, b[n]) for n, d in space.items()]
        + [0.0 for d in space.values() if isinstance(d, Choice)],
    )


@dataclass(frozen=True)
class Table:
    """Recorded runs that answer suggestions."""

    space: Space
    entries: tuple[Entry, ...]

    def nearest(self, config: Mapping[str, Value], tried: Collection[int]) -> int | None:
        """The number of the nearest run that was not tried; None where all were."""
        left = [i for i in range(len(self.entries)) if i not in tried]
        return min(
            left, key=lambda i: distance(self.space, config, self.entries[i].config), default=None
        )


@dataclass
class Goal:
    """Feasible hypervolume, as a share of a box.

    The box holds everything the table can answer, all of it that is feasible, or the feasible
    front alone; and a tenth more of each (Ishibuchi et al. 2018). Of a smaller box one good run is
    less.
    """

    objectives: Mapping[str, Direction]
    constraints: Sequence[Constraint]
    box: Mapping[str, Mapping[str, float]]
    whole: float = 0.0  # of the whole table

    @classmethod
    def of(
        cls,
        table: Table,
        settings: Sequence[Setting],
        objectives: Mapping[str, Direction],
        constraints: Sequence[Constraint],
        *,
        within: Within = "everything",
    ) -> Goal:
        """The goal that knows what the whole table holds."""
        answers = [a for e in table.entries for s in settings if (a := e.answer(s))]
        goal = cls(objectives, constraints, box_of(answers, objectives) or {})
        if within != "everything":
            held = [a for a in answers if all(c.holds(a) for c in constraints)]
            front = goal._reached_by(held).front
            on_it = [a for a in held if losses(a, objectives) in front]
            goal.box = box_of(held if within == "feasible" else on_it, objectives) or {}
        goal.whole = goal._reached_by(answers).volume
        return goal

    def _reached_by(self, answers: Sequence[Mapping[str, Any]]) -> Reached:
        reached = Reached(self)
        for answer in answers:
            reached.add(answer)
        return reached


@dataclass
class Reached:
    """The feasible front so far."""

    goal: Goal
    front: list[Point] = field(default_factory=list)
    volume: float = 0.0

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Notes an observation."""
        point = losses(metrics, self.goal.objectives)
        if point is None or not all(c.holds(metrics) for c in self.goal.constraints):
            return
        if any(p == point or dominates(p, point) for p in self.front):
            return
        self.front = [p for p in self.front if not dominates(point, p)] + [point]
        self.volume = share_of_box(self.front, self.goal.objectives, self.goal.box)

    def at(self, seconds: float) -> Moment:
        """How far this is after so much compute."""
        return Moment(seconds, self.volume / self.goal.whole if self.goal.whole else 0.0)


@dataclass
class Job:
    """A run that a worker is at."""

    number: int  # of the trial
    entry: Entry
    setting: Setting | None = None
    extra: Any = None  # the searcher's own


class Search(Protocol):
    """Who hands out runs and hears of them."""

    def next(self) -> Job | None:
        """The next run; None where there is none left."""

    def report(self, job: Job, lap: Lap) -> bool:
        """Hears a lap; whether the run goes on."""

    def finish(self, job: Job) -> list[dict[str, Any]]:
        """Hears that a run was trained to its end; what it answers."""


@dataclass(frozen=True)
class Moment:
    """Compute so far and what it has reached, as a share of what the table holds."""

    seconds: float
    share: float


def simulate(
    search: Search, goal: Goal, *, workers: int, until: float = math.inf, jobs: int = 10**9
) -> list[Moment]:
    """``simulate_for`` one goal."""
    (trace,) = simulate_for([goal], search, workers=workers, until=until, jobs=jobs)
    return trace


def simulate_for(
    goals: Sequence[Goal],
    search: Search,
    *,
    workers: int,
    until: float = math.inf,
    jobs: int = 10**9,
) -> list[list[Moment]]:
    """Runs a search on a simulated clock, and holds it against goals it does not know.

    Args:
        goals: what is reached.
        search: hands out runs.
        workers: runs at a time.
        until: share of the table's hypervolume at which to end, of every goal.
        jobs: runs handed out at most.

    Returns:
        Of every goal a moment for every run that ended, stopped ones too.
    """
    reached, spent = [Reached(goal) for goal in goals], 0.0
    traces = [[Moment(0.0, 0.0)] for _ in goals]
    running = _Running(search, jobs)
    for _ in range(workers):
        running.hand_out(0.0)
    while running.waiting:
        now, _, lap, job = heapq.heappop(running.waiting)
        spent += _takes(job, lap)
        if lap < len(job.entry.laps):
            if search.report(job, job.entry.laps[lap]):
                running.go_on(now, lap + 1, job)
                continue
        else:
            for answer, one in product(search.finish(job), reached):
                one.add(answer)
        for one, trace in zip(reached, traces, strict=True):
            trace.append(one.at(spent))
        if all(trace[-1].share >= until - SLACK for trace in traces):
            break
        running.hand_out(now)
    return traces


@dataclass
class _Running:
    """The laps under way, by the time at which they end."""

    search: Search
    jobs: int
    waiting: list[tuple[float, int, int, Job]] = field(default_factory=list)
    order: int = 0  # of two that end together the earlier goes first

    def hand_out(self, now: float) -> None:
        job = self.search.next() if self.jobs > 0 else None
        if job is not None:
            self.jobs -= 1
            self.go_on(now, 0, job)

    def go_on(self, now: float, lap: int, job: Job) -> None:
        self.order += 1
        heapq.heappush(self.waiting, (now + _takes(job, lap), self.order, lap, job))


def compute_to(trace: Sequence[Moment], share: float) -> float | None:
    """Seconds until a share of the hypervolume was reached; None where it never was."""
    return next((m.seconds for m in trace if m.share >= share - SLACK), None)


def _takes(job: Job, lap: int) -> float:
    laps = job.entry.laps
    return laps[lap].seconds if lap < len(laps) else job.entry.score_s
