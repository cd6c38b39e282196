"""The sweep file: its typed schema and its defaults, which live here alone.

``load_sweep`` reads a file, lays the ``--set`` options over it and checks everything before
anything starts; every mistake is reported at once, with its place. ``dump_sweep`` writes what was
understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from search import checks, registry
from search.constraints import Constraint  # noqa: TC001 - pydantic reads it
from search.databases import JOURNAL
from search.documents import Document, dump, read_mapping
from search.entries import write_entry
from search.errors import UserError, raise_problems
from search.metrics import Direction  # noqa: TC001 - pydantic reads it
from search.overrides import METHOD, PATHS, apply_overrides, resolve_paths
from search.proposals import check_points
from spaces._domains import Domain, Fixed, Space, Value

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
QUICKSTART = Path(__file__).with_name("quickstart.yaml")

_Path: TypeAlias = Annotated[Path, Field(strict=False), PlainSerializer(str)]
_Count: TypeAlias = Annotated[int, Field(ge=1)]
_Hours: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(_Section):
    """The images and the tasks drawn from them.

    Attributes:
        source: A name from ``fewtune data list``.
        ways: N, classes of a task.
        shots: K, support images per class.
        queries: Q, query images per class.
        path: Where the source's archives or folders are; left out: the directory ``FEWTUNE_DATA``.
        split: A file that assigns classes to train, validation and test; left out: the source's.
        size: Side of the images in pixels; left out: the source's own.
        channels: 1 grey, 3 colour; left out: the source's own.
        seed: Draws the glyphs and a split where none is given. Apart from the sweep's seed, so
            that sweeps with different seeds see the same classes.
    """

    source: str = "glyphs"
    ways: int = Field(default=5, ge=2)
    shots: _Count = 1
    queries: _Count = 15
    path: _Path | None = None
    split: _Path | None = None
    size: int | None = Field(default=None, ge=8, le=512)
    channels: Literal[1, 3] | None = None
    seed: int = Field(default=0, ge=0)


class PlateauConfig(_Section):
    """The plateau rule: stop when the last trials hardly moved the hypervolume.

    Attributes:
        trials: How many trials that ended last are looked at.
        gain: By how much they must have raised the hypervolume, a share of its box.
    """

    trials: _Count
    gain: float = Field(default=0.001, gt=0, lt=1)


class BudgetConfig(_Section):
    """What a sweep may cost; it stops at whichever comes first.

    Attributes:
        trials: Configurations tried.
        iterations: Meta-iterations per trial.
        hours: Wall-clock hours of the whole sweep; left out: no limit.
        cpu_hours: Hours times CPU cores held by trials; left out: no limit.
        gpu_hours: Hours times GPUs held by trials; left out: no limit.
        plateau: The rule that stops a sweep whose hypervolume stands still; left out: off.
        trial_hours: Hours of a single trial, which fails then; left out: no limit.
    """

    trials: _Count = 32
    iterations: _Count = 2000
    hours: _Hours | None = None
    cpu_hours: _Hours | None = None
    gpu_hours: _Hours | None = None
    plateau: PlateauConfig | None = None
    trial_hours: _Hours | None = None


class ResourcesConfig(_Section):
    """What one trial holds while it runs.

    Attributes:
        cpu: CPU cores.
        gpu: GPUs; below 1 it is a share of one, from 1 on a whole number.
        concurrent: Trials at a time at most; left out: as many as the resources allow.
        scales: Whether the cluster starts nodes for trials that wait: up to ``concurrent`` of them
            are asked for, whatever it has at the start.
    """

    cpu: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    gpu: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    concurrent: _Count | None = None
    scales: bool = False


class EvaluationConfig(_Section):
    """How trials are scored.

    Attributes:
        validation_tasks: Tasks on which the table and the choice of a pattern rest.
        quick_tasks: Of these, how many a report during training uses.
        test_tasks: Tasks on test classes, once, for the front at the end.
        reports: Quick validations during a trial's training, evenly spread; early stopping
            decides at these.
        settings: Adaptation settings (steps, rate, epsilon, patterns) that each trained model is
            scored under, the drawn one among them; every one that chooses differently is a trial.
    """

    validation_tasks: _Count = 200
    quick_tasks: _Count = 50
    test_tasks: int = Field(default=600, ge=0)
    reports: _Count = 10
    settings: int = Field(default=8, ge=1, le=64)


class EarlyStoppingConfig(_Section):
    """When a trial is given up before its last meta-iteration.

    Attributes:
        enabled: Whether trials are given up at all.
        by: ``pareto`` keeps the whole front of a rung; ``asha`` is Ray's own, on one metric.
        metric: What ``asha`` compares by; one that is known during training.
        grace: Share of the meta-iterations that every trial gets.
        reduction: Of this many trials at a rung, one goes on.
        tolerance: Share of a trial's errors that ``pareto`` grants it when it is held against the
            front of its rung, so that fewer small students that learn slowly are lost: nothing to
            the first five of a rung, all of it up to the twentieth, then less and less.
    """

    enabled: bool = True
    by: Literal["pareto", "asha"] = "pareto"
    metric: Literal["accuracy", "student_params", "student_mib", "student_macs"] = "accuracy"
    grace: float = Field(default=0.125, gt=0, le=1)
    reduction: float = Field(default=2.0, gt=1, allow_inf_nan=False)
    tolerance: float = Field(default=0.08, ge=0, lt=1)


def _objectives() -> Mapping[str, Direction]:
    return {"accuracy": "max", "student_params": "min", "adapt_ms": "min"}


class SweepConfig(_Section):
    """One sweep, as its file says it.

    Attributes:
        method: A name from ``fewtune methods``.
        space: The parameters whose domain differs from the method's own; a value fixes one.
        objectives: Metric -> ``max`` or ``min``.
        constraints: Bounds that a trial must keep to be feasible.
        seed: Seeds the sampler and every trial.
        points: Configurations tried before anything is drawn, in their order; what one leaves out
            has the method's default, brought into the space.
        study: Where the study lies: ``journal``, a file of the run; or a database, by a URL that
            leaves its password to the environment.
        storage: Directory, or address of a bucket, under which run directories are made.
        max_disk: Room that the run may take, as ``20GB``; left out: no limit.
        loggers: Where the trials are shown too, as ``[wandb, mlflow]``; with options as ``{wandb:
            {project, entity, group}, mlflow: {tracking_uri, experiment_name}}``.
        name: Name of the run; left out: made from the method, the data and the time.
    """

    method: str
    data: DataConfig = DataConfig()
    space: Mapping[str, Domain] = Field(default_factory=dict)
    objectives: Mapping[str, Direction] = Field(default_factory=_objectives)
    constraints: tuple[Constraint, ...] = ()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    seed: int = Field(default=0, ge=0)
    points: tuple[Mapping[str, Value], ...] = ()
    study: str = JOURNAL
    storage: str = "runs"
    max_disk: str | None = None
    loggers: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    name: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")

    def resolved_space(self) -> Space:
        """Return the method's own space with this file's entries in place, in order of draws.

        Entries for parameters the method does not search by itself come last. What hangs on a
        parameter that the file fixes hangs on that parameter's own condition as well: a fixed
        ``teacher.kind`` does not have ``teacher.width`` drawn where the baseline has no teacher.
        """
        own = registry.space(self.method)
        merged = {**own, **self.space}
        return {name: self._rooted(domain, own) for name, domain in merged.items()}

    def _rooted(self, domain: Domain, own: Space) -> Domain:
        when = domain.when
        while when is not None:
            parent = self.space.get(when.parameter)
            if not isinstance(parent, Fixed) or not any(map(parent.contains, when.one_of)):
                break
            when = own[when.parameter].when if when.parameter in own else None
        return replace(domain, when=when)

    def fixed(self) -> dict[str, Value]:
        """Return the values of the parameters that are set, not drawn."""
        space = self.resolved_space()
        return {name: d.value for name, d in space.items() if isinstance(d, Fixed)}

    def feasible(self, metrics: Mapping[str, object]) -> bool:
        """Tell whether a trial's metrics keep every constraint."""
        return all(constraint.holds(metrics) for constraint in self.constraints)


