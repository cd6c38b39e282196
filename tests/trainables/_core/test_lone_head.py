"""One task alone, its head all that is updated: against the reference, and beside other threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.trainables._core.test_adapt import HEADS, doubled, tasks_of
from trainables._core import blocks, layers
from trainables._core.adapt import Rule, adapt
from trainables._core.episodes import channels_last
from trainables._core.heads import HEAD_B, HEAD_W
from trainables._core.networks import conv4
from trainables._core.reference import adapt_one


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize("order", ["classes", "mixed"])
@pytest.mark.parametrize("down", ["stride", "pool"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("numbers", ["few", "many"])
@pytest.mark.parametrize("steps", [0, 1, 2, 7, 10, 11, 12, 23])
def test_a_lone_head_equals_the_reference_to_the_last_map(
    steps, numbers, head, down, order, shots, monkeypatch
):
    """One task and its head alone go through calls of their own, and ring for each step."""
    if numbers == "many":  # torch's own convolution, and maxima instead of pooling
        monkeypatch.setattr(layers, "ALONE_LOOKS", 0)
        monkeypatch.setattr(blocks, "MANY_NUMBERS", 0)
    network = conv4((3, 18, 18), width=8, depth=3, head=head, down=down, ways=3)
    meta = doubled(network.init(torch.Generator().manual_seed(1)))
    labels = torch.arange(3).repeat_interleave(shots)
    labels = labels if order == "classes" else labels[torch.tensor([2, 0, 1, 5, 3, 4][: 3 * shots])]
    support, rings = channels_last(tasks_of(1, 3 * shots, 3, 18)).double(), []
    rule, tick = Rule("0001", steps, 0.3, 3), lambda: rings.append(1)
    run = adapt(network, meta, support, labels, rule, history=False, tick=tick)
    expected = adapt_one(network, meta, support[0], labels, rule)
    for name in (HEAD_W, HEAD_B):
        torch.testing.assert_close(run.params(-1)[name][0], expected[name].detach())
    again = adapt(network, meta, support, labels, rule, history=False)  # where the first wrote
    assert torch.equal(again.params(-1)[HEAD_W], run.params(-1)[HEAD_W])
    whole = adapt(network, meta, support, labels, rule)
    torch.testing.assert_close(run.prefix, whole.prefix)
    for ours, theirs in zip(run.prefix_stats.values, whole.prefix_stats.values, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len(rings) == steps + 1


def test_tasks_adapted_by_several_threads_do_not_write_where_others_do():
    network = conv4((1, 16, 16), width=8, depth=2, head="shared", ways=3)
    meta = network.init(torch.Generator().manual_seed(1))
    supports, labels = channels_last(tasks_of(8, 3, 1, 16)), torch.arange(3)

    def adapted(task):
        one, rule = supports[task : task + 1], Rule("001", 25, 0.3, 3)
        return adapt(network, meta, one, labels, rule, history=False).params(-1)[HEAD_W]

    expected = [adapted(task) for task in range(8)]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            for ours, theirs in zip(threads.map(adapted, range(8)), expected, strict=True):
                assert torch.equal(ours, theirs)
