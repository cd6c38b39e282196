"""CIFAR-FS in its public layout, and what is not CIFAR-FS."""

import shutil

import numpy as np
import pytest

from tests.trainables._data.helpers import class_files, nearest_centroid, write_tree, write_zip
from trainables._data import DataError, load, prepare

LISTS = {"train": ["apple", "bee"], "val": ["cup"], "test": ["dog"]}
PLACE = "cifar-fs/splits/bertinetto/"


def archive(prefix="cifar-fs/", **lists):
    named = LISTS | lists
    files = class_files(["apple", "bee", "cup", "dog"], prefix=f"{prefix}data/", size=(32, 32))
    return files | {
        f"{prefix}splits/bertinetto/{word}.txt": "\n".join(names).encode()
        for word, names in named.items()
    }


@pytest.mark.parametrize("prefix", ["cifar-fs/", "cifar100/", ""])
def test_the_archive_is_read_whatever_its_folder_is_called(tmp_path, cache, prefix):
    write_zip(tmp_path / "cifar-fs.zip", archive(prefix))
    data = load("cifar-fs", root=tmp_path)
    assert (data.train.names, data.validation.names, data.test.names) == (
        ("apple", "bee"),
        ("cup",),
        ("dog",),
    )
    assert (data.size, data.channels) == (32, 3)
    assert data.report.skipped == {}


def test_the_unpacked_folder_gives_the_same(tmp_path, cache):
    write_zip(tmp_path / "zip/cifar-fs.zip", archive())
    write_tree(tmp_path / "tree", archive())
    packed, unpacked = (load("cifar-fs", root=tmp_path / d) for d in ("zip", "tree"))
    assert not unpacked.report.cached
    assert packed.fingerprint == unpacked.fingerprint


def test_a_missing_archive_says_where_it_comes_from_and_goes(tmp_path, cache):
    for call in (load, prepare):
        with pytest.raises(DataError, match=r"drive\.google\.com.* put it at .*cifar-fs\.zip"):
            call("cifar-fs", root=tmp_path)


def test_another_archive_under_its_name_is_refused(tmp_path, cache):
    write_zip(tmp_path / "cifar-fs.zip", class_files(["a"], prefix="images_background/"))
    for call in (load, prepare):
        with pytest.raises(DataError, match=r"is not CIFAR-FS: expected .* found images_backgr"):
            call("cifar-fs", root=tmp_path)


def test_a_missing_list_is_named(tmp_path, cache):
    files = archive()
    del files[PLACE + "test.txt"]
    write_zip(tmp_path / "cifar-fs.zip", files)
    with pytest.raises(DataError, match=r"needs the list .*test\.txt"):
        load("cifar-fs", root=tmp_path)


def test_a_list_naming_an_absent_class_is_refused(tmp_path, cache):
    write_zip(tmp_path / "cifar-fs.zip", archive(val=["cup", "yak"]))
    with pytest.raises(DataError, match=r"names are not in .* \(1: yak\); it holds 4"):
        load("cifar-fs", root=tmp_path)


def test_prepare_accepts_a_good_archive(tmp_path, cache):
    write_zip(tmp_path / "cifar-fs.zip", archive())
    assert prepare("cifar-fs", tmp_path) == tmp_path


def test_a_split_of_ones_own(tmp_path, cache):
    write_zip(tmp_path / "cifar-fs.zip", archive())
    split = tmp_path / "own.csv"
    split.write_text("class,split\ndog,train\ncup,val\nbee,test\n")
    data = load("cifar-fs", root=tmp_path, split=split)
    assert data.train.names == ("dog",)
    assert data.report.split_from == "split given"


@pytest.mark.slow
def test_the_real_archive(real_root, real_cache, tmp_path):
    data = load("cifar-fs", root=real_root, cache=real_cache)
    assert data.report.classes == {"train": 64, "validation": 16, "test": 20}
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert data.report.skipped == {}
    assert data.report.converted == {}
    classes = [set(data.split(s).names) for s in ("train", "validation", "test")]
    assert len(set.union(*classes)) == 100
    floor = nearest_centroid(data.test, shots=1).mean()
    assert floor == pytest.approx(0.304, abs=0.02)
    again = load("cifar-fs", root=real_root, cache=real_cache)
    assert again.report.cached
    np.testing.assert_array_equal(again.test.images[:5], data.test.images[:5])


@pytest.mark.slow
def test_a_truncated_copy_of_the_real_archive_is_refused(real_root, tmp_path, cache):
    copy = tmp_path / "cifar-fs.zip"
    shutil.copyfile(real_root / "cifar-fs.zip", copy)
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size // 2)
    with pytest.raises(DataError, match="not a complete zip archive"):
        load("cifar-fs", root=tmp_path)
