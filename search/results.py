"""What a run found, read from its files: trials, the feasible front, the hypervolume.

The hypervolume is that of the feasible front, in a box kept in ``run.json`` so that it can be
compared after ``extend``: from the worst value of each objective over the complete trials (moved
outwards by a tenth of the range, so that the ends of the front count) to the best possible one
(the metric's own limit, or the best value seen). 1 would be the whole box.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from search.admitted import recall
from search.config import SweepConfig, load_sweep
from search.metrics import METRICS, MIXED, TIMED, normalisation_among, normalisation_of
from search.paired import Comparison, compare
from search.pareto import front, hypervolume, losses
from search.progress import counted, duration, show
from search.registry import title
from search.rundir import FINISHED, REFUSED, RunDir, finite
from search.spending import Spending, spending

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rich.console import JustifyMethod

    from search.metrics import Direction

INTERRUPTED = "INTERRUPTED"  # a state that no file holds: who was killed wrote nothing more
MARGIN = 0.1
WIDE = 160  # columns where no terminal limits them
BETWEEN = 3  # columns from one cell to the next: a space, the rule, a space
_SHOWN = (
    "accuracy_ci95",
    "quality_drop",
    "pattern",
    "inner_steps",
    "fresh_accuracy",
    "test_accuracy",
)
_OF_FRONT = (*_SHOWN, "student_mib", "adapt_mib")  # what decides which one to take home


@dataclass(frozen=True)
class RunResults:
    """The trials of a run and what follows from them.

    Attributes:
        run: The run directory.
        config: The sweep as it was run.
        info: ``run.json``.
        trials: Every trial's ``result.json``, in order.
        driven: Whether a process drives the run.
    """

    run: RunDir
    config: SweepConfig
    info: dict[str, Any]
    trials: list[dict[str, Any]]
    driven: bool = True

    def state(self, trial: Mapping[str, Any]) -> str:
        """Return a trial's state; one that runs where nobody drives the run is INTERRUPTED."""
        cut = trial["state"] == "RUNNING" and not self.driven
        return INTERRUPTED if cut else str(trial["state"])

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

    def paired(self) -> Comparison:
        """Return the feasible trials' accuracies against the best one's, task by task."""
        return compare(self.run, self.feasible(), self.front())

    def spending(self) -> Spending:
        """Return what the run cost, and what early stopping saved."""
        resources, iterations = self.config.resources, self.config.budget.iterations
        return spending(
            self.trials, iterations=iterations, cpu=resources.cpu, gpu=resources.gpu,
            hypervolume=self.hypervolume(),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``results --json``; every metric is there, null where unknown."""
        return {
            "run": str(self.run.path),
            "method": title(self.config.method),
            "objectives": dict(self.config.objectives),
            "constraints": [str(c) for c in self.config.constraints],
            "hypervolume": finite(self.hypervolume()),
            "spending": finite(self.spending().to_json()),
            "trials": [trial_json({**t, "state": self.state(t)}) for t in self.trials],
            "front": [trial["id"] for trial in self.front()],
            "paired": finite(self.paired().to_json()),
        }

    def print(self, console: Console | None = None, *, front_only: bool = False) -> None:
        """Show the trials, or the front alone, as a table with a line of summary."""
        console = console or Console(file=sys.stdout, highlight=False)
        best = {t["id"] for t in self.front()}
        shown = self.front() if front_only else self.trials
        if not console.is_terminal:
            console.width = WIDE
        columns = self._columns(shown, best, front_only=front_only)
        paired = self.paired()
        if paired.differences:
            columns["to_best"] = [paired.cell(int(t["id"])) for t in shown]
        kept = self._fitting(columns, console.width)
        table = _table({name: columns[name] for name in kept})
        console.width = max(console.width, _width(columns, kept))  # rather wrapped than cut
        console.print(table)
        left_out = [name for name in columns if name not in kept]
        cells = [cell for name in kept for cell in columns[name]]
        tasks = self.config.evaluation.quick_tasks
        legend = f"~ a quick estimate on {counted(tasks, 'task')}, of a trial that is not complete"
        quick = [legend] if any(cell.startswith("~") for cell in cells) else []
        for line in [
            *self._summary(best),
            *_said(shown),
            *quick,
            *_unbelieved(cells),
            *paired.lines(),
            *_unseen(left_out),
        ]:
            console.print(line, markup=False, soft_wrap=True)

    def _columns(
        self, shown: list[dict[str, Any]], best: set[int], *, front_only: bool
    ) -> dict[str, list[str]]:
        """Return the cells of every column that says something, in their order."""
        bounds = [c.metric for c in self.config.constraints]
        wanted = list(self.config.objectives)
        wanted += [*bounds, *(_OF_FRONT if front_only else _SHOWN)]
        if "adapt_ms" in wanted:  # what is exact stands right behind what is measured
            wanted.insert(wanted.index("adapt_ms") + 1, "adapt_macs")
        columns = {"trial": [f"{t['id']}{'*' if t['id'] in best else ' '}" for t in shown]}
        if not front_only:
            columns["state"] = [self._state(t) for t in shown]
        for name in dict.fromkeys(wanted):
            if any(t["metrics"].get(name) is not None for t in shown):
                columns[name] = [_cell(name, t) for t in shown]
        if _mode(shown) == MIXED:
            columns["normalisation"] = [_mode([t]) for t in shown]
        return columns

    def _state(self, trial: Mapping[str, Any]) -> str:
        if trial["failure"]:
            return f"FAIL: {trial['failure']['kind']}"
        state = self.state(trial)
        return state.lower() if state in (REFUSED, INTERRUPTED) else state

    def _fitting(self, columns: Mapping[str, list[str]], width: int) -> list[str]:
        """Return the columns that a line holds: the needed ones always, others while they fit."""
        needed = {"trial", *self.config.objectives, "pattern", "normalisation"}
        kept = [name for name in columns if name in needed]
        for name in columns:
            if name not in needed and _width(columns, [*kept, name]) <= width:
                kept.append(name)
        return [name for name in columns if name in kept]

    def _summary(self, best: set[int]) -> list[str]:
        own = [t for t in self.trials if t.get("of") is None]
        count = {s: sum(t["state"] == s for t in own) for s in
                 ("COMPLETE", "PRUNED", "FAIL", "RUNNING")}  # fmt: skip
        words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed",
                 "RUNNING": "not finished" if self.driven else "interrupted"}  # fmt: skip
        kinds = Counter(t["failure"]["kind"] for t in self.trials if t["state"] == "FAIL")
        of_kind = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        words["FAIL"] += f" ({of_kind})"
        states = ", ".join(f"{n} {words[s]}" for s, n in count.items() if n)
        cost = sum(t["cost_s"] for t in self.trials)
        volume = self.hypervolume()
        ended = sum(t["state"] in FINISHED for t in own)
        total = int(self.info.get("trials", len(own)))
        share = (
            f"{ended} of {counted(total, 'trial')}" if ended < total else counted(ended, "trial")
        )
        lines = [f"{share}: {states or 'none'}; {duration(cost)} of trial time"]
        if (waited := sum(t["metrics"].get("lease_s") or 0.0 for t in self.trials)) >= 1:
            lines[0] += f", {duration(waited)} of it waiting so that times are taken alone"
        if refused := sum(t["state"] == REFUSED for t in self.trials):
            lines.append(
                f"{counted(refused, 'configuration')} refused before training, at no cost; "
                "`--json` has the reasons"
            )
        if beside := len(self.trials) - len(own):
            lines.append(f"and {counted(beside, 'further adaptation')} of their trained models")
        if ended < total and not self.driven:
            lines.append(f"the run was stopped; `fewtune resume {self.run.path}` goes on with it")
        size = f"* on the front: {len(best)} of {counted(len(self.feasible()), 'feasible trial')}"
        lines.append(size + (f"; hypervolume {volume:.3f}" if volume is not None else ""))
        lines += self.spending().lines()
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


def _cell(name: str, trial: Mapping[str, Any]) -> str:
    """Write a metric; what a trial that is not complete said of its accuracy is an estimate."""
    value = trial["metrics"].get(name)
    quick = "accuracy" in name and value is not None and trial["state"] != "COMPLETE"
    doubtful = name in TIMED and trial["metrics"].get("adapt_timing") in ("noisy", "rejected")
    return f"{'~' if quick else ''}{show(name, value)}{'?' if doubtful else ''}"


def _unbelieved(cells: Iterable[str]) -> list[str]:
    legend = "? repeated laps of this time did not agree; adapt_ms_spread in `--json` says how far"
    return [legend] if any(cell.endswith("?") for cell in cells) else []


def _width(columns: Mapping[str, list[str]], names: list[str]) -> int:
    """Return how many columns of a terminal a table of these takes."""
    widths = [max(map(len, [name, *columns[name]])) for name in names]
    return sum(widths) + BETWEEN * (len(widths) - 1)


def _table(columns: Mapping[str, list[str]]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for name in columns:
        justify: JustifyMethod = "left" if name in ("state", "normalisation") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _unseen(names: list[str]) -> list[str]:
    return [f"left out for want of width: {', '.join(names)}; `--json` has all"] if names else []


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
    recall(folder.path)
    config = load_sweep(folder.sweep_file, settings=False)
    return RunResults(folder, config, folder.info(), folder.results(), folder.driven())


def trial_json(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return one trial as ``results --json`` shows it."""
    metrics = {name: trial["metrics"].get(name) for name in METRICS}
    document = {**trial, "metrics": {**metrics, **trial["metrics"]}}
    keys = ("id", "state", "config", "metrics", "failure", "cost_s", "cpu_s", "gpu_s", "stopped",
            "notes", "of")  # fmt: skip
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
