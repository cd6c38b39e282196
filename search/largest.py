"""The largest setting of a space, and what a step of it takes: memory, and whether it works at all.

Imports torch.
"""

from __future__ import annotations

import math
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import torch

from search import registry
from search.findings import Step
from search.points import corners
from search.preflight import load_data
from search.session import run_settings
from trainables._core.outside import arrived
from trainables._core.parallel import out_of_memory
from trainables._learner import DivergedError, TaskShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.config import SweepConfig
    from search.probe import Opener
    from spaces._domains import Value
    from trainables._core.outside import Carried
    from trainables._learner import Learner

FACTORS = (
    "inner_steps",
    "meta_batch",
    "teacher.width",
)  # what memory grows with, besides the student


def largest(config: SweepConfig, channels: int, size: int) -> dict[str, Value]:
    """Return the corner of a space whose training takes most memory, as far as counting tells.

    Counted are the student's multiply-accumulates times the inner steps, tasks of a meta-batch and
    the teacher's width; corners that cannot be built are passed over.
    """
    space, defaults = config.resolved_space(), registry.defaults(config.method)
    cheap = registry.learner(config.method).cheap

    def weight(settings: Mapping[str, Value]) -> float:
        try:
            before = cheap(settings, channels=channels, size=size, ways=config.data.ways)
        except ValueError:
            return 0.0
        known = {**defaults, **settings}
        factors = [known[name] for name in FACTORS if name in known]
        student = before.get("student_macs") or before["student_params"]
        return student * math.prod(f for f in factors if isinstance(f, int | float))

    return max((corner.settings for corner in corners(space, defaults)), key=weight)


def step(
    config: SweepConfig,
    settings: Mapping[str, Value],
    data: Opener,
    learner: type[Learner] | Carried,
) -> Step:
    """Do one meta-iteration and one quick validation of a setting here, forward and backward.

    Args:
        config: The sweep.
        settings: What is trained.
        data: What opens the data.
        learner: The method, as it travels; see ``registry.carry``.
    """
    began, device = time.perf_counter(), run_settings(config).device
    try:
        _once(config, settings, data, arrived(learner))
        failure = ""
    except DivergedError:
        failure = ""  # numbers that run away take the same memory
    except Exception as error:  # noqa: BLE001 - it is told
        memory = isinstance(error, MemoryError) or out_of_memory(error)
        words = str(error).strip().splitlines()
        failure = "out of memory" if memory else (words or [type(error).__name__])[0]
    seconds = time.perf_counter() - began
    if device == "cuda" and torch.cuda.is_available():
        name, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
        return Step(name, seconds, torch.cuda.max_memory_reserved() / 2**20, total / 2**20, failure)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Step(device, seconds, peak, failure=failure)


def step_here(config: SweepConfig, settings: Mapping[str, Value]) -> Step:
    """Do the same in a process of its own, which may run out of memory without harm."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            code = registry.carry(config.method)
            return pool.submit(step, config, dict(settings), OfConfig(config), code).result()
        except BrokenProcessPool:
            device = run_settings(config).device
            return Step(device, 0.0, 0.0, failure="its process was killed, as for lack of memory")


@dataclass(frozen=True)
class OfConfig:
    """Opens a sweep's data from its own files."""

    config: SweepConfig

    def open(self) -> Any:  # noqa: ANN401 - a data set
        """Load it, from the cache where it was decoded before."""
        return load_data(self.config)


def _once(
    config: SweepConfig, settings: Mapping[str, Value], data: Opener, kind: type[Learner]
) -> None:
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    shape = TaskShape(config.data.ways, config.data.shots, config.data.queries)
    run = replace(run_settings(config), iterations=1)
    learner = kind(settings, data.open(), shape, run)
    learner.step()
    learner.validate()
