"""What a run found, read from its files: trials, the feasible front, the hypervolume.

The hypervolume is that of the feasible front, in a box kept in ``run.json`` so that it can be
compared after ``extend``: from the worst value of each objective over the complete trials (moved
outwards by a tenth of the range, so that the ends of the front count) to the best possible one
(the metric's own limit, or the best value seen). 1 would be the whole box.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from search.config import SweepConfig, load_sweep
from search.metrics import METRICS, MIXED, normalisation_among, normalisation_of
from search.pareto import front, hypervolume, losses
from search.progress import duration, show
from search.rundir import RunDir, finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from search.metrics import Direction

MARGIN = 0.1
WIDE = 160  # columns where no terminal limits them
_SHOWN = ("accuracy_ci95", "quality_drop", "pattern", "inner_steps", "test_accuracy")
_OF_FRONT = (*_SHOWN, "student_mib", "adapt_mib")  # what decides which one to take home


@dataclass(frozen=True)
class RunResults:
    """The trials of a run and what follows from them.

    Attributes:
        run: The run directory.
        config: The sweep as it was run.
        info: ``run.json``.
        trials: Every trial's ``result.json``, in order.
    """

    run: RunDir
    config: SweepConfig
    info: dict[str, Any]
    trials: list[dict[str, Any]]

    def feasible(self) -> list[dict[str, Any]]:
        """Return the complete trials that keep every constraint."""
        return [
            t
            for t in self.trials
            if t["state"] == "COMPLETE"
            and self.config.feasible(t["metrics"])
            and losses(t["metrics"], self.config.objectives) is not None
        ]

    def front(self) -> list[dict[str, Any]]:
        """Return the feasible trials that no other dominates, best first objective first."""
        trials = self.feasible()
        points = [losses(t["metrics"], self.config.objectives) or () for t in trials]
        best = sorted(front(points), key=lambda i: points[i])
        return [trials[i] for i in best]

    def box(self) -> dict[str, dict[str, float]] | None:
        """Return the box of the hypervolume: the kept one, or the one of the trials so far."""
        if kept := self.info.get("hypervolume_box"):
            return dict(kept)
        return box_of([t["metrics"] for t in self.trials if t["state"] == "COMPLETE"],
                      self.config.objectives)  # fmt: skip

    def hypervolume(self) -> float | None:
        """Return the share of the box that the front dominates; None without a complete trial."""
        box = self.box()
        if box is None:
            return None
        points = [losses(t["metrics"], self.config.objectives) or () for t in self.front()]
        return share_of_box(points, self.config.objectives, box)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``results --json``; every metric is there, null where unknown."""
        return {
            "run": str(self.run.path),
            "method": self.config.method,
            "objectives": dict(self.config.objectives),
            "constraints": [str(c) for c in self.config.constraints],
            "hypervolume": finite(self.hypervolume()),
            "trials": [trial_json(trial) for trial in self.trials],
            "front": [trial["id"] for trial in self.front()],
        }

    def print(self, console: Console | None = None, *, front_only: bool = False) -> None:
        """Show the trials, or the front alone, as a table with a line of summary."""
        console = console or Console(file=sys.stdout, highlight=False)
        best = {t["id"] for t in self.front()}
        shown = self.front() if front_only else self.trials
        if not console.is_terminal:
            console.width = WIDE
        console.print(self._table(shown, best, _OF_FRONT if front_only else _SHOWN))
        for line in [*self._summary(best), *_said(shown)]:
            console.print(line, markup=False, soft_wrap=True)

    def _columns(self, shown: list[dict[str, Any]], also: Iterable[str]) -> list[str]:
        bounds = [c.metric for c in self.config.constraints]
        wanted = dict.fromkeys([*self.config.objectives, *bounds, *also])
        return [m for m in wanted if any(t["metrics"].get(m) is not None for t in shown)]

    def _table(self, shown: list[dict[str, Any]], best: set[int], also: Iterable[str]) -> Table:
        columns = self._columns(shown, also)
        table = Table(show_edge=False, pad_edge=False)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        mixed = _mode(shown) == MIXED
        if mixed:
            table.add_column("normalisation", no_wrap=True)
        for trial in shown:
            mark = f"{trial['id']}{'*' if trial['id'] in best else ' '}"
            failure = trial["failure"]
            state = f"FAIL: {failure['kind']}" if failure else trial["state"]
            cells = [show(name, trial["metrics"].get(name)) for name in columns]
            table.add_row(mark, state, *cells, *([_mode([trial])] if mixed else []))
        return table

    def _summary(self, best: set[int]) -> list[str]:
        count = {s: sum(t["state"] == s for t in self.trials) for s in
                 ("COMPLETE", "PRUNED", "FAIL", "RUNNING")}  # fmt: skip
        words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed",
                 "RUNNING": "not finished"}  # fmt: skip
        states = ", ".join(f"{n} {words[s]}" for s, n in count.items() if n)
        cost = sum(t["cost_s"] for t in self.trials)
        volume = self.hypervolume()
        lines = [f"{len(self.trials)} trials: {states or 'none'}; {duration(cost)} of trial time"]
        size = f"* on the front: {len(best)} of {len(self.feasible())} feasible trials"
        lines.append(size + (f"; hypervolume {volume:.3f}" if volume is not None else ""))
        if not best and count["COMPLETE"]:
            lines.append(self._hint())
        return lines

    def _hint(self) -> str:
        complete = [t["metrics"] for t in self.trials if t["state"] == "COMPLETE"]
        broken = {
            str(c): sum(not c.holds(metrics) for metrics in complete)
            for c in self.config.constraints
        }
        worst = max(broken, key=lambda name: broken[name], default="")
        return (
            f"No complete trial keeps every constraint; `{worst}` is broken most often, by "
            f"{broken.get(worst, 0)} of {len(complete)}. Loosen it or widen the space."
        )


