"""Peak memory: the same to the byte, by hand for one layer, and smaller where less is updated."""

from dataclasses import replace

import pytest
import torch

from trainables._core import memory
from trainables._core.adapt import Rule, adapt
from trainables._core.cost import MIB
from trainables._core.episodes import Episodes
from trainables._core.evaluate import Setting
from trainables._core.heads import HEAD_B, HEAD_W
from trainables._core.lone_head import TURN
from trainables._core.memory import Ledger, adapt_mib
from trainables._core.networks import conv4, teacher
from trainables._core.patterns import candidates, first_updated

SETTING = Setting(3, 0.1, 3, 0, inductive=True)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def task(network, images=3, ways=3, device="cpu"):
    channels, height, width = network.into
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(1, images, height, width, channels, generator=generator).to(device)
    labels = torch.arange(ways, device=device).repeat_interleave(images // ways)
    none = torch.empty(0, device=device)
    return Episodes(support, labels, none, none, 1, ways)


def measured(network, pattern, setting=SETTING, images=3, device="cpu"):
    meta = network.init(torch.Generator().manual_seed(0))
    meta = {n: p.to(device) for n, p in meta.items()}
    one = task(network, images, setting.ways, device)
    return adapt_mib(network, meta, one, setting, pattern)


NETWORKS = {
    "written out": conv4((1, 16, 16), width=6, depth=3, ways=3),
    "by autograd": conv4((1, 16, 16), width=8, depth=3, norm="group", head="linear", ways=3),
    "pooled": conv4((3, 16, 16), width=6, depth=3, head="shared", down="pool", ways=3),
    "wide": conv4((3, 32, 32), width=24, depth=3, down="pool", ways=3),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_two_measurements_agree_to_the_byte(kind):
    patterns = candidates(4)
    assert len(patterns) == 15
    first = [measured(NETWORKS[kind], p) for p in patterns]
    assert first == [measured(NETWORKS[kind], p) for p in reversed(patterns)][::-1]


@pytest.mark.parametrize("kind", NETWORKS)
def test_less_is_needed_where_adaptation_starts_later(kind):
    """Below the lowest updated layer maps are not kept: the whole prefix needs its worst layer.

    A head that is updated alone needs no more than that but its room, if it has one.
    """
    *body, head = [measured(NETWORKS[kind], p) for p in ("1111", "0111", "0011", "0001")]
    peaks, room = body, 2 * TURN * 3 * 3 * 4 / MIB
    assert peaks == sorted(peaks, reverse=True)
    assert head <= peaks[2] + (room if kind != "by autograd" else 0)
    assert peaks[0] > 1.2 * peaks[2]


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_layer_more_never_needs_less(kind):
    peaks = {p: measured(NETWORKS[kind], p) for p in candidates(4)}
    for p, peak in peaks.items():
        for more in peaks:
            if first_updated(more) == first_updated(p) and int(more, 2) & int(p, 2) == int(p, 2):
                assert peaks[more] >= peak


@pytest.mark.parametrize("pattern", ["11111", "00011", "00001"])
def test_more_filters_and_more_images_need_more(pattern):
    by_width = [
        measured(conv4((1, 28, 28), width=width, ways=3), pattern) for width in (4, 8, 12, 16)
    ]
    assert by_width == sorted(set(by_width))
    network = conv4((1, 28, 28), width=8, ways=3)
    by_images = [measured(network, pattern, images=images) for images in (3, 6, 15)]
    assert by_images == sorted(set(by_images))
    views = replace(SETTING, views=2)
    assert measured(network, pattern, views) >= measured(network, pattern, images=9)


def test_one_layer_by_hand():
    """Two images of 8 x 8 x 4 under one layer of 4 filters, head alone: gathering is the worst.

    128 positions take 36 numbers each; torch's sums keep at most two more for each of the 1152
    looks. The index lists start a sum at every look and name the pixels of those that hit the
    image: 22 along a side. The labels, one-hot, stay too.
    """
    network = conv4((4, 8, 8), width=4, depth=1, head="shared", down="pool", ways=2)
    setting = Setting(1, 0.1, 2, 0, inductive=True)
    looks = 2 * 64 * 9
    patches, lists = 2 * 64 * 36, looks + 2 * 22**2 + 2 * 2
    found = measured(network, "01", setting, images=2) * MIB / 4
    assert patches + 2 * 64 * 4 + lists <= found <= patches + 2 * looks + lists


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("pattern", ["1111", "0110", "0001"])
def test_later_steps_need_no_more_than_the_second(kind, pattern, monkeypatch):
    long = replace(SETTING, steps=2 * TURN + 3)
    two = measured(NETWORKS[kind], pattern, long)
    monkeypatch.setattr(memory, "STEPS", long.steps)
    assert measured(NETWORKS[kind], pattern, long) == two


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("pattern", ["1111", "0110", "0011"])
def test_a_second_step_adds_the_tasks_own_tensors_alone(kind, pattern):
    """The first reads the shared ones; maps and gradients of a step are gone before the next."""
    network = NETWORKS[kind]
    updated = zip(network.body, pattern, strict=False)
    own = sum(layer.parameters() for layer, bit in updated if bit == "1")
    own += (network.head.features + 1) * 3
    one, two = (measured(network, pattern, replace(SETTING, steps=t)) for t in (1, 2))
    assert two - one <= own * 4 / MIB


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("pattern", ["1111", "0011", "0001"])
def test_a_device_keeps_the_last_step_alone_and_nothing_below_its_layers(kind, pattern):
    network, one = NETWORKS[kind], task(NETWORKS[kind])
    meta = network.init(torch.Generator().manual_seed(0))
    rule = Rule(pattern, 4, 0.1, 3)
    whole = adapt(network, meta, one.support, one.support_labels, rule)
    adapt(network, meta, one.support, one.support_labels, rule, history=False)  # once per shape
    with Ledger([*meta.values(), one.support, one.support_labels]) as ledger:
        last = adapt(network, meta, one.support, one.support_labels, rule, history=False)
    assert len(last.steps) == 1
    assert {HEAD_W, HEAD_B} <= set(last.steps[-1]) == set(whole.steps[-1])
    for name, p in last.steps[-1].items():
        torch.testing.assert_close(p, whole.steps[-1][name], rtol=1e-5, atol=1e-6)
    kept = [p for n, p in last.params(-1).items() if n not in meta or p is not meta[n]]
    kept += [s for pair in last.prefix_stats.values for s in pair]
    kept += [t for t in (last.prefix, last.rows) if t is not None and t is not one.support]
    assert ledger.live <= sum(t.nbytes for t in kept)
    del last, kept, p
    assert ledger.live == 0


def test_a_resnet_can_be_measured():
    network = teacher("resnet12", (3, 28, 28), width=4, ways=3)
    assert measured(network, "00001") < measured(network, "00011") < measured(network, "11111")


def test_a_ledger_counts_storages_not_views():
    given, found = torch.ones(3), torch.ones(5)
    with Ledger([given]) as ledger:
        a = torch.cat([given, found])  # 8 numbers
        b = a.view(2, 4).T.mul_(2)
        c = b + 1
        del a
        assert ledger.live == 2 * 8 * 4
        del b
        assert ledger.live == 8 * 4
        del c
    assert (ledger.live, ledger.peak, ledger.found) == (0, 2 * 8 * 4, 5 * 4)


@pytest.mark.gpu
def test_on_a_gpu_the_allocator_says_no_less_than_the_tensors():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    network = conv4((1, 28, 28), width=32, ways=3)
    for pattern in ("11111", "00011", "00001"):
        there = [measured(network, pattern, device="cuda") for _ in range(2)]
        assert there[0] == there[1] >= 0.9 * measured(network, pattern)


def test_what_a_process_holds_grows_with_what_it_keeps(monkeypatch):
    before = memory.held_mib("cpu")
    if before is None:
        pytest.skip("this system does not tell")
    kept = torch.ones(64 * 2**20)  # 256 MiB, written: above what an allocator reuses
    after = memory.held_mib("cpu")
    assert after is not None
    assert 200 < after - before < 300, kept.numel()
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 3 * 2**20)
    assert memory.held_mib("cuda") == 3.0
    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert memory.held_mib("cpu") is None


def missing(*_):
    raise FileNotFoundError