def load_sweep(
    path: Path | None,
    overrides: tuple[str, ...] | list[str] = (),
    *,
    settings: bool = True,
    elsewhere: bool = False,
) -> SweepConfig:
    """Read and check a sweep file.

    Args:
        path: The file; None is the quickstart, which is part of the package.
        overrides: ``key=value`` as given to ``--set``; a relative path among them is relative to
            the working directory, one in the file to the file.
        settings: Whether to hold ``space`` against the method's settings, which imports torch.
            Leave it out only for a file that was checked before, such as a run's own.
        elsewhere: Whether its paths are another machine's, and stay as they are written.

    Raises:
        UserError: Everything that is wrong with the file and the overrides, at once.
    """
    paths = METHOD if elsewhere else PATHS
    if path is None:
        document, source = read_mapping(QUICKSTART.read_text("utf-8"), "quickstart"), "quickstart"
    else:
        document, source = _read(path), str(path)
        resolve_paths(document.values, path.absolute().parent, paths)
    document.problems += apply_overrides(document, overrides, paths)
    return parse_sweep(document, source, settings=settings)


def parse_sweep(document: Document, source: str, *, settings: bool = True) -> SweepConfig:
    """Check a document against the schema.

    Raises:
        UserError: Everything that is wrong with it, at once.
    """
    config, problems = checks.check(document, SweepConfig, settings=settings)
    if config is not None and settings:
        problems += check_points(document, config)
    raise_problems(source, [*document.problems, *problems])
    if config is None:
        raise AssertionError("a file without problems has a configuration")
    return config


def check_name(name: str) -> None:
    """Refuse a name that is no plain directory name.

    Raises:
        UserError: It holds other signs than letters, digits, dots, dashes and underscores.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{checks.NAME_FORM}; found {name!r}.")


def dump_sweep(config: SweepConfig, *, elsewhere: bool = False) -> str:
    """Write a sweep file that ``load_sweep`` reads back as the same configuration.

    Paths are written absolute, so that the file can be moved; those of another machine
    (``elsewhere``) as they are.
    """
    plain: dict[str, Any] = config.model_dump(exclude={"space", "constraints"})
    plain["space"] = {name: write_entry(domain) for name, domain in config.space.items()}
    plain["constraints"] = [str(constraint) for constraint in config.constraints]
    ordered = {name: plain[name] for name in SweepConfig.model_fields}
    resolve_paths(ordered, Path.cwd(), METHOD if elsewhere else PATHS)
    return dump(ordered)


def _read(path: Path) -> Document:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"There is no sweep file {path}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file: byte {error.start} is not UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return read_mapping(text, str(path))
