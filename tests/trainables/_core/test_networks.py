"""Networks against torch.nn, layer by layer, and tasks side by side against one by one."""

import pytest
import torch
from torch import nn

from trainables._core.episodes import channels_last
from trainables._core.layers import Statistics
from trainables._core.networks import TEACHERS, conv4, teacher


def as_module(block, into, out, kernel, stride, params, prefix):
    module = nn.Sequential(
        nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)
    )
    module[0].weight.data = params[f"{prefix}.weight"].permute(3, 2, 0, 1)
    module[1].weight.data = params[f"{prefix}.gain"]
    module[1].bias.data = params[f"{prefix}.bias"]
    return module


def random_params(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = network.init(generator)
    return {n: p + 0.3 * torch.randn(p.shape, generator=generator) for n, p in params.items()}


def test_a_lone_channels_stride_leaves_maps_channels_last():
    """Channels last is how every later map is read; the other way round is slower."""
    network, first = conv4((1, 28, 28), width=8), slice(1)
    params = random_params(network)
    images = torch.rand(1, 75, 1, 28, 28).movedim(2, -1)
    assert images.is_contiguous()
    assert images.stride(-1) != 1, "a stride that means nothing"
    for measured in (None, Statistics()):
        if measured is not None:
            network.run(params, images, measured, first)
            measured = measured.replayed()
        assert network.run(params, images, measured, first, once=True).is_contiguous()


@pytest.mark.parametrize("down", ["stride", "pool"])
def test_conv4_is_the_papers(down):
    network = conv4((3, 32, 32), width=6, down=down)
    params = random_params(network)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    y = x
    for i, layer in enumerate(network.body):
        stride = 2 if down == "stride" else 1
        y = as_module(layer, 3 if i == 0 else 6, 6, 3, stride, params, f"{layer.name}.conv")(
            y
        ).relu()
        y = nn.functional.max_pool2d(y, 2) if down == "pool" else y
    found = network.run(params, channels_last(x)[None])[0]
    torch.testing.assert_close(found, channels_last(y), rtol=1e-4, atol=1e-5)
    assert y.flatten(1).shape[1] == network.head.features


def test_resnet18_stage_is_two_basic_blocks():
    network = teacher("resnet18", (1, 12, 12), width=4)
    params = random_params(network)
    stage = network.body[2]
    x = torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(1))

    def bn(name, into, out, kernel, stride):
        return as_module(None, into, out, kernel, stride, params, f"stage2.{name}")

    y = bn("block0.conv2", 8, 8, 3, 1)(bn("block0.conv1", 4, 8, 3, 2)(x).relu())
    y = (y + bn("block0.short", 4, 8, 1, 2)(x)).relu()
    z = bn("block1.conv2", 8, 8, 3, 1)(bn("block1.conv1", 8, 8, 3, 1)(y).relu())
    torch.testing.assert_close(
        stage.forward(params, channels_last(x)[None], None)[0],
        channels_last((y + z).relu()),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_tasks_channels_last_are_tasks_one_by_one(kind, norm):
    network = teacher(kind, (1, 28, 28), width=4, norm=norm)
    generator = torch.Generator().manual_seed(2)
    shared = {n: p.double() for n, p in random_params(network).items()}
    own = {n: torch.stack([p, p * 1.1]) for n, p in shared.items()}
    x = torch.randn(2, 4, 1, 28, 28, generator=generator, dtype=torch.double)
    x = channels_last(x)
    together = network.features(network.run(shared, x))
    grouped = network.features(network.run(own, x))
    for task in range(2):
        alone = network.features(network.run(shared, x[task : task + 1]))[0]
        torch.testing.assert_close(together[task], alone)
        single = {n: p[task] for n, p in own.items()}
        torch.testing.assert_close(
            grouped[task], network.features(network.run(single, x[task : task + 1]))[0]
        )


def test_replayed_statistics_are_the_recorded_pass():
    network = teacher("resnet12", (1, 28, 28), width=4)
    params = random_params(network)
    x = torch.randn(1, 5, 28, 28, 1, generator=torch.Generator().manual_seed(1))
    stats = Statistics()
    recorded = network.run(params, x, stats)
    torch.testing.assert_close(recorded, network.run(params, x), rtol=1e-3, atol=1e-4)
    replayed = network.run(params, x[:, :1], stats.replayed())
    torch.testing.assert_close(replayed, recorded[:, :1], rtol=1e-3, atol=1e-4)


def test_an_image_that_comes_alone_is_normalised_as_among_others():
    """11 filters are 11 groups, and the last map of 16 px is one number for each."""
    network = conv4((1, 16, 16), width=11, norm="group")
    params = random_params(network)
    x = torch.randn(1, 2, 16, 16, 1, generator=torch.Generator().manual_seed(1))
    both = network.run(params, x)
    assert both.shape == (1, 2, 1, 1, 11)
    torch.testing.assert_close(network.run(params, x[:, :1]), both[:, :1])


@pytest.mark.parametrize("size", [28, 32, 84])
@pytest.mark.parametrize("kind", TEACHERS)
def test_teachers_read_every_usual_size(kind, size):
    network = teacher(kind, (3, size, size), width=4)
    params = network.init(torch.Generator())
    out = network.run(params, torch.zeros(1, 2, size, size, 3))
    channels, height, width = network.body[-1].out
    assert tuple(out.shape[2:]) == (height, width, channels)
    assert network.features(out).shape[-1] == network.head.features


def test_images_too_small_are_named():
    with pytest.raises(ValueError, match=r"10x10 px are too small.* at conv4; use fewer"):
        conv4((1, 10, 10), width=4, down="pool")
    with pytest.raises(ValueError, match=r"8x8 px are too small.* at stage4; use another teacher"):
        teacher("resnet12", (1, 8, 8), width=4)


def test_an_unknown_teacher_is_named():
    with pytest.raises(ValueError, match="one of conv4, resnet12"):
        teacher("vgg", (1, 28, 28), width=4)
