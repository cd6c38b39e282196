"""MAML, the base learner, with its first-order, ANIL and BOIL settings.

Finn, Abbeel, Levine 2017 (arXiv 1703.03400):

    theta'_0 = theta;  theta'_{t+1} = theta'_t - alpha grad CE(f_{theta'_t}; S)      t = 0..T-1
    theta <- Adam(theta, grad_theta sum_tasks CE(f_{theta'_T}; Q))

``order: first`` drops the graph of the inner gradients (FOMAML). ``adapts: head`` is ANIL (Raghu
et al. 2020), ``adapts: body`` BOIL (Oh et al. 2021). Where we differ from the paper: query images
are normalised with the statistics of the support set (inductive), the head fits any number of
classes, the outer rate falls as a cosine; each is a setting or named as our default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, final

from typing_extensions import override

from trainables._core.cost import known_before
from trainables._core.outer import MetaOptimiser
from trainables._core.rig import (
    Training,
    finish,
    maml_update,
    quick_accuracy,
    restore,
    snapshot,
    student_network,
    student_rig,
)
from trainables._core.settings import MethodConfig
from trainables._learner import Learner, parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainables._core.ending import Outcome
    from trainables._core.episodes import ImageData, TaskShape
    from trainables._learner import RunSettings, Value


@final
class Maml(Learner):
    """A student meta-trained alone."""

    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(
        self, config: Mapping[str, Value], data: ImageData, shape: TaskShape, run: RunSettings
    ) -> None:
        self.config = parse_config(type(self), config)
        self.run = run
        self.rig = student_rig(
            self.config, data, shape, seed=run.seed, device=run.device, halvings=run.halvings
        )
        self.outer = MetaOptimiser(self.rig.meta, self.config.outer_rate, run.iterations)

    @override
    def step(self) -> dict[str, float]:
        with Training(self.rig):
            return maml_update(self.rig, self.outer, self.rig.episodes())[1]

    @override
    def validate(self) -> dict[str, float]:
        return {"accuracy": quick_accuracy(self.rig, self.run.quick_tasks, self.run.seed)}

    @override
    def finish(self, further: Sequence[Mapping[str, Value]] = ()) -> Outcome:
        parsed = [parse_config(type(self), one) for one in further]
        tasks, offset = self.run.validation_tasks, self.run.seed
        return finish(self.rig, tasks=tasks, offset=offset, further=parsed)

    @override
    def state_dict(self) -> dict[str, Any]:
        return snapshot(self.rig, self.outer)

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self.rig, self.outer, state)

    @classmethod
    @override
    def cheap(
        cls, config: Mapping[str, Value], *, channels: int, size: int, ways: int
    ) -> dict[str, float]:
        student = parse_config(cls, config).student
        return known_before(student_network(student, channels=channels, size=size, ways=ways), ways)


LEARNER = Maml
