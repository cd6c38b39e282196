"""Counts by hand, and the ratios published for the Conv-4 of 32 filters on 32 px."""

import pytest

from trainables._core import cost
from trainables._core.networks import conv4, teacher


def cifar(head="linear"):
    return conv4((3, 32, 32), width=32, head=head, down="pool", ways=5)


def test_conv4_by_hand():
    network = cifar()
    assert cost.layer_macs(network, 5) == [
        32 * 32 * 32 * 3 * 9,
        32 * 16 * 16 * 32 * 9,
        32 * 8 * 8 * 32 * 9,
        32 * 4 * 4 * 32 * 9,
        32 * 2 * 2 * 5,
    ]
    by_hand = (32 * 3 * 9 + 64) + 3 * (32 * 32 * 9 + 64) + (128 + 1) * 5
    assert network.parameters() == by_hand
    assert cost.size_mib(network) == by_hand * 4 / 2**20


def test_stored_numbers_are_the_tensors():
    import torch

    networks = [cifar("prototype"), cifar("shared"), cifar("linear")]
    networks += [teacher(k, (1, 28, 28), width=8) for k in ("resnet12", "resnet18", "resnet50")]
    assert len(networks) == 6
    for network in networks:
        tensors = network.init(torch.Generator())
        assert sum(p.numel() for p in tensors.values()) == network.parameters()


def test_resnet_block_by_hand():
    """ResNet-18, width 8, 28 px grey: stem, two basic blocks a stage, 1x1 shortcuts."""
    network = teacher("resnet18", (1, 28, 28), width=8)
    stage1 = 4 * 8 * 8 * 9 * 28 * 28
    stage2 = (8 * 16 * 9 + 3 * 16 * 16 * 9 + 8 * 16) * 14 * 14
    stage3 = (16 * 32 * 9 + 3 * 32 * 32 * 9 + 16 * 32) * 7 * 7
    stage4 = (32 * 64 * 9 + 3 * 64 * 64 * 9 + 32 * 64) * 4 * 4
    assert [layer.macs() for layer in network.body] == [
        8 * 9 * 28 * 28,
        stage1,
        stage2,
        stage3,
        stage4,
    ]


def test_bottleneck_by_hand():
    network = teacher("resnet50", (1, 28, 28), width=4)
    stage1 = next(layer for layer in network.body if layer.name == "stage1")
    first = 4 * 4 + 4 * 4 * 9 + 4 * 16 + 4 * 16  # 1x1, 3x3, 1x1 and the shortcut
    later = 16 * 4 + 4 * 4 * 9 + 4 * 16
    assert stage1.macs() == (first + 2 * later) * 28 * 28


@pytest.mark.parametrize(
    ("pattern", "published"),
    [("01111", 1.41), ("00111", 2.27), ("00011", 2.68), ("00001", 2.78), ("11110", 1.00)],
)
def test_saving_of_one_step_without_caching(pattern, published):
    network = cifar()
    full = cost.uncached_step_macs(network, "11111", 5)
    ratio = full / cost.uncached_step_macs(network, pattern, 5)
    assert ratio == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(
    ("pattern", "steps", "published"),
    [
        ("00011", 5, 10.4),
        ("00001", 5, 13.9),
        ("00111", 10, 5.7),
        ("00011", 10, 16.3),
        ("00001", 10, 27.7),
    ],
)
def test_saving_of_an_adaptation_with_caching(pattern, steps, published):
    """Steps of the head alone go through the Gram matrix and save a little more than published."""

    def macs(p):
        return cost.adapt_macs(cifar(), p, steps=steps, ways=5, images=1, inductive=False)

    slack = 0.06 if pattern != "00001" else 0.01 * published
    assert macs("11111") / macs(pattern) == pytest.approx(published, abs=slack)


def test_inductive_prediction_costs_a_last_pass_of_the_updated_body():
    network = cifar()
    plain = cost.adapt_macs(network, "00011", steps=2, ways=5, images=10, inductive=False)
    measured = cost.adapt_macs(network, "00011", steps=2, ways=5, images=10, inductive=True)
    assert measured - plain == 10 * network.body[3].macs()
    head = cost.adapt_macs(network, "00001", steps=2, ways=5, images=10, inductive=True)
    assert head == cost.adapt_macs(network, "00001", steps=2, ways=5, images=10, inductive=False)
