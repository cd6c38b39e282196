"""The door to MLflow: Ray Tune's callback, with our names and states, and one request a report."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, RunTag
from ray.air.integrations.mlflow import MLflowLoggerCallback
from typing_extensions import override

from search.feed import FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from ray.tune.experiment import Trial

    from search.rundir import RunDir

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "INTERRUPTED": "KILLED"}
"""What MLflow's own column says of a state; the tag ``state`` has ours."""
_LEFT_BEHIND = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")


class Runs(MLflowLoggerCallback):
    """One run of an experiment for each trial.

    Args:
        run: The run directory; without an address the store lies in its ``loggers``.
        options: Of the sweep file: tracking_uri, experiment_name.
    """

    def __init__(self, run: RunDir, options: Mapping[str, str]) -> None:
        for name in ("mlflow", "alembic"):  # the tables that a new store makes are no news
            logging.getLogger(name).setLevel(logging.WARNING)
        here = f"sqlite:///{run.path / FOLDER / 'mlflow.db'}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.path.name
        (run.path / FOLDER).mkdir(exist_ok=True)
        super().__init__(
            options.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or here,
            experiment_name=options.get("experiment_name") or name,
            tags={"fewtune.run": run.path.name},
        )
        self._steps: dict[Trial, dict[str, int]] = {}

    @property
    def _client(self) -> MlflowClient:
        return self.mlflow_util._get_client()  # noqa: SLF001 - what Ray's callback itself calls

    @override
    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Find or make the experiment, which MLflow would leave to the process's next sweep."""
        before = {name: os.environ.get(name) for name in _LEFT_BEHIND}
        try:
            super().setup(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    @override
    def log_trial_start(self, trial: Trial) -> None:
        """Make the trial's run, or go on with the one it has."""
        self._steps[trial] = {}
        if trial.trial_id:
            self._trial_runs[trial] = trial.trial_id
            self._client.update_run(trial.trial_id, status="RUNNING")
            self._steps[trial] = self._told(trial.trial_id)
        super().log_trial_start(trial)
        trial.trial_id = self._trial_runs[trial]

    @override
    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Add numbers at a meta-iteration; those that a resumed trial repeats are there."""
        steps, at = self._steps[trial], int(1000 * time.time())
        fresh = {name: v for name, v in result.items() if steps.get(name, -1) < iteration}
        steps.update(dict.fromkeys(fresh, iteration))
        metrics = [Metric(name, value, at, iteration) for name, value in fresh.items()]
        if metrics:
            self._client.log_batch(self._trial_runs[trial], metrics=metrics)

    @override
    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the outcome as tags, and close the run."""
        state, outcome = trial.state, trial.outcome  # type: ignore[attr-defined]  # Shown's
        tags = [RunTag(name, word) for name, word in {"state": state, **outcome}.items()]
        self._client.log_batch(self._trial_runs[trial], tags=tags)
        self._client.set_terminated(self._trial_runs.pop(trial), STATUS[state])
        del self._steps[trial]

    def _told(self, run: str) -> dict[str, int]:
        """Return each metric's last meta-iteration in a run."""
        known = self._client.get_run(run).data.metrics
        history = self._client.get_metric_history
        return {name: max(one.step for one in history(run, name)) for name in known}
