"""Blocks written out: torch's own calls where there is much to do, and kernels that are kept."""

from dataclasses import replace

import pytest
import torch

from tests.trainables._core.test_adapt import doubled, tasks_of
from trainables._core import blocks, layers
from trainables._core.adapt import Rule, adapt
from trainables._core.episodes import channels_last
from trainables._core.networks import conv4


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("down", ["stride", "pool"])
@pytest.mark.parametrize("pattern", ["0111", "0101", "1000"])
def test_what_torch_convolves_of_a_tasks_own_kernels_is_the_reference(pattern, down, monkeypatch):
    """The last pass, which measures the support set, goes through kernels that the task owns."""
    network = conv4((3, 18, 18), width=8, depth=3, head="shared", down=down, ways=3)
    meta = doubled(network.init(torch.Generator().manual_seed(1)))
    support, rule = channels_last(tasks_of(1, 3, 3, 18)).double(), Rule(pattern, 3, 0.3, 3)

    def statistics():
        copied = replace(network)  # as if it had never run
        run = adapt(copied, meta, support, torch.arange(3), rule, history=False)
        with torch.inference_mode():
            return run.statistics(-1).values

    expected = statistics()
    monkeypatch.setattr(layers, "ALONE_LOOKS", 0)
    monkeypatch.setattr(blocks, "MANY_NUMBERS", 0)
    torch.testing.assert_close(statistics(), expected)


def test_a_network_meets_other_weights_and_the_same_ones_changed():
    network = conv4((1, 16, 16), width=8, depth=2, head="shared", ways=3)
    a, b = (network.init(torch.Generator().manual_seed(seed)) for seed in (1, 2))
    support, rule = channels_last(tasks_of(1, 3, 1, 16)), Rule("001", 3, 0.3, 3)

    def adapted(by, meta):
        return adapt(by, meta, support, torch.arange(3), rule, history=False).prefix

    for meta in (a, b, a):
        assert torch.equal(adapted(network, meta), adapted(replace(network), meta))
    a["conv1.conv.weight"].mul_(0.5)[0] += 1  # as an optimiser does
    assert torch.equal(adapted(network, a), adapted(replace(network), a))
