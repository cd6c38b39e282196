"""The peers do the project's work: same weights, same tasks, same results."""

import pytest
import torch

pytest.importorskip("higher", reason="the extra `bench` is not installed")
pytest.importorskip("torchopt", reason="the extra `bench` is not installed")

from benchmarks import conventional, peers
from trainables._core.adapt import Rule, adapt
from trainables._core.guidance import build_teacher, student_step, teacher_step
from trainables._core.heads import HEAD_B, HEAD_W
from trainables._core.networks import conv4, teacher
from trainables._core.outer import MetaOptimiser
from trainables._core.rig import maml_update, student_rig
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._data import load
from trainables._learner import TaskShape
from trainables.meta_distillation import DistillationSettings, TeacherSettings

TASKS, SHAPE = 3, TaskShape(3, 2, 4)


@pytest.fixture(scope="module")
def data():
    return load("glyphs", size=16)


def rig_of(data, **more):
    config = MethodConfig(
        student=StudentSettings(width=4, head="linear", down=more.pop("down", "stride")),
        inner_steps=3,
        meta_batch=TASKS,
        **more,
    )
    rig = student_rig(config, data, SHAPE, seed=3, device="cpu")
    rig.meta = {n: p.double() for n, p in rig.meta.items()}
    return rig


def drawn(rig):
    episodes = rig.episodes()
    return type(episodes)(
        episodes.support.double(),
        episodes.support_labels,
        episodes.query.double(),
        episodes.query_labels,
        episodes.tasks,
        episodes.ways,
    )


def assert_close(found, expected):
    """In double precision."""
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def slopes(model):
    return [p.grad for p in model.parameters() if p.grad is not None]


def gradients(rig):
    return {n: p.grad for n, p in rig.meta.items()}


@pytest.mark.parametrize("adapter", [peers.by_hand, peers.by_higher])
@pytest.mark.parametrize(
    ("down", "head", "inductive", "layout"),
    [
        ("stride", "shared", True, torch.contiguous_format),
        ("stride", "linear", False, torch.channels_last),
        ("pool", "linear", True, torch.channels_last),
    ],
)
def test_adapted_weights_and_statistics_are_equal(adapter, down, head, inductive, layout):
    generator = torch.Generator().manual_seed(1)
    network = conv4((3, 17, 17), width=4, head=head, down=down, ways=3)
    meta = {n: p.double() for n, p in network.init(generator).items()}
    support = torch.randn(1, 6, 17, 17, 3, generator=generator).double()
    labels = torch.arange(3).repeat_interleave(2)
    run = adapt(network, meta, support, labels, Rule("11111", 4, 0.2, 3))
    model = conventional.of(network, meta, layout)
    images = conventional.images_first(support[0]).contiguous(memory_format=layout)
    inner = peers.Inner(4, 0.2, inductive)
    adapt_one = adapter(model, inner)
    adapt_one(images.flip(0), labels)  # the next task starts where this one did
    moved, measured = adapt_one(images, labels)
    found = conventional.back(network, moved)
    for name in run.steps[4]:
        theirs = {HEAD_W: "head.weight", HEAD_B: "head.bias"}.get(name, name)
        assert_close(found[theirs], run.steps[4][name][0])
    assert (measured is not None) == inductive
    if measured is not None:
        expected = run.statistics(4).values
        assert len(measured.values) == len(expected) == 4
        for (mean, variance), (m, rstd) in zip(measured.values, expected, strict=True):
            assert_close(mean, m[0, 0])
            assert_close((variance + 1e-5).rsqrt(), rstd[0, 0])


@pytest.mark.parametrize("loss", [peers.hand_written, peers.with_higher, peers.with_torchopt])
@pytest.mark.parametrize(
    ("normalisation", "down"), [("inductive", "stride"), ("transductive", "pool")]
)
def test_meta_gradients_are_equal(data, loss, normalisation, down):
    rig = rig_of(data, normalisation=normalisation, down=down)
    episodes = drawn(rig)
    model = conventional.of(rig.network, rig.meta)
    inner = peers.Inner(3, rig.config.inner_rate, normalisation == "inductive")
    outer = MetaOptimiser(rig.meta, 1e-3, 10)
    trainer = peers.MetaTrainer(model, inner, outer.rate)
    for _ in range(2):  # the second iteration starts from weights that the first has moved
        trainer.adam.param_groups[0]["lr"] = outer.rate
        _, said = maml_update(rig, outer, episodes)
        seen = trainer.step(peers.tasks_of(episodes, torch.contiguous_format), loss)
        assert seen == pytest.approx(said["loss"], rel=1e-9)
        theirs = conventional.back(rig.network, slopes(model))
        for name, grad in gradients(rig).items():
            assert grad.abs().max() > 0
            assert_close(theirs[name], grad)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("normalisation", ["inductive", "transductive"])
def test_both_models_of_tsmd_get_equal_gradients(data, order, normalisation):
    rig = rig_of(data, normalisation=normalisation)
    told = DistillationSettings(weight=0.3, outer=0.7, temperature=2.0)
    settings = TeacherSettings(kind="resnet12", width=4, inner_steps=2, order=order)
    guide = build_teacher(settings, rig.config, data, SHAPE, seed=0, device="cpu", iterations=10)
    guide.rig.meta = {n: p.detach().double() for n, p in guide.rig.meta.items()}
    guide.outer = MetaOptimiser(guide.rig.meta, 1e-3, 10)
    outer = MetaOptimiser(rig.meta, 1e-3, 10)
    episodes = drawn(rig)
    inductive = normalisation == "inductive"
    trainers = [
        peers.MetaTrainer(
            conventional.of(r.network, r.meta),
            peers.Inner(r.config.inner_steps, r.config.inner_rate, inductive, second),
            1e-3,
        )
        for r, second in ((guide.rig, order == "second"), (rig, True))
    ]
    adviser, _ = teacher_step(guide, episodes)
    student_step(rig, outer, adviser, episodes, told)
    peers.tsmd_step(
        trainers[0],
        trainers[1],
        peers.tasks_of(episodes, torch.contiguous_format),
        peers.Told(told.weight, told.outer, told.temperature),
    )
    for r, trainer in zip((guide.rig, rig), trainers, strict=True):
        theirs = conventional.back(r.network, slopes(trainer.model))
        for name, grad in gradients(r).items():
            assert grad.abs().max() > 0
            assert_close(theirs[name], grad)


def test_a_head_of_prototypes_has_no_counterpart():
    network = teacher("resnet12", (1, 16, 16), width=4)
    with pytest.raises(ValueError, match="take shared or linear"):
        conventional.of(network, network.init(torch.Generator().manual_seed(0)))
