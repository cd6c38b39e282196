"""The metrics by name: what each one means, its unit, and which way is better.

The names are the same in results, TensorBoard, JSON and bundles. Accuracy lies in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """

    meaning: str
    unit: str = ""
    better: Direction | None = None
    low: float = 0.0
    high: float = math.inf
    usable: bool = True
    early: bool = False


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("on meta-validation tasks, with the chosen pattern", "", "max", high=1.0),
    "accuracy_ci95": Metric("half width of the 95 % interval of accuracy", "", "min", high=1.0),
    "accuracy_full": Metric("accuracy of the full pattern, every layer updated", "", "max", high=1),
    "accuracy_transductive": Metric(
        "accuracy when queries are normalised among themselves", "", "max", high=1.0
    ),
    "accuracy_inductive": Metric(
        "accuracy when queries are normalised by the support set", "", "max", high=1.0
    ),
    "quality_drop": Metric("accuracy_full minus accuracy", "", "min", low=-1.0, high=1.0),
    "pattern": Metric("chosen layers, one bit each, input side first", usable=False),
    "normalisation": Metric("how queries were normalised for accuracy", usable=False),
    "inner_steps": Metric("inner steps of the chosen adaptation", "steps", "min"),
    "adapt_ms": Metric("time to adapt to one task", "ms", "min"),
    "adapt_speedup": Metric("time of the full pattern over adapt_ms", "", "max"),
    "adapt_macs": Metric("multiply-accumulates to adapt to one task", "", "min"),
    "student_params": Metric("parameters of the student", "", "min", early=True),
    "student_macs": Metric("multiply-accumulates to classify one image", "", "min", early=True),
    "teacher_accuracy": Metric("of the adapted teacher, on validation tasks", "", "max", high=1.0),
    "guided_accuracy": Metric("of the student with its teacher beside it", "", "max", high=1.0),
    "test_accuracy": Metric(
        "on test classes, once, at the end of a sweep", "", "max", high=1.0, usable=False
    ),
    "test_accuracy_ci95": Metric(
        "half width of the 95 % interval of test_accuracy", "", "min", high=1.0, usable=False
    ),
    "train_seconds": Metric("time of meta-training", "s", "min"),
}

USABLE = tuple(name for name, metric in METRICS.items() if metric.usable)


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
    if name.startswith("test_"):
        return (
            f"{name} is measured on test classes, once, after the search; choosing by it would "
            f"spoil it. Use {name.removeprefix('test_')}, measured on validation classes."
        )
    return f"{name} is a word, not a number; it cannot be optimised or constrained."
