"""Units of work by hand, and against the operations that torch is seen to do."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from trainables._core import backprop, blocks, cost, kernels, layers
from trainables._core.episodes import Episodes
from trainables._core.evaluate import Setting, on_a_device
from trainables._core.networks import conv4, teacher
from trainables._core.patterns import candidates
from trainables._core.work import UNITS, Work, work_of

TASK: dict[str, Any] = {"steps": 3, "ways": 5, "images": 5}


def small():
    return conv4((1, 28, 28), width=8)


def test_the_last_layer_and_the_head_by_hand():
    """Three layers once; the fourth four times forward, the last for its statistics, three back."""
    macs = cost.adapt_macs(small(), "00011", **TASK)
    positions = [14 * 14, 7 * 7, 4 * 4, 2 * 2]
    numbers = 5 * 8 * (sum(positions[:3]) + positions[3] * 7)
    assert work_of(small(), "00011", **TASK) == Work(
        starts=1,
        passes=3 + 7,
        steps=3,
        macs=macs,
        numbers=numbers,
        looks=5 * 9 * sum(positions),  # the fourth layer's input never changes: gathered once
        recorded=0,
    )


def test_a_layer_above_is_gathered_and_scattered_in_every_step():
    head, lower, upper = (work_of(small(), p, **TASK) for p in ("00001", "00010", "00100"))
    assert head.passes == 4
    assert lower.looks == head.looks
    assert upper.looks - lower.looks == 5 * 9 * 2 * 2 * (3 + 1 + 3 - 1)


def test_what_autograd_records_is_counted_where_it_records():
    written = work_of(small(), "00111", **TASK)
    grouped = work_of(conv4((1, 28, 28), width=8, norm="group"), "00111", **TASK)
    assert written.recorded == 0
    assert grouped.recorded == 3 * 5 * 8 * (4 * 4 + 2 * 2)
    assert work_of(teacher("resnet12", (3, 28, 28), width=4), "00011", **TASK).recorded > 0


@pytest.mark.parametrize("unit", UNITS)
def test_more_steps_and_more_layers_are_never_less_work(unit):
    networks = (small(), conv4((3, 32, 32), width=32, down="pool", head="shared"))
    for network in networks:
        by_steps = [work_of(network, "01011", steps=t, ways=5, images=25) for t in range(1, 6)]
        amounts = [getattr(w, unit) for w in by_steps]
        assert amounts == sorted(amounts)
        suffixes = [work_of(network, p, **TASK) for p in ("00011", "00111", "01111", "11111")]
        amounts = [getattr(w, unit) for w in suffixes]
        assert amounts == sorted(amounts)


class Norms(TorchDispatchMode):
    """Counts batch norms, forward and back, and the numbers they go over."""

    def __init__(self):
        super().__init__()
        self.passes = self.numbers = 0

    @override
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "native_batch_norm" in str(func):
            self.passes += 1
            self.numbers += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("head", ["prototype", "shared"])
@pytest.mark.parametrize("inductive", [True, False])
def test_passes_are_the_passes_done(head, inductive):
    network = conv4((1, 16, 16), width=4, depth=3, head=head)
    meta = network.init(torch.Generator().manual_seed(0))
    support = torch.randn(1, 5, 16, 16, 1, generator=torch.Generator().manual_seed(0))
    task = Episodes(support, torch.arange(5), support[:, :0], torch.arange(0), 1, 5)
    patterns = candidates(4)
    assert len(patterns) == 15
    for pattern in patterns:
        for steps in (0, 1, 3):
            with Norms() as seen:
                on_a_device(network, meta, task, Setting(steps, 0.1, 5, 0, inductive), pattern)
            counted = work_of(network, pattern, steps=steps, ways=5, images=5, inductive=inductive)
            assert (counted.passes, counted.numbers) == (seen.passes, seen.numbers), pattern


WALKED = {
    "conv4": conv4((3, 16, 16), width=4, depth=3),
    "grey": conv4((1, 16, 16), width=4, depth=3, down="pool", head="shared"),
    "group": conv4((1, 16, 16), width=4, depth=3, norm="group"),
    "resnet12": teacher("resnet12", (1, 16, 16), width=2),
    "resnet18": teacher("resnet18", (3, 16, 16), width=2),
    "resnet50": teacher("resnet50", (1, 16, 16), width=2),
}


@pytest.mark.parametrize("kind", WALKED)
@pytest.mark.parametrize("most", [layers.ONCE_PATCHES, 100])
def test_looks_are_the_looks_taken(kind, most, monkeypatch):
    """Also where torch convolves, in steps that autograd records or of a task that is alone."""
    monkeypatch.setattr(layers, "ONCE_ROWS", min(most, layers.ONCE_ROWS))
    monkeypatch.setattr(layers, "ONCE_PATCHES", most)
    monkeypatch.setattr(layers, "ALONE_LOOKS", most)
    network = replace(WALKED[kind])  # as if it had never run
    seen = []
    add_up, pick = kernels._in_turns, kernels._number_by_number

    def adding_up(rows, window, images, lists):
        seen.append(images * window.looks)
        return add_up(rows, window, images, lists)

    def picking(x, window):
        seen.append(len(x) // (window.height * window.width) * window.looks)
        return pick(x, window)

    def seeing(made):
        """Of what makes a gather or a scatter for one shape: one that tells its looks."""

        def make(window, *shape):
            once, images = made(window, *shape), shape[-2]

            def run(rows):
                seen.append(images * window.looks)
                return once(rows)

            return run

        return make

    monkeypatch.setattr(blocks, "looker", seeing(kernels.looker))
    monkeypatch.setattr(backprop, "spreader", seeing(kernels.spreader))
    monkeypatch.setattr(kernels, "_in_turns", adding_up)
    monkeypatch.setattr(kernels, "_number_by_number", picking)
    meta = network.init(torch.Generator().manual_seed(0))
    channels, size, _ = network.into
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(1, 5, size, size, channels, generator=generator)
    task = Episodes(support, torch.arange(5), support[:, :0], torch.arange(0), 1, 5)
    for pattern in candidates(len(network.layers), "suffixes"):
        for steps in (1, 3):
            seen.clear()
            on_a_device(network, meta, task, Setting(steps, 0.01, 5, 0, inductive=True), pattern)
            counted = work_of(network, pattern, steps=steps, ways=5, images=5)
            assert counted.looks == sum(seen), (pattern, steps)
