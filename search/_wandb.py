"""The door to Weights & Biases: Ray Tune's callback, with a run of its own for each trial.

Ray's callback starts two Ray processes for every trial and writes into Tune's directory, which goes
with the session. Here the runs are in this process, as wandb has had it since, and lie in the run.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import wandb
from ray.air.integrations.wandb import WandbLoggerCallback
from typing_extensions import override
from wandb.sdk.internal.internal_api import Api

from search.errors import UserError
from search.feed import FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.tune.experiment import Trial

    from search.rundir import RunDir

ANSWER_S = 30.0  # for a server to make a run; the process cannot end before: our default
PROJECT = "fewtune"  # where neither the sweep file nor WANDB_PROJECT names one; our default


class Runs(WandbLoggerCallback):
    """One run of a project for each trial.

    Args:
        run: The run directory; offline files lie in its ``loggers``.
        options: Of the sweep file: project, entity, group.
    """

    def __init__(self, run: RunDir, options: Mapping[str, str]) -> None:
        folder = run.path / FOLDER
        folder.mkdir(exist_ok=True)
        given: dict[str, Any] = {"entity": options["entity"]} if "entity" in options else {}
        super().__init__(
            project=options.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT,
            group=options.get("group"),
            dir=str(folder),
            reinit="create_new",
            resume=None if _mode() == "offline" else "allow",
            settings=_quiet(),
            **given,
        )
        self._runs: dict[Trial, Any] = {}

    @override
    def log_trial_start(self, trial: Trial) -> None:
        """Make the trial's run, or go on with the one it has."""
        trial.trial_id = trial.trial_id or secrets.token_hex(4)
        super().log_trial_start(trial)

    @override
    def _start_logging_actor(
        self, trial: Trial, exclude_results: list[str], **wandb_init_kwargs: Any
    ) -> None:
        self._runs[trial] = wandb.init(**wandb_init_kwargs)

    @override
    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Add numbers at a meta-iteration; those that a resumed trial repeats are there."""
        run = self._runs[trial]
        if iteration >= run.step:
            run.log(result, step=iteration)

    @override
    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the outcome beside the last values, and close the run."""
        run, outcome = self._runs.pop(trial), getattr(trial, "outcome", {})
        run.summary.update({"state": trial.state, **outcome})  # type: ignore[attr-defined]  # Shown's
        run.finish(exit_code=int(failed))


def check_signed_in() -> None:
    """Look for an API key, where one is needed.

    Raises:
        UserError: There is none.
    """
    if _mode() == "online" and not Api().api_key:
        raise UserError(
            "Weights & Biases (loggers: wandb) has no API key here. Run `wandb login` once, or "
            "export WANDB_API_KEY, or WANDB_MODE=offline to send the runs later with `wandb sync`."
        )


def _mode() -> str:
    return str(wandb.setup(settings=_quiet()).settings.mode)


def _quiet() -> wandb.Settings:
    """Nothing on the terminal, no copy of what stands there, nothing of the code's repository."""
    return wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        init_timeout=ANSWER_S,
    )
