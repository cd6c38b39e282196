"""A student's two functions, before they are exported: they say what the engine says."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from search.exported import difference, example, rounded
from tests import bundles
from trainables._core.kernels import Window, gather, looks_at, scatter, seen_by
from trainables._core.programs import Adaptation, Prediction, outputs_of, quantised

COLOUR: dict[str, Any] = {"channels": 3, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
STAGES = ("stage1", "stage2", "stage3", "stage4", "head")
CORNERS: dict[str, dict[str, Any]] = {
    "head alone": {"pattern": "001"},
    "every layer": {"pattern": "111", "inner_steps": 3},
    "shared head": {"pattern": "111", "head": "shared"},
    "linear head": {"pattern": "101", "head": "linear"},
    "body alone": {"pattern": "110"},
    "first alone": {"pattern": "100", "head": "shared"},
    "group norm": {"pattern": "111", "norm": "group", "width": 12},
    "pooling": {"pattern": "111", "down": "pool"},
    "pooling, odd sides, group": {"pattern": "111", "down": "pool", "size": 15, "input_size": 15,
                                  "norm": "group"},
    "colour": {"pattern": "111", **COLOUR},
    "resized": {"pattern": "011", "size": 20, "input_size": 16},
    "views": {"pattern": "011", "views": 3, **COLOUR},
    "transductive": {"pattern": "111", "normalisation": "transductive"},
    "transductive, group": {"pattern": "011", "normalisation": "transductive", "norm": "group"},
    "one block": {"pattern": "11", "depth": 1, "layers": ("conv1", "head")},
    "deep": {"pattern": "01011", "depth": 4, "layers": ("conv1", "conv2", "conv3", "conv4", "head"),
             "size": 28, "input_size": 28},
    "few features": {"pattern": "0001", "depth": 3, "size": 8, "input_size": 8,
                     "layers": ("conv1", "conv2", "conv3", "head")},
    "no steps": {"pattern": "011", "inner_steps": 0},
    "no steps, head": {"pattern": "001", "inner_steps": 0},
    "resnet12": {"kind": "resnet12", "pattern": "00111", "layers": STAGES, "width": 2},
    "resnet18, group": {"kind": "resnet18", "pattern": "000101", "layers": ("stem", *STAGES),
                        "width": 4, "norm": "group"},
    "resnet50, group": {"kind": "resnet50", "pattern": "000111", "layers": ("stem", *STAGES),
                        "width": 4, "norm": "group", "inner_steps": 1},
}  # fmt: skip


HEAVY = ("resnet18, group", "resnet50, group")


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "corner", [pytest.param(c, marks=pytest.mark.slow) if c in HEAVY else c for c in CORNERS]
)
def test_they_say_what_the_engine_says(corner, plain):
    one = bundles.student(**CORNERS[corner])
    ways = one.spec.ways
    task = example(one, ways, 2)
    found = Adaptation(one, 2 * ways, plain=plain)(task.support, task.labels)
    assert len(found) == len(outputs_of(one.spec)) == len(task.adapted)
    assert difference(found, task.adapted) < 2e-5
    said = Prediction(one)(task.query, *found)
    assert difference([said], [task.probabilities]) < 2e-5


def test_a_program_counts_a_scale_without_its_sign():
    one = bundles.student(**CORNERS["head alone"])
    turned = replace(one, params=one.params | {"head.scale": -one.params["head.scale"]})
    task = example(one, one.spec.ways, 2)
    found = [Adaptation(s, len(task.support))(task.support, task.labels) for s in (one, turned)]
    assert difference(*found) == 0


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
def test_a_deep_student_with_batch_statistics_says_it_in_double_precision(plain):
    """With random weights such a student moves by 1e-2 where they move by 1e-7 of themselves.

    So float32 says nothing of a program here, and the same functions are held in float64.
    """
    exact: dict[str, Any] = {"mean": (0.75,), "std": (0.25,)}  # the same number in either
    one = bundles.student(**{**CORNERS["resnet50, group"], "norm": "batch", "width": 2}, **exact)
    one = replace(one, params={name: value.double() for name, value in one.params.items()})
    task = example(one, 5, 2)
    labels = task.labels.double()
    found = Adaptation(one, 10, plain=plain).double()(task.support, labels)
    assert {value.dtype for value in found} == {torch.float64}
    assert difference(found, task.adapted) < 1e-8
    said = Prediction(one).double()(task.query, *found)
    assert difference([said], [task.probabilities]) < 1e-8


def test_a_program_reads_images_to_the_last_bit_as_the_engine_does():
    """A number that rounds otherwise may fall on the other side of a ReLU, and change gradients."""
    one = bundles.student(**COLOUR)
    images = torch.arange(256).repeat(9, 1).view(3, 3, 16, 16).to(torch.uint8)
    read = Adaptation(one, 5).read(images).permute(0, 2, 3, 1)
    assert torch.equal(read, one.normalised(images)[0])


def test_an_adaptation_that_does_something_is_compared():
    one = bundles.student(pattern="111", inner_steps=3)
    still = bundles.student(pattern="111", inner_steps=0)
    task = example(one, 5, 2)
    assert difference(example(still, 5, 2).adapted, task.adapted) > 1e-2


@pytest.mark.parametrize("pattern", ["001", "111"])
def test_many_images_go_the_other_way_round(pattern):
    """Beyond some images features are multiplied instead of their Gram matrix."""
    one = bundles.student(pattern=pattern, width=2, size=8, input_size=8)
    task = example(one, 3, 5)
    for images in (2, 10**6):
        found = Adaptation(one, images)(task.support, task.labels)
        assert difference(found, task.adapted) < 2e-5


def test_a_prefix_of_large_maps_goes_through_torch():
    one = bundles.student(pattern="011", size=64, input_size=64, **COLOUR)
    task = example(one, 2, 10)
    found = Adaptation(one, 400)(task.support, task.labels)
    assert difference(found, task.adapted) < 2e-5


@pytest.mark.parametrize("corner", ["every layer", "linear head", "resnet12"])
def test_rounded_weights_are_those_of_the_rounded_student(corner):
    one = bundles.student(**CORNERS[corner])
    task = example(rounded(one), 5, 1)
    adaptation = Adaptation(one, 5, int8=True)
    found = adaptation(task.support, task.labels)
    assert difference(found, task.adapted) < 2e-5
    said = Prediction(one, int8=True)(task.query, *found)
    assert difference([said], [task.probabilities]) < 2e-5
    assert any(b.dtype == torch.int8 for b in adaptation.buffers())
    assert difference(example(one, 5, 1).adapted, task.adapted) > 1e-4  # rounding is seen at all


def test_rounding_keeps_each_channel_within_half_a_step():
    value = torch.randn(3, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    value[..., 1] *= 1e-3
    small, scale = quantised(value)
    assert small.dtype == torch.int8
    assert scale.shape == (1, 1, 1, 4)
    assert ((small.float() * scale - value).abs() <= scale / 2 + 1e-9).all()
    assert quantised(torch.zeros(2, 3))[0].abs().max() == 0


@pytest.mark.parametrize("window", [Window(5, 6, 3, 1), Window(6, 5, 3, 2), Window(5, 5, 1, 2)])
def test_lists_of_one_image_gather_and_scatter_as_the_engine_does(window):
    x = torch.randn(1, 2, window.height, window.width, 3)
    framed = torch.nn.functional.pad(x.view(2, -1, 3), (0, 0, 1, 0))
    rows = framed[:, looks_at(window)].reshape(1, -1, 3 * window.kernel**2)
    assert torch.equal(rows, gather(x, window))
    looks = torch.nn.functional.pad(rows.view(2, -1, 3), (0, 0, 1, 0))
    back = looks[:, seen_by(window)].view(2, window.height * window.width, -1, 3).sum(2)
    assert torch.allclose(back.view(x.shape), scatter(rows, window, 2))
