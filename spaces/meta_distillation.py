"""What is searched for task-specific meta distillation: Wu et al., WACV 2023, arXiv 2210.09922.

``baseline`` stands first and fixed: setting it to a baseline in a sweep file switches off the
parameters that baseline does not read, so that no trial is spent on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces._domains import Choice, Fixed, Float, Int, When

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces._domains import Space, Value

_STUDENT = When("baseline", ("tsmd", "student", "fixed_teacher"))
_TEACHER = When("baseline", ("tsmd", "fixed_teacher", "oracle"))
_BOTH = When("baseline", ("tsmd", "fixed_teacher"))
_DISTILS = When("distillation.loss", ("kl", "relational"))

SPACE: Space = {
    "baseline": Fixed(
        "tsmd",
        why="the method itself; student, fixed_teacher and oracle are for comparison, not search",
    ),
    "student.width": Int(
        8,
        64,
        log=True,
        when=_STUDENT,
        why="64 filters are the largest usual Conv-4; below 8 accuracy falls steeply (ours)",
    ),
    "student.depth": Int(
        2,
        4,
        when=_STUDENT,
        why="the paper's student has 4 blocks; fewer are smaller and faster, and worse",
    ),
    "inner_steps": Int(
        1,
        10,
        when=_STUDENT,
        why="each step of the deployed student costs time; past 10 nothing is gained (ours)",
    ),
    "inner_rate": Float(
        0.001,
        1.0,
        log=True,
        when=_STUDENT,
        why="distillation multiplies the student's step, so its rate is tuned with it in place",
    ),
    "outer_rate": Float(
        1e-4,
        1e-2,
        log=True,
        why="MAML's Adam rate 0.001 and a decade to either side",
    ),
    "teacher.kind": Choice(
        ("conv4", "resnet12", "resnet18", "resnet50"),
        when=_TEACHER,
        why="ResNet-50 in the paper; the smaller ones cost a fraction and are often enough (ours)",
    ),
    "teacher.width": Int(
        32,
        128,
        log=True,
        when=When("teacher.kind", ("conv4",)),
        why="a teacher narrower than 32 filters is no better than the student it is to teach",
    ),
    "teacher.inner_steps": Int(
        1,
        5,
        when=_TEACHER,
        why="a teacher adapted for long is saturated and says no more than the labels (ours)",
    ),
    "teacher.inner_rate": Float(
        0.001,
        0.4,
        log=True,
        when=_TEACHER,
        why="a smaller rate than the student's keeps the teacher unsaturated (ours)",
    ),
    "teacher.pretrain": Float(
        0.0,
        0.8,
        when=_BOTH,
        why="an untrained teacher misleads; its head start comes on top and costs time (ours)",
    ),
    "distillation.loss": Choice(
        ("kl", "relational", "none"),
        when=_BOTH,
        why="the paper's two losses; none leaves the inner loop to the labels (ours)",
    ),
    "distillation.weight": Float(
        0.05,
        4.0,
        log=True,
        when=_DISTILS,
        why="1 is the paper's plain sum; below 0.05 the labels drown it, above 4 it drowns them",
    ),
    "distillation.temperature": Float(
        1.0,
        8.0,
        log=True,
        when=_BOTH,
        why="1 leaves the teacher as sharp as it is; at 8 its logits are close to uniform (ours)",
    ),
    "distillation.outer": Float(
        0.0,
        4.0,
        when=_BOTH,
        why="0 is the paper, which distils on the support set alone; 1 adds the query set (ours)",
    ),
    "views": Int(
        0,
        3,
        when=_STUDENT,
        why="views give the teacher something the labels do not say; each one costs a pass (ours)",
    ),
    "test.steps": Int(
        1,
        10,
        stage="adaptation",
        when=_STUDENT,
        why="MAML takes more steps at test than in training; all up to 10 cost one run",
    ),
    "test.rate": Float(
        0.001,
        1.0,
        log=True,
        stage="adaptation",
        when=_STUDENT,
        why="the range of inner_rate: a rate once learnt with may be bettered at test (ours)",
    ),
    "epsilon": Float(
        0.0,
        0.05,
        stage="adaptation",
        why="0 keeps the best accuracy; more than 5 points of it is a different student (ours)",
    ),
}

PUBLISHED: Mapping[str, Mapping[str, Value]] = {
    "Wu et al. 2023, KL distillation": {
        "baseline": "tsmd",
        "student.depth": 4,
        "teacher.kind": "resnet50",
        "distillation.loss": "kl",
        "distillation.weight": 1.0,
        "distillation.outer": 0.0,
    },
    "Wu et al. 2023, relational distillation": {
        "baseline": "tsmd",
        "student.depth": 4,
        "teacher.kind": "resnet50",
        "distillation.loss": "relational",
        "distillation.outer": 0.0,
    },
}
