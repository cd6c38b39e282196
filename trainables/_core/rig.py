"""What a learner works with: a student, its meta-parameters, its source of episodes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from trainables._core import evaluate, networks
from trainables._core.adapt import adapt
from trainables._core.ending import VALIDATION_SEED, at_size, trained_pattern
from trainables._core.episodes import Episodes, ImageData, Sampler, TaskShape, resized
from trainables._core.evaluate import Setting
from trainables._core.lease import node
from trainables._core.observe import Model, adaptation_of, conclude, told_of_training
from trainables._core.outer import Objective, judged, learn, task_loss
from trainables._core.parallel import Chunks
from trainables._core.student import StudentSpec
from trainables._core.views import view_labels, with_views

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainables._core.adapt import Adapted
    from trainables._core.ending import Outcome
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._core.outer import MetaOptimiser
    from trainables._core.settings import MethodConfig, StudentSettings


CHUNK_MACS = 4_000_000_000  # forward multiply-accumulates of tasks that go together: measured
MOST_TOGETHER = 8  # tasks, on a CPU: more gain nothing there


def student_network(student: StudentSettings, *, channels: int, size: int, ways: int) -> Network:
    """The student of a configuration for images of ``size`` px.

    Raises:
        ValueError: the images are too small for its depth.
    """
    side = student.size or size
    return networks.conv4(
        (channels, side, side),
        width=student.width,
        depth=student.depth,
        norm=student.norm,
        head=student.head,
        down=student.down,
        ways=ways,
    )


@dataclass
class Rig:
    """One network being meta-trained: the student, or a teacher that stands in for it."""

    network: Network
    meta: Params
    kind: str  # conv4, or the teacher's name
    width: int
    config: MethodConfig
    data: ImageData
    shape: TaskShape
    seed: int
    train: Sampler
    validation: Sampler
    generator: torch.Generator
    chunks: Chunks  # how many tasks go through the network together
    seconds: float = 0.0  # spent in meta-training, saved with the checkpoint

    @property
    def setting(self) -> Setting:
        """How the student adapts under this configuration."""
        c = self.config
        return Setting(
            c.inner_steps, c.inner_rate, self.shape.ways, c.views, c.normalisation == "inductive"
        )

    @property
    def pattern(self) -> str:
        """The pattern of meta-training."""
        return trained_pattern(self.network, self.config.adapts)

    def episodes(self) -> Episodes:
        """The next meta-batch, at the data's own size."""
        return self.train.draw(self.generator, self.config.meta_batch)

    def sized(self, episodes: Episodes) -> Episodes:
        """The same episodes at the size the network reads."""
        size = self.network.into[-1]
        return replace(
            episodes, support=resized(episodes.support, size), query=resized(episodes.query, size)
        )


def build(
    network: Network,
    kind: str,
    width: int,
    config: MethodConfig,
    data: ImageData,
    shape: TaskShape,
    *,
    seed: int,
    device: str,
    halvings: int = 0,
) -> Rig:
    """A fresh network with its samplers; weights and episodes follow from the seed alone.

    ``halvings`` of the tasks that go together: for a trial that ran out of memory before.
    """
    weights = torch.Generator().manual_seed(seed)
    meta = {n: p.to(device) for n, p in network.init(weights).items()}
    return Rig(
        network,
        meta,
        kind,
        width,
        config,
        data,
        shape,
        seed,
        Sampler(data.train, data, shape, device),
        Sampler(data.validation, data, shape, device),
        torch.Generator().manual_seed(seed + 1),
        Chunks(max(1, together(network, shape, config.meta_batch, device) >> halvings)),
    )


