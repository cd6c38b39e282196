"""What a run's models choose under other thresholds, from the tables they left: a query, no trial.

A race scores on all tasks what it chooses and what it measures against; what certainly loses more
than epsilon it drops after a part of the tasks. So another threshold is decided where the stored
tasks decide it as a trial would (``exact``). Elsewhere the cheapest entry that was scored on all
tasks is named, with how many cheaper ones were not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from search import registry
from search.errors import UserError
from search.progress import counted, show
from trainables._core.again import NotScoredError, stored_choice
from trainables._core.observe import adaptation_of
from trainables._core.scores import Scores, ScoresError
from trainables._core.student import Student, StudentError
from trainables._learner import MethodConfig, TaskShape, flat, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from search.results import RunResults
    from trainables._core.again import Stored

_HEADS = ("epsilon", "trial", "pattern", "steps", "rate", "accuracy", "quality_drop", "adapt_ms",
          "adapt_macs", "exact")  # fmt: skip


def read_thresholds(text: str) -> list[float]:
    """Read ``0.005,0.01``; ``1%`` is 0.01.

    Raises:
        UserError: One of them is no share of accuracy.

    Example:
        >>> read_thresholds("0.005, 1%")
        [0.005, 0.01]
    """
    found = []
    for word in text.split(","):
        digits, per = (word.strip()[:-1], 100) if word.strip().endswith("%") else (word, 1)
        try:
            value = float(digits) / per
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise UserError(
                "--epsilon takes losses of accuracy from 0 to 1, separated by commas, as "
                f"0.005,0.01,0.02; found `{word.strip()}`."
            )
        found.append(value)
    return list(dict.fromkeys(found))


def answers(results: RunResults, thresholds: Sequence[float]) -> dict[str, Any]:
    """Return what each model of the front chooses under each threshold.

    Models of one training with the same steps, rate and patterns at test are one: they differ in
    epsilon, which is what is asked.

    Raises:
        UserError: The run has no front, or no model of it left a table.
    """
    front = results.front()
    if not front:
        raise UserError(
            f"{results.run.path} has no feasible complete trial to ask; `fewtune results "
            f"{results.run.path}` shows how far it is."
        )
    models: dict[tuple[object, ...], dict[str, Any]] = {}
    said: list[str] = []
    for trial in front:
        try:
            key, rows = _of_trial(results, trial, thresholds)
        except (ScoresError, StudentError, NotScoredError) as error:
            said.append(f"Trial {trial['id']} is left out: {' '.join(str(error).split())}")
            continue
        models.setdefault(key, {"trial": trial["id"], "rows": rows})
    if not models:
        raise UserError(
            f"No model of the front of {results.run.path} left a table that can be asked; runs "
            f"begun with this version do. {said[0]}"
        )
    return {
        "run": str(results.run.path),
        "thresholds": [
            {
                "epsilon": epsilon,
                "models": [{"trial": m["trial"], **m["rows"][epsilon]} for m in models.values()],
            }
            for epsilon in thresholds
        ],
        "left_out": said,
    }


def _of_trial(
    results: RunResults, trial: Mapping[str, Any], thresholds: Sequence[float]
) -> tuple[tuple[object, ...], dict[float, dict[str, Any]]]:
    data, run = results.config.data, results.run
    parent = trial["id"] if trial.get("of") is None else trial["of"]
    scores = Scores.load(run.trial(int(parent)))
    student = Student.load(run.trial(int(trial["id"])) / "student")
    config = _shared(results.config.method, trial["config"])
    own = adaptation_of(config, scores.inner_steps, scores.inner_rate)
    shape = TaskShape(data.ways, data.shots, data.queries)
    rows = {
        epsilon: _row(
            own.rate, stored_choice(student, scores, replace(own, epsilon=epsilon), shape)
        )
        for epsilon in thresholds
    }
    return (parent, own.steps, own.rate, own.patterns), rows


def _shared(method: str, config: Mapping[str, Any]) -> MethodConfig:
    """Return the settings that every method has; what only this one has is not asked for."""
    known = {**registry.defaults(method), **config}
    return parse(MethodConfig, {n: v for n, v in known.items() if n in flat(MethodConfig())})


def _row(rate: float, found: Stored) -> dict[str, Any]:
    return {
        "pattern": found.pattern,
        "inner_steps": found.step,
        "inner_rate": rate,
        "accuracy": found.accuracy,
        "accuracy_ci95": found.ci95,
        "quality_drop": found.drop,
        "adapt_ms": found.adapt_ms,
        "adapt_ms_full": found.adapt_ms_full,
        "adapt_macs": found.adapt_macs,
        "adapt_mib": found.adapt_mib,
        "exact": found.exact,
        "cheaper_not_on_all_tasks": found.open,
    }


def print_answers(document: Mapping[str, Any], console: Console) -> None:
    """Show what ``answers`` returns as a table."""
    table = Table(show_edge=False, pad_edge=False)
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    guessed = 0
    for threshold in document["thresholds"]:
        for row in threshold["models"]:
            guessed += not row["exact"]
            table.add_row(
                f"{threshold['epsilon']:g}",
                str(row["trial"]),
                row["pattern"],
                str(row["inner_steps"]),
                f"{row['inner_rate']:.3g}",
                *(show(n, row[n]) for n in ("accuracy", "quality_drop", "adapt_ms", "adapt_macs")),
                "yes" if row["exact"] else "no",
            )
    console.print(table)
    lines = ["exact: as a trial with this epsilon would choose; accuracies are on all tasks"]
    if guessed:
        lines.append(
            f"{counted(guessed, 'answer')} not exact: the cheapest that was scored on all tasks; a "
            "cheaper one, which no race ran to its end, may do"
        )
    for line in [*lines, *document["left_out"]]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
