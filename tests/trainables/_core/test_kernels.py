"""The operations under a layer against torch's own, and their derivatives against differences."""

import pytest
import torch
from torch.nn import functional

from trainables._core import kernels
from trainables._core.adapt import Rule, adapt, cross_entropy
from trainables._core.kernels import (
    Window,
    gather,
    gathered,
    looker,
    patches,
    product,
    scatter,
    scattered,
    spreader,
)
from trainables._core.layers import conv, wide
from trainables._core.networks import conv4
from trainables._core.norms import batch_norm, normed, normed_back


def drawn(*shape, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double).requires_grad_(grad)


WINDOWS = [Window(5, 5, 3, 1), Window(5, 4, 3, 2), Window(6, 6, 3, 2), Window(3, 3, 1, 2)]


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("window", WINDOWS)
def test_patches_are_torchs_unfold(window, channels):
    x = drawn(2, 3, window.height, window.width, channels, grad=False)
    flat = x.flatten(0, 1).permute(0, 3, 1, 2)
    k = window.kernel
    theirs = functional.unfold(flat, k, padding=k // 2, stride=window.stride)  # [B*M, C*k*k, L]
    theirs = theirs.view(2, 3, channels, k * k, -1).permute(0, 1, 4, 3, 2)
    theirs = theirs.reshape(2, -1, k * k * channels)
    assert torch.equal(gather(x, window), theirs)


@pytest.mark.parametrize("few", [0, 2])
@pytest.mark.parametrize("window", WINDOWS)
def test_grey_images_have_the_patches_of_a_channel(window, few, monkeypatch):
    """Picked number by number, or added up row by row."""
    monkeypatch.setattr(kernels, "FEW", few)
    x = drawn(2, 3, window.height, window.width, 1, grad=False)
    twice = gather(x.expand(-1, -1, -1, -1, 2), window)
    assert torch.equal(gather(x, window), twice[..., ::2])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_one_task_may_come_without_the_dimension_of_tasks(channels):
    window = Window(5, 6, 3, 2)
    x = drawn(1, 3, 5, 6, channels, grad=False)
    rows = gathered(x.view(-1, channels), window, 3)
    assert torch.equal(rows, gather(x, window)[0])
    back = scatter(rows[None], window, 3)
    assert torch.equal(scattered(rows, window, 3), back.view(-1, channels))
    weight, (gain, bias) = drawn(9 * channels, 4, grad=False), drawn(2, 4, seed=1, grad=False)
    y, kept = normed(product(rows, weight), gain, bias)
    own, own_kept = normed(product(rows[None], weight), gain, bias)
    assert torch.equal(y, own[0])
    for alone, batched in zip(
        normed_back(y, kept, gain), normed_back(own, own_kept, gain), strict=True
    ):
        assert torch.equal(alone, batched[0])


@pytest.mark.parametrize("window", WINDOWS)
def test_scatter_is_the_adjoint_of_gather(window):
    x = drawn(2, 3, window.height, window.width, 2, grad=False)
    g = torch.randn_like(gather(x, window))
    back = scatter(g, window, 3)
    torch.testing.assert_close((back * x).sum(), (gather(x, window) * g).sum())


def test_images_taken_in_turns_are_images_taken_at_once(monkeypatch):
    window = Window(6, 6, 3, 2)
    x = drawn(2, 7, 6, 6, 4, grad=False)
    g = drawn(2, 7 * 9, 36, seed=1, grad=False)
    at_once = gather(x, window), scatter(g, window, 7)
    pixels, looks = x.view(-1, 4), g.view(-1, 36)
    for most in (14 * window.looks, 4 * window.looks):
        monkeypatch.setattr(kernels, "MOST_INDICES", most)
        assert window.turn == most // window.looks
        assert torch.equal(gather(x, window), at_once[0])
        assert torch.equal(scatter(g, window, 7), at_once[1])
        assert torch.equal(looker(window, 4, 14, x.device)(pixels), gathered(pixels, window, 14))
        assert torch.equal(spreader(window, 14, x.device)(looks), scattered(looks, window, 14))


def test_images_may_lie_in_memory_as_they_come():
    """One image whose channels came first, and whose rows are a view of it."""
    window = Window(6, 5, 3, 2)
    for channels in (2, 4):
        pixels = drawn(channels, 6, 5, grad=False).movedim(0, -1).reshape(-1, channels)
        look = looker(window, channels, 1, pixels.device)
        assert torch.equal(look(pixels), gathered(pixels.contiguous(), window, 1))


def test_patches_are_twice_differentiable():
    window = Window(4, 4, 3, 2)
    squared = lambda x: patches(x, window).square()  # noqa: E731
    x = drawn(2, 1, 4, 4, 2)
    assert torch.autograd.gradcheck(squared, (x,))
    assert torch.autograd.gradgradcheck(squared, (x,))


def test_a_product_per_task_is_twice_differentiable():
    rows, weight = drawn(2, 5, 3), drawn(2, 3, 4, seed=1)
    cubed = lambda a, b: product(a, b) ** 3  # noqa: E731
    assert torch.autograd.gradcheck(cubed, (rows, weight))
    assert torch.autograd.gradgradcheck(cubed, (rows, weight))
    torch.testing.assert_close(product(rows, weight[0])[0], product(rows, weight)[0])


def test_batch_norm_is_twice_differentiable_in_all_it_returns():
    y = drawn(2, 6, 3)
    for tasks in (len(y), 1):
        gain, bias = drawn(tasks, 1, y.shape[-1], seed=1), drawn(tasks, 1, y.shape[-1], seed=2)
        assert torch.autograd.gradcheck(batch_norm, (y, gain, bias))
        assert torch.autograd.gradgradcheck(batch_norm, (y, gain, bias))


@pytest.mark.parametrize("tasks", [1, 3])
def test_normed_and_its_way_back_are_torchs_batch_norm(tasks):
    y, g = drawn(tasks, 7, 4), drawn(tasks, 7, 4, seed=1, grad=False)
    gain, bias = drawn(tasks, 1, 4, seed=2), drawn(tasks, 1, 4, seed=3)
    theirs = torch.stack(
        [
            functional.batch_norm(y[i], None, None, gain[i, 0], bias[i, 0], training=True)
            for i in range(tasks)
        ]
    )
    expected = torch.autograd.grad(theirs, (y, gain, bias), g)
    with torch.no_grad():
        ours, kept = normed(y, gain, bias)
        found = normed_back(g, kept, gain)
    torch.testing.assert_close(ours, theirs.detach())
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1][:, 0])
    torch.testing.assert_close(found[2], expected[2][:, 0])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_wide_convolution_is_the_same_convolution(shared, stride):
    x = drawn(2, 20, 14, 14, 24)
    weight = drawn(*(() if shared else (2,)), 3, 3, 24, 4, seed=1)
    window = Window(14, 14, 3, stride)
    assert wide(window, 20, 24) is (stride == 1)
    one_by_one = torch.cat([conv(x[:, i : i + 1], weight, stride) for i in range(20)], 1)
    torch.testing.assert_close(conv(x, weight, stride), one_by_one)


@pytest.mark.parametrize("pattern", ["0011", "1111", "1010", "0001"])
@pytest.mark.parametrize("kind", ["features", "logits"])
def test_any_inner_loss_takes_the_same_steps_with_and_without_a_graph(pattern, kind):
    network = conv4((1, 12, 12), width=4, depth=3, ways=3)
    start = network.init(torch.Generator().manual_seed(1))
    meta = {n: p.double().requires_grad_() for n, p in start.items()}
    labels = torch.arange(3).repeat(2)
    plain = cross_entropy(labels)

    def loss(z, features):
        if kind == "features":
            return features.square().sum() * 0.01
        return plain(z, features) + 0.1 * z.square().sum()

    runs = [
        adapt(network, meta, drawn(2, 6, 12, 12, 1), labels, Rule(pattern, 3, 0.1, 3),
              train=train, second_order=second, loss=loss)
        for train, second in ((True, True), (True, False), (False, False))
    ]  # fmt: skip
    for name, value in runs[0].steps[3].items():
        for other in runs[1:]:
            torch.testing.assert_close(other.steps[3][name], value)
