"""Episodes: what is drawn, how often, and that a seed decides all of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainables._core.episodes import Sampler, TaskShape, channels_last, resized


def data_of(counts, groups=None, channels=1, size=4):
    """Images whose every pixel is their own number, so that a draw can be read back."""
    n = sum(counts)
    images = np.arange(n, dtype=np.uint8)[:, None, None, None]
    images = np.ascontiguousarray(np.broadcast_to(images, (n, channels, size, size)))
    groups = np.arange(len(counts)) if groups is None else np.array(groups)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    split = SimpleNamespace(images=images, starts=starts, groups=groups)
    return SimpleNamespace(
        train=split,
        validation=split,
        test=split,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        size=size,
        channels=channels,
    )


def sampler_of(data, ways=3, shots=1, queries=2):
    return Sampler(data.train, data, TaskShape(ways, shots, queries), "cpu")


def numbers(images):
    return (images[:, :, 0, 0] * 255).round().long()


def test_every_image_of_a_task_is_another_and_of_its_class():
    counts = [4, 7, 3, 9, 5]
    data = data_of(counts)
    sampler = sampler_of(data)
    index = sampler.indices(torch.Generator().manual_seed(0), 200)
    assert index.shape == (200, 3, 3)
    classes = torch.searchsorted(torch.from_numpy(data.train.starts), index, right=True) - 1
    assert (classes == classes[..., :1]).all()  # one class a row
    rows = classes[..., 0]
    assert all(len(set(task.tolist())) == 3 for task in rows)
    assert all(len(set(task.flatten().tolist())) == 9 for task in index)
    assert set(rows.flatten().tolist()) == set(range(5))


def test_draws_are_even_over_images():
    sampler = sampler_of(data_of([5, 10, 15]), ways=3, shots=1, queries=1)
    index = sampler.indices(torch.Generator().manual_seed(1), 6000)
    for start, count in ((0, 5), (5, 10), (15, 15)):
        seen = torch.bincount(index.flatten(), minlength=30)[start : start + count].double()
        expected = 6000 * 2 / count
        chi2 = float(((seen - expected) ** 2 / expected).sum())
        assert chi2 < 2 * count + 12


def test_classes_of_one_group_never_meet():
    sampler = sampler_of(data_of([3] * 8, groups=[0, 0, 1, 1, 2, 2, 3, 3]), ways=4)
    index = sampler.indices(torch.Generator().manual_seed(0), 300)
    groups = index[..., 0] // 6
    assert all(sorted(task.tolist()) == [0, 1, 2, 3] for task in groups)
    assert len(set((index[..., 0] // 3).flatten().tolist())) == 8


def test_layout_and_labels():
    sampler = sampler_of(data_of([5] * 6, channels=3), ways=3, shots=2, queries=1)
    generator = torch.Generator().manual_seed(0)
    index = sampler.indices(torch.Generator().manual_seed(0), 4)
    episodes = sampler.draw(generator, 4)
    assert episodes.support.shape == (4, 6, 4, 4, 3)
    assert episodes.query.shape == (4, 3, 4, 4, 3)
    assert episodes.support_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert episodes.query_labels.tolist() == [0, 1, 2]
    got = numbers(episodes.support.movedim(-1, 2))[:, :, 0]  # [B, M]: one channel
    assert torch.equal(got, index[:, :, :2].reshape(4, 6))


def test_a_seed_decides_everything_and_chunks_nothing():
    sampler = sampler_of(data_of([6] * 9))
    whole = next(iter(sampler.fixed(5, 10, 10)))
    parts = list(sampler.fixed(5, 10, 3))
    assert [p.tasks for p in parts] == [3, 3, 3, 1]
    assert torch.equal(torch.cat([p.query for p in parts]), whole.query)
    other = next(iter(sampler.fixed(6, 10, 10)))
    assert not torch.equal(other.query, whole.query)


def test_images_are_standardised():
    data = data_of([3, 3])
    data.mean, data.std = (0.5,), (0.25,)
    sampler = sampler_of(data, ways=2, shots=1, queries=1)
    image = sampler.gather(torch.tensor([5]))[0]
    assert image.flatten()[0].item() == pytest.approx((5 / 255 - 0.5) / 0.25)


def test_channels_go_last():
    x = torch.arange(2 * 3 * 2).reshape(2, 3, 2, 1, 1)
    last = channels_last(x)
    assert last.shape == (2, 3, 1, 1, 2)
    assert last.is_contiguous()
    assert last[1, 2].flatten().tolist() == x[1, 2].flatten().tolist()


def test_resizing_is_antialiased_and_leaves_the_right_size_alone():
    x = torch.zeros(1, 1, 8, 8, 1)
    x[:, :, :, ::2] = 1.0
    assert resized(x, 8) is x
    assert resized(x.expand(2, 3, 8, 8, 2), 4).shape == (2, 3, 4, 4, 2)
    torch.testing.assert_close(resized(x, 4).mean(), torch.tensor(0.5), atol=0.02, rtol=0)
    assert float(resized(x, 4).std()) < 0.2
