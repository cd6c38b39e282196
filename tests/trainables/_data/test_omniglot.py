"""Omniglot in the author's layout, small and real."""

import re

import numpy as np
import pytest

from tests.trainables._data.helpers import class_files, nearest_centroid, write_tree, write_zip
from trainables._data import DataError, check_shape, load, omniglot, prepare

BACKGROUND = [f"Greek/character{i:02d}" for i in range(1, 5)]
EVALUATION = [f"Tengwar/character{i:02d}" for i in range(1, 3)]
LISTS = {"train": [*BACKGROUND[:3], EVALUATION[0]], "val": BACKGROUND[3:], "test": EVALUATION[1:]}


def place(root, lists=LISTS):
    """A small Omniglot."""
    drawing = {"images": 3, "size": (105, 105), "mode": "1"}
    background = class_files(BACKGROUND, prefix="images_background/", **drawing)
    write_zip(root / "images_background.zip", background)
    evaluation = class_files(EVALUATION, prefix="images_evaluation/", **drawing)
    write_zip(root / "images_evaluation.zip", evaluation)
    write_tree(
        root / "splits/omniglot-vinyals",
        {f"{word}.txt": "\n".join(names).encode() for word, names in lists.items()},
    )
    return root


def test_rotations_are_classes_of_one_group_in_all_splits(tmp_path, cache):
    data = load("omniglot", root=place(tmp_path))
    assert data.validation.names == tuple(
        f"Greek/character04{turn}" for turn in ("", "@90", "@180", "@270")
    )
    for split, characters in (("train", 4), ("validation", 1), ("test", 1)):
        images = data.split(split)
        assert images.groups.tolist() == np.repeat(np.arange(characters), 4).tolist()
        assert images.images.shape == (characters * 4 * 3, 1, 28, 28)
        for c in range(0, len(images), 4):
            upright = images.of(c)
            for quarter in (1, 2, 3):
                turned = np.rot90(upright, quarter, axes=(2, 3))
                np.testing.assert_array_equal(images.of(c + quarter), turned)
                assert not np.array_equal(turned, upright)
    assert data.report.decoded == 18
    assert data.report.split_from == "Vinyals split"


def test_lists_that_name_rotations_mean_the_same(tmp_path, cache):
    turns = ("000", "090", "180", "270")
    rotated = {w: [f"{n}/rot{t}" for n in names for t in turns] for w, names in LISTS.items()}
    plain = load("omniglot", root=place(tmp_path / "a"))
    other = load("omniglot", root=place(tmp_path / "b", rotated))
    assert plain.fingerprint == other.fingerprint


def test_unpacked_folders_are_read_too(tmp_path, cache):
    import zipfile

    packed = place(tmp_path / "a")
    unpacked = tmp_path / "b/omniglot"
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(packed / f"{name}.zip") as archive:
            archive.extractall(unpacked)
    (packed / "splits").rename(tmp_path / "b/splits")
    other = load("omniglot", root=tmp_path / "b")
    (tmp_path / "b/splits").rename(packed / "splits")
    assert load("omniglot", root=packed).fingerprint == other.fingerprint


@pytest.mark.parametrize("name", ["images_background", "images_evaluation"])
def test_a_missing_archive_says_what_to_put_where(tmp_path, cache, name):
    root = place(tmp_path)
    (root / f"{name}.zip").unlink()
    with pytest.raises(DataError, match=rf"needs {name}\.zip .* in {re.escape(str(root))}"):
        load("omniglot", root=root)


def test_a_missing_split_says_what_to_put_where(tmp_path, cache):
    root = place(tmp_path)
    for file in (root / "splits/omniglot-vinyals").iterdir():
        file.unlink()
    (root / "splits/omniglot-vinyals").rmdir()
    with pytest.raises(DataError, match=r"needs the Vinyals split: .*splits/omniglot-vinyals"):
        load("omniglot", root=root)


def test_another_archive_under_its_name_is_refused(tmp_path, cache):
    root = place(tmp_path)
    write_zip(root / "images_evaluation.zip", class_files(["apple"], prefix="cifar-fs/data/"))
    with pytest.raises(DataError, match=r"is not Omniglot's images_evaluation: .*cifar-fs/data"):
        load("omniglot", root=root)


def test_a_split_naming_absent_characters_is_refused(tmp_path, cache):
    root = place(tmp_path, LISTS | {"val": ["Greek/character04", "Klingon/character01"]})
    with pytest.raises(DataError, match=r"names are not in .* \(1: Klingon"):
        load("omniglot", root=root)


def test_prepare_refuses_an_incomplete_archive(tmp_path, cache):
    with pytest.raises(DataError, match="should hold 19280 drawings and holds 12"):
        prepare("omniglot", place(tmp_path))


@pytest.mark.slow
def test_the_real_archives(real_root, real_cache):
    data = load("omniglot", root=real_root, cache=real_cache)
    assert sum(omniglot.ARCHIVES.values()) == 964 + 659
    characters = {s: data.split(s).distinct_groups for s in ("train", "validation", "test")}
    assert characters == {"train": 1028, "validation": 172, "test": 423}
    assert data.report.classes == {s: 4 * n for s, n in characters.items()}
    assert data.report.decoded == (964 + 659) * 20
    assert data.report.skipped == {}
    assert set(data.test.counts.tolist()) == {20}
    check_shape(data, 20, 5, 15)
    again = load("omniglot", root=real_root, cache=real_cache)
    assert again.report.cached
    assert again.fingerprint == data.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize(("shots", "floor"), [(1, 0.407), (5, 0.681)])
def test_the_known_floor_of_the_test_characters(real_root, real_cache, shots, floor):
    data = load("omniglot", root=real_root, cache=real_cache)
    assert nearest_centroid(data.test, shots).mean() == pytest.approx(floor, abs=0.04)


@pytest.mark.slow
def test_the_real_archives_are_complete(real_root):
    assert prepare("omniglot", real_root) == real_root
