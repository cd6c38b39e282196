"""Reptile, as a method of one's own: adapt, then move the shared weights towards the adapted ones.

Nichol, Achiam, Schulman 2018 (arXiv 1803.02999):

    theta <- theta + step * mean over tasks of (theta'_T - theta)

With more images in training than at test, as in the paper: a task's query images are adapted to,
and its support images tell the loss. Where we differ: plain descent inside, as at test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from pydantic import Field

from trainables._core.adapt import adapt
from trainables._core.cost import known_before
from trainables._core.outer import query_logits, task_loss
from trainables._core.rig import Training, finish, quick_accuracy, student_network, student_rig
from trainables._learner import DivergedError, Learner, MethodConfig, parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._learner import ImageData, Outcome, RunSettings, TaskShape, Value


class ReptileConfig(MethodConfig):
    """What every method has, and the step towards the adapted weights."""

    step: float = Field(default=1.0, gt=0, le=1)


@final
class Reptile(Learner):
    """A student meta-trained without a second derivative, and without query images."""

    Config = ReptileConfig

    def __init__(
        self, config: Mapping[str, Value], data: ImageData, shape: TaskShape, run: RunSettings
    ) -> None:
        self.config = parse_config(Reptile, config)
        self.run, self.done = run, 0
        self.rig = student_rig(
            self.config, data, shape, seed=run.seed, device=run.device, halvings=run.halvings
        )

    @torch.no_grad()
    def step(self) -> dict[str, float]:
        rig, share = self.rig, self.config.step * (1 - self.done / self.run.iterations)
        with Training(rig):
            tasks, rule = rig.sized(rig.episodes()), rig.setting.rule(rig.pattern)
            run = adapt(rig.network, rig.meta, tasks.query, tasks.query_labels, rule)
            z = query_logits(run, tasks.support, inductive=rig.setting.inductive)
            loss = float(task_loss(z, tasks.support_labels))
            for name, reached in run.steps[-1].items():
                if name in rig.meta:  # the classifier is each task's own
                    rig.meta[name] += share * (reached.mean(0) - rig.meta[name])
        if not all(bool(p.isfinite().all()) for p in rig.meta.values()):
            raise DivergedError(f"a weight is no finite number at meta-step {self.done + 1}")
        self.done += 1
        return {"loss": loss, "outer_rate": share, "tasks": tasks.tasks}

    def validate(self) -> dict[str, float]:
        return {"accuracy": quick_accuracy(self.rig, self.run.quick_tasks, self.run.seed)}

    def finish(self, further: Sequence[Mapping[str, Value]] = ()) -> Outcome:
        parsed = [parse_config(Reptile, one) for one in further]
        return finish(
            self.rig, tasks=self.run.validation_tasks, offset=self.run.seed, further=parsed
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "meta": {name: p.clone() for name, p in self.rig.meta.items()},
            "generator": self.rig.generator.get_state(),
            "seconds": self.rig.seconds,
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rig.meta = {n: p.to(self.run.device) for n, p in state["meta"].items()}
        self.rig.generator.set_state(state["generator"])
        self.rig.seconds, self.done = state["seconds"], state["done"]

    @classmethod
    def cheap(
        cls, config: Mapping[str, Value], *, channels: int, size: int, ways: int
    ) -> dict[str, float]:
        student = parse_config(cls, config).student
        return known_before(student_network(student, channels=channels, size=size, ways=ways), ways)


LEARNER = Reptile