def _mode(trials: Iterable[Mapping[str, Any]]) -> str:
    """Say how those of the trials that have an accuracy normalised query images."""
    return normalisation_among(
        normalisation_of(t["metrics"], t["config"])
        for t in trials
        if t["metrics"].get("accuracy") is not None
    )


def _said(trials: Iterable[Mapping[str, Any]]) -> list[str]:
    mode = _mode(trials)
    which = " as the column normalisation says for each trial" if mode == MIXED else ""
    return [f"accuracies are {mode}{which}"] if mode else []


def load_results(run: str | Path) -> RunResults:
    """Read a run, also while it is being driven.

    Raises:
        UserError: The path is not a run.
    """
    folder = RunDir.open(run)
    config = load_sweep(folder.sweep_file, settings=False)
    return RunResults(folder, config, folder.info(), folder.results())


def trial_json(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return one trial as ``results --json`` shows it."""
    metrics = {name: trial["metrics"].get(name) for name in METRICS}
    document = {**trial, "metrics": {**metrics, **trial["metrics"]}}
    keys = ("id", "state", "config", "metrics", "failure", "cost_s", "stopped", "notes")
    return {key: finite(document.get(key)) for key in keys}


def box_of(
    complete: list[dict[str, Any]], objectives: Mapping[str, Direction]
) -> dict[str, dict[str, float]] | None:
    """Return the box in which a hypervolume is measured; None without a complete trial."""
    if not complete:
        return None
    reference, ideal = {}, {}
    for name, direction in objectives.items():
        values = [float(m[name]) for m in complete if m.get(name) is not None]
        worst, best = (min, max) if direction == "max" else (max, min)
        outwards = MARGIN * (max(values) - min(values)) or MARGIN * abs(values[0]) or 1.0
        reference[name] = worst(values) + (outwards if direction == "min" else -outwards)
        known = METRICS.get(name)
        limit = math.inf if known is None else known.low if direction == "min" else known.high
        ideal[name] = limit if math.isfinite(limit) else best(values)
    return {"reference": reference, "ideal": ideal}


def share_of_box(
    points: list[tuple[float, ...]],
    objectives: Mapping[str, Direction],
    box: Mapping[str, Mapping[str, float]],
) -> float:
    """Return the hypervolume of points (smaller is better) as a share of the box, in [0, 1].

    What later trials reach beyond the ideal of a kept box counts as the ideal.
    """
    sign = {name: -1.0 if d == "max" else 1.0 for name, d in objectives.items()}
    low = [sign[n] * box["ideal"][n] for n in objectives]
    width = [sign[n] * box["reference"][n] - a for n, a in zip(objectives, low, strict=True)]
    if any(w <= 0 for w in width):
        return 0.0
    unit = [
        tuple(max(0.0, (x - a) / w) for x, a, w in zip(point, low, width, strict=True))
        for point in points
    ]
    return min(1.0, hypervolume(unit, tuple(1.0 for _ in objectives)))
