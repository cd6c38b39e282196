"""The metrics by name: what each one means, its unit, and which way is better.

The names are the same in results, TensorBoard, JSON and bundles. Accuracy lies in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from trainables._core.settings import MethodConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Direction: TypeAlias = Literal["max", "min"]


@dataclass(frozen=True)
class Metric:
    """One number, or word, that a finished trial reports.

    Attributes:
        meaning: One line for people.
        unit: ``""`` for fractions and words.
        better: The direction users mean when they do not say; None where neither is better.
        low: The smallest possible value.
        high: The largest possible value.
        usable: Whether a sweep may optimise or constrain it.
        early: Whether it is known before training, from the configuration alone.
        taught: Whether only a method with a teacher has it.
    """

    meaning: str
    unit: str = ""
    better: Direction | None = None
    low: float = 0.0
    high: float = math.inf
    usable: bool = True
    early: bool = False
    taught: bool = False


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("on meta-validation tasks, with the chosen pattern", "", "max", high=1.0),
    "accuracy_ci95": Metric("half width of the 95 % interval of accuracy", "", "min", high=1.0),
    "accuracy_full": Metric(
        "accuracy of the pattern of meta-training, all layers unless `adapts` says head or body",
        "",
        "max",
        high=1.0,
    ),
    "accuracy_transductive": Metric(
        "accuracy when queries are normalised among themselves", "", "max", high=1.0
    ),
    "accuracy_inductive": Metric(
        "accuracy when queries are normalised by the support set", "", "max", high=1.0
    ),
    "quality_drop": Metric("accuracy_full minus accuracy", "", "min", low=-1.0, high=1.0),
    "quality_drop_worst": Metric(
        "the same in the hardest fifth of the tasks", "", "min", low=-1.0, high=1.0
    ),
    "quality_drop_teacher": Metric(
        "teacher_accuracy minus accuracy, on the same tasks",
        "",
        "min",
        low=-1.0,
        high=1.0,
        taught=True,
    ),
    "pattern": Metric("chosen layers, one bit each, input side first", usable=False),
    "normalisation": Metric("how queries were normalised for accuracy", usable=False),
    "inner_steps": Metric("inner steps of the chosen adaptation", "steps", "min"),
    "adapt_ms": Metric("time to adapt to one task", "ms", "min"),
    "adapt_ms_p95": Metric("95th percentile of the laps behind adapt_ms", "ms", "min"),
    "adapt_ms_spread": Metric(
        "of those laps, quartile to quartile, as a share of adapt_ms", "", "min", usable=False
    ),
    "adapt_timing": Metric("whether those laps agree: steady, noisy or rejected", usable=False),
    "timed_on": Metric("device and threads that times were taken on", usable=False),
    "adapt_speedup": Metric("time of the pattern of meta-training over adapt_ms", "", "max"),
    "adapt_macs": Metric("multiply-accumulates to adapt to one task", "", "min"),
    "adapt_mib": Metric("peak memory to adapt to one task, weights and images aside", "MiB", "min"),
    "prediction_error": Metric(
        "of the times predicted from the device's profile, mean over the table, relative",
        "",
        "min",
        usable=False,
    ),
    "student_params": Metric("parameters of the student", "", "min", early=True),
    "student_mib": Metric("stored weights of the student, float32", "MiB", "min", early=True),
    "student_macs": Metric("multiply-accumulates to classify one image", "", "min", early=True),
    "teacher_accuracy": Metric(
        "of the adapted teacher, on validation tasks", "", "max", high=1.0, taught=True
    ),
    "guided_accuracy": Metric(
        "of the student with its teacher beside it", "", "max", high=1.0, taught=True
    ),
    "fresh_accuracy": Metric(
        "on validation tasks that nothing was chosen by", "", "max", high=1.0, usable=False
    ),
    "fresh_accuracy_ci95": Metric(
        "half width of the 95 % interval of fresh_accuracy", "", "min", high=1.0, usable=False
    ),
    "test_accuracy": Metric(
        "on test classes, once, at the end of a sweep", "", "max", high=1.0, usable=False
    ),
    "test_accuracy_ci95": Metric(
        "half width of the 95 % interval of test_accuracy", "", "min", high=1.0, usable=False
    ),
    "train_seconds": Metric("time of meta-training", "s", "min"),
    "lease_s": Metric(
        "waited so that times are taken alone on the machine, its own and others'",
        "s",
        "min",
        usable=False,
    ),
}

MIXED = "inductive and transductive"
_BY_NORMALISATION = ("accuracy", "accuracy_full", "quality_drop", "quality_drop_worst",
                     "quality_drop_teacher", "teacher_accuracy", "guided_accuracy",
                     "fresh_accuracy", "test_accuracy")  # fmt: skip

TIMED = ("adapt_ms", "adapt_ms_p95", "adapt_speedup")
"""What a rejected timing leaves without a value to go by."""
_OF_THE_CLOCK = ("adapt_ms_spread", "lease_s")

EARLY = tuple(name for name, metric in METRICS.items() if metric.early)
USABLE = tuple(name for name, metric in METRICS.items() if metric.usable)


def normalisation_of(metrics: Mapping[str, object], config: Mapping[str, object]) -> str:
    """Say how a trial normalised query images, also one that never came to report it.

    Example:
        >>> normalisation_of({}, {"normalisation": "transductive"}), normalisation_of({}, {})
        ('transductive', 'inductive')
    """
    default = MethodConfig.model_fields["normalisation"].default
    return str(metrics.get("normalisation") or config.get("normalisation") or default)


def normalisation_among(modes: Iterable[str]) -> str:
    """Return the one way that all of them have, ``MIXED`` where they differ, else nothing.

    Example:
        >>> normalisation_among(["inductive", "inductive"]), normalisation_among([])
        ('inductive', '')
        >>> normalisation_among(["inductive", "transductive"])
        'inductive and transductive'
    """
    found = set(modes)
    return MIXED if len(found) > 1 else next(iter(found), "")


def named(name: str, normalisation: str) -> str:
    """Write a metric's name with the way of normalising that its value depends on.

    Example:
        >>> named("accuracy", "inductive"), named("adapt_ms", "inductive"), named("accuracy", "")
        ('accuracy (inductive)', 'adapt_ms', 'accuracy')
    """
    return f"{name} ({normalisation})" if normalisation and name in _BY_NORMALISATION else name


def refusal(name: str) -> str:
    """Say why a known metric cannot steer a search; an empty string where it can.

    Example:
        >>> refusal("accuracy")
        ''
        >>> refusal("pattern")
        'pattern is a word, not a number; it cannot be optimised or constrained.'
    """
    if METRICS[name].usable:
        return ""
    kind, _, accuracy = name.partition("_")
    if kind in ("test", "fresh"):
        where = "test classes" if kind == "test" else "tasks that nothing was chosen by"
        return (
            f"{name} is measured on {where}, once, after the search; choosing by it would "
            f"spoil it. Use {accuracy}, measured on validation classes."
        )
    if name in _OF_THE_CLOCK:
        return f"{name} judges how times were taken, not the student. Use adapt_ms, the time."
    if name == "prediction_error":
        return f"{name} judges the forecast of times, not the student. Use adapt_ms, the time."
    return f"{name} is a word, not a number; it cannot be optimised or constrained."


def unsteady(metrics: Mapping[str, object], wanted: Iterable[str]) -> str:
    """Say why a trial's times cannot be used where they are wanted; empty where they can.

    Args:
        metrics: Of the trial.
        wanted: The metrics that the sweep optimises or constrains.

    Example:
        >>> unsteady({"adapt_timing": "rejected"}, ["accuracy"])
        ''
    """
    names = [name for name in dict.fromkeys(wanted) if name in TIMED]
    if metrics.get("adapt_timing") != "rejected" or not names:
        return ""
    return (
        f"{' and '.join(names)} could not be measured: repeated laps differ by as much as they "
        "last. Keep other programs off the machine, or use adapt_macs, which no neighbour changes."
    )