def together(network: Network, shape: TaskShape, tasks: int, device: str) -> int:
    """Tasks of a meta-batch that go together: all on a GPU; on a CPU few, and some per thread.

    It follows from shapes and the threads a trial asks for, not from how busy the machine is.
    """
    if device != "cpu":
        return tasks
    threads, images = torch.get_num_threads(), shape.ways * (shape.shots + shape.queries)
    few = max(1, min(MOST_TOGETHER, CHUNK_MACS // (images * network.macs(shape.ways))))
    turns = math.ceil(tasks / (threads * few))  # of every thread; none is to wait for another
    return math.ceil(tasks / (threads * turns))


def student_rig(
    config: MethodConfig,
    data: ImageData,
    shape: TaskShape,
    *,
    seed: int,
    device: str,
    halvings: int = 0,
) -> Rig:
    """The rig of a configuration's student."""
    c = config.student
    network = student_network(c, channels=data.channels, size=data.size, ways=shape.ways)
    return build(
        network,
        "conv4",
        c.width,
        config,
        data,
        shape,
        seed=seed,
        device=device,
        halvings=halvings,
    )


class Met(NamedTuple):
    """A chunk of tasks as adapted before the update, without a graph."""

    run: Adapted
    logits: torch.Tensor  # of the query images, [B, Q, N]
    features: torch.Tensor | None  # of the support images, [B, M, F], where they were measured


def maml_update(
    rig: Rig, outer: MetaOptimiser, episodes: Episodes
) -> tuple[list[Met], dict[str, float]]:
    """One meta-iteration of MAML on these episodes.

    Returns:
        The tasks chunk by chunk, and what ``learn`` says of them.
    """

    def objective(part: Episodes) -> Objective[Met]:
        part = rig.sized(part)
        setting = rig.setting
        run = adapt(
            rig.network,
            rig.meta,
            with_views(part.support, setting.views),
            view_labels(part.support_labels, setting.views),
            setting.rule(rig.pattern),
            train=True,
            second_order=rig.config.order == "second",
        )
        z, features = judged(run, part.query, inductive=setting.inductive)
        loss = task_loss(z, part.query_labels)
        seen = None if features is None else features.detach()
        return Objective(loss, loss, z, lambda: Met(run.settled(), z.detach(), seen))

    return learn(outer, rig.chunks, episodes, objective)


def quick_accuracy(rig: Rig, tasks: int, offset: int = 0) -> float:
    """Accuracy of the trained pattern after T steps on the first validation tasks."""
    setting = rig.setting
    batches = at_size(
        rig.validation.fixed(offset + VALIDATION_SEED, tasks, 25), rig.network.into[-1]
    )
    wanted = {rig.pattern: [setting.steps]}
    found = evaluate.score(rig.network, rig.meta, batches, setting, wanted)
    return evaluate.interval(found[rig.pattern, setting.steps])[0]


def finish(rig: Rig, *, tasks: int, offset: int, further: Sequence[MethodConfig] = ()) -> Outcome:
    """The common ending: table, choice, student; the same for further adaptation settings."""
    c = rig.config
    spec = StudentSpec.model_validate(
        {
            "kind": rig.kind,
            "width": rig.width,
            "depth": c.student.depth,
            "norm": c.student.norm,
            "head": c.student.head,
            "down": c.student.down,
            "ways": rig.shape.ways,
            "channels": rig.data.channels,
            "size": rig.data.size,
            "input_size": rig.network.into[-1],
            "mean": rig.data.mean,
            "std": rig.data.std,
            "pattern": rig.pattern,
            "layers": rig.network.layers,
            "inner_steps": c.inner_steps,
            "inner_rate": c.inner_rate,
            "views": c.views,
            "normalisation": c.normalisation,
        }
    )
    model = Model(
        rig.network,
        {n: p.detach() for n, p in rig.meta.items()},
        spec,
        rig.pattern,
        c.inner_steps,
        c.inner_rate,
        rig.validation,
        offset + VALIDATION_SEED,
        tasks,
    )
    settings = [adaptation_of(one, c.inner_steps, c.inner_rate) for one in (c, *further)]
    return told_of_training(conclude(model, settings), {"train_seconds": rig.seconds})


class Training:
    """One meta-iteration: the node's lease shared, the precision of training, and a clock runs.

    The wait for the lease is not timed. Nothing longer belongs in one ``with``: whoever measures
    a time waits for its end.

    ``precision`` is torch's own word (``torch.set_float32_matmul_precision``): weights, sums and
    norms stay float32; with ``medium`` the factors of a product are rounded to bfloat16, with
    ``high`` to TF32 where the device has it. What a device does, adapting, is never rounded.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def __enter__(self) -> None:
        self._lease = node().shared()
        self._lease.__enter__()
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self._rig.config.precision)
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._rig.seconds += time.perf_counter() - self._start
        torch.set_float32_matmul_precision(self._before)
        self._lease.__exit__(None, None, None)


def snapshot(rig: Rig, outer: MetaOptimiser) -> dict[str, Any]:
    """All that meta-training this network goes on from."""
    return {
        "outer": outer.state_dict(),
        "generator": rig.generator.get_state(),
        "seconds": rig.seconds,
    }


def restore(rig: Rig, outer: MetaOptimiser, state: dict[str, Any]) -> None:
    """Goes on with the weights of the snapshot and the episodes that would have come next."""
    outer.load_state_dict(state["outer"])
    rig.generator.set_state(state["generator"])
    rig.seconds = state["seconds"]
