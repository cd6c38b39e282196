"""Which machine a sweep's trials fit: the types of two clouds, and how many of which are needed.

Cores are as the cloud counts them and as Ray does. Prices are left out, since they change: within a
table a later type has more of something and costs more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.config import SweepConfig


@dataclass(frozen=True)
class Machine:
    """A type of machine: its name, cores and GPUs."""

    name: str
    cpu: int
    gpu: int = 0

    def trials(self, cpu: float, gpu: float) -> int:
        """Return how many trials of so many cores and GPUs it holds at a time.

        A trial with a share of a GPU lies on one of them as a whole.

        Example:
            >>> Machine("two", cpu=8, gpu=2).trials(1, 0.4)
            4
            >>> Machine("two", cpu=8, gpu=2).trials(3, 0.25)
            2
        """
        fit = int(self.cpu / cpu + 1e-9)
        if not gpu:
            return fit
        of_gpus = self.gpu * int(1 / gpu + 1e-9) if gpu <= 1 else int(self.gpu / gpu + 1e-9)
        return min(fit, of_gpus)


AWS = (
    Machine("g5.xlarge", 4, 1), Machine("g5.2xlarge", 8, 1), Machine("g5.4xlarge", 16, 1),
    Machine("g5.8xlarge", 32, 1), Machine("g5.12xlarge", 48, 4), Machine("g5.48xlarge", 192, 8),
    Machine("c6i.xlarge", 4), Machine("c6i.2xlarge", 8), Machine("c6i.4xlarge", 16),
    Machine("c6i.8xlarge", 32), Machine("c6i.16xlarge", 64), Machine("c6i.32xlarge", 128),
)  # fmt: skip
GCP = (
    Machine("g2-standard-4", 4, 1), Machine("g2-standard-8", 8, 1),
    Machine("g2-standard-16", 16, 1),
    Machine("g2-standard-32", 32, 1), Machine("g2-standard-48", 48, 4),
    Machine("g2-standard-96", 96, 8), Machine("n2-standard-4", 4), Machine("n2-standard-8", 8),
    Machine("n2-standard-16", 16), Machine("n2-standard-32", 32), Machine("n2-standard-64", 64),
    Machine("n2-standard-128", 128),
)  # fmt: skip


@dataclass(frozen=True)
class Fleet:
    """The workers of a cluster, as a sweep needs them.

    Attributes:
        machine: Of every worker.
        least: Workers that stay.
        most: Workers at a time.
        each: Trials at a time on one worker.
    """

    machine: Machine
    least: int
    most: int
    each: int

    @property
    def concurrent(self) -> int:
        """Trials at a time on all of them."""
        return self.most * self.each


def wanted(config: SweepConfig) -> int:
    """Return how many trials may run at a time: what the file says, else all."""
    return min(config.resources.concurrent or config.budget.trials, config.budget.trials)


def made_for(config: SweepConfig) -> Machine:
    """Return a worker of nobody's catalogue, as Kubernetes and Slurm make them: for a GPU's trials.

    Without a GPU it is for four trials, our default.
    """
    cpu, gpu = config.resources.cpu, config.resources.gpu
    each = 4 if not gpu else max(1, int(1 / gpu + 1e-9))
    return Machine("worker", math.ceil(min(each, wanted(config)) * cpu), math.ceil(gpu))


def choose(table: Sequence[Machine], config: SweepConfig) -> Machine:
    """Return the first type that holds as many trials as its GPU is shared by, else one at all.

    Raises:
        UserError: No type holds a single trial.
    """
    cpu, gpu = config.resources.cpu, config.resources.gpu
    usable = [m for m in table if bool(m.gpu) == bool(gpu) and m.trials(cpu, gpu)]
    goal = made_for(config)
    full = [m for m in usable if m.cpu >= goal.cpu and m.gpu >= goal.gpu]
    if not usable:
        raise UserError(
            f"A trial asks for {cpu:g} CPU and {gpu:g} GPU (resources in the sweep file), and no "
            f"machine known here has that; there are {', '.join(m.name for m in table)}."
        )
    return (full or usable)[0]


def fleet(machine: Machine, config: SweepConfig, least: int, most: int) -> Fleet:
    """Return as many workers as the trials need, within what the user allows.

    Raises:
        UserError: Fewer may come than are to stay.
    """
    if least > most:
        raise UserError(
            f"At least {least} workers are to stay and {most} may come at most; give "
            "--min-workers up to --max-workers."
        )
    each = machine.trials(config.resources.cpu, config.resources.gpu)
    needed = math.ceil(wanted(config) / each)
    return Fleet(machine, least, max(1, least, min(most, needed)), each)
