"""Statistics, fingerprint and the .npy files that grow."""

import numpy as np
import pytest

from trainables._data import DataError
from trainables._data._builder import LEAST_STD, ArrayWriter, Builder


def filled(folder, blocks, names=("a", "b", "c")):
    folder.mkdir()
    builder = Builder(folder, "test", 8, blocks[0].shape[1])
    for split, name, block in zip(("train", "validation", "test"), names, blocks, strict=True):
        builder.add(split, name, 0, block)
    return builder.finish()


def random_blocks(seed=0, channels=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (n, channels, 8, 8), dtype=np.uint8) for n in (5, 2, 3)]


def test_arrays_on_disk_are_what_went_in(tmp_path):
    blocks = random_blocks()
    filled(tmp_path / "a", blocks)
    for split, block in zip(("train", "validation", "test"), blocks, strict=True):
        np.testing.assert_array_equal(np.load(tmp_path / "a" / f"{split}.npy"), block)


@pytest.mark.parametrize("rows", [1, 9, 10, 12345])
def test_a_growing_array_has_a_valid_header(tmp_path, rows):
    writer = ArrayWriter(tmp_path / "a.npy", (1, 2, 2))
    data = np.arange(rows * 4, dtype=np.int64).astype(np.uint8).reshape(rows, 1, 2, 2)
    for block in np.array_split(data, 3):
        writer.append(block)
    writer.close()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), data)


def test_mean_and_std_are_those_of_the_training_pixels(tmp_path):
    blocks = random_blocks()
    meta = filled(tmp_path / "a", blocks)
    scaled = blocks[0] / 255.0
    np.testing.assert_allclose(meta["mean"], scaled.mean(axis=(0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(meta["std"], scaled.std(axis=(0, 2, 3)), atol=1e-9)


def test_a_channel_without_contrast_can_still_be_divided_by(tmp_path):
    blank = [np.full((2, 1, 8, 8), 255, np.uint8)] * 3
    assert filled(tmp_path / "a", blank)["std"] == [LEAST_STD]


def test_the_fingerprint_sees_pixels_names_and_split(tmp_path):
    blocks = random_blocks()
    same = filled(tmp_path / "a", blocks)["fingerprint"]
    assert filled(tmp_path / "b", blocks)["fingerprint"] == same
    changed = [block.copy() for block in blocks]
    changed[2][0, 0, 0, 0] ^= 1
    others = {
        filled(tmp_path / "c", changed)["fingerprint"],
        filled(tmp_path / "d", blocks, names=("a", "b", "x"))["fingerprint"],
        filled(tmp_path / "e", blocks[::-1])["fingerprint"],
    }
    assert len(others) == 3
    assert same not in others


def test_an_empty_split_or_class_is_refused(tmp_path):
    builder = Builder(tmp_path, "test", 8, 1)
    builder.add("train", "a", 0, np.zeros((1, 1, 8, 8), np.uint8))
    with pytest.raises(DataError, match="validation and test got none"):
        builder.finish()
    with pytest.raises(DataError, match="Class b of test has no image"):
        builder.add("test", "b", 0, np.zeros((0, 1, 8, 8), np.uint8))
    builder.close()
