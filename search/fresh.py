"""Winners once more, on validation tasks that the search never saw.

The best of many trials is partly the luckiest: its accuracy on the tasks it was chosen by is too
high on average. So the front at the end of a sweep, and whatever is exported, meet as many new
tasks of the validation classes; both numbers are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.errors import UserError
from search.preflight import load_data
from search.progress import show
from trainables._core.episodes import TaskShape
from trainables._data.dataset import DataError
from trainables._learner import score_on_fresh_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.config import SweepConfig
    from search.results import RunResults
    from trainables._core.student import Student
    from trainables._data import Dataset


def fresh_score(config: SweepConfig, student: Student, data: Dataset) -> dict[str, Any]:
    """Return ``fresh_accuracy`` and ``fresh_accuracy_ci95`` of a student of a sweep."""
    shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
    tasks = config.evaluation.validation_tasks
    return dict(score_on_fresh_tasks(student, data, shape, tasks=tasks, seed=config.seed))


def for_export(
    results: RunResults, trial: Mapping[str, Any], student: Student
) -> tuple[dict[str, Any], str]:
    """Return a trial's metrics with its score on fresh tasks, and a clause that says it.

    Scored here where the sweep did not, as for a trial behind the front. Without the run's data
    the score stays unknown and the clause says why.
    """
    known = dict(trial["metrics"])
    if known.get("fresh_accuracy") is None:
        try:
            data = load_data(results.config)
        except (DataError, UserError) as error:
            first = str(error).strip().splitlines()[0].rstrip(".")
            return known, f"not scored on fresh tasks, as its data cannot be read ({first})"
        if data.fingerprint != results.info.get("data", {}).get("fingerprint"):
            return known, "not scored on fresh tasks, as the data is not what the run was made on"
        known |= fresh_score(results.config, student, data)
    return known, f"on fresh tasks its accuracy is {show('accuracy', known['fresh_accuracy'])}"


def of_rounded(results: RunResults, student: Student) -> dict[str, Any]:
    """Return the score on fresh tasks of a student whose weights were rounded.

    Raises:
        DataError: The run's data cannot be read; without it nobody knows what rounding costs.
        UserError: The data is not what the run was made on.
    """
    data = load_data(results.config)
    if data.fingerprint != results.info.get("data", {}).get("fingerprint"):
        raise UserError(
            "int8 weights are scored before they are exported, and the data is not what the run "
            "was made on. Give the same images, or export without --int8."
        )
    return fresh_score(results.config, student, data)
