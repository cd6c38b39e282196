"""The embedded alphabet: repeatable, varied, and as hard as it should be."""

import numpy as np
import pytest

from tests.trainables._data.helpers import nearest_centroid
from trainables._data import DataError, glyphs, load


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return load("glyphs", cache=tmp_path_factory.mktemp("cache"))


def test_its_shape(drawn):
    assert drawn.report.classes == {"train": 200, "validation": 60, "test": 100}
    assert (drawn.size, drawn.channels) == (28, 1)
    for split in ("train", "validation", "test"):
        images = drawn.split(split)
        assert set(images.counts.tolist()) == {20}
        assert images.distinct_groups == len(images)


def test_one_seed_gives_one_alphabet():
    first, again, other = (glyphs.draw(seed, "train", 0, 28) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, glyphs.draw(0, "test", 0, 28))
    assert not np.array_equal(first, glyphs.draw(0, "train", 1, 28))


def test_no_two_drawings_and_no_blank_one(drawn):
    flat = np.concatenate(
        [drawn.split(s).images.reshape(-1, 784) for s in ("train", "validation", "test")]
    )
    assert len(flat) == 7200
    assert len(np.unique(flat, axis=0)) == len(flat)
    ink = (flat < 128).mean(axis=1)
    assert ink.min() > 0.01
    assert ink.max() < 0.6


@pytest.mark.parametrize(("size", "channels"), [(20, 1), (48, 1), (84, 3)])
def test_any_size_and_colour(size, channels, monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "ALPHABETS", {"train": 1, "validation": 1, "test": 1})
    data = load("glyphs", size=size, channels=channels, cache=tmp_path)
    assert data.train.images.shape == (200, channels, size, size)
    np.testing.assert_array_equal(data.train.images[:, 0], data.train.images[:, -1])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_raw_pixels_are_a_poor_learner_but_not_a_blind_one(drawn, split):
    accuracy = nearest_centroid(drawn.split(split), shots=1)
    assert 0.35 < accuracy.mean() < 0.50
    assert 0.55 < nearest_centroid(drawn.split(split), shots=5).mean() < 0.75


def test_siblings_look_alike(drawn):
    """The nearest other class of an alphabet is nearer than the nearest of another alphabet."""
    centroids = drawn.test.images.reshape(100, 20, 784).mean(axis=1) / 255.0
    distance = ((centroids[:, None] - centroids[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    alphabet = np.arange(100) // 10
    nearest = alphabet[distance.argmin(axis=1)] == alphabet
    assert nearest.mean() > 0.3  # by chance: 9 / 99


def test_a_split_makes_no_sense_here(tmp_path):
    with pytest.raises(DataError, match="splits by alphabet itself"):
        load("glyphs", split=tmp_path)


def test_the_spline_begins_and_ends_at_its_outer_points_and_sums_to_one():
    basis = glyphs._BASIS
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(basis[0], [1, 0, 0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(basis[-1], [0, 0, 0, 0, 1], atol=1e-9)
    assert basis.min() >= 0
