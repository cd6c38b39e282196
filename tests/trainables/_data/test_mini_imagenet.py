"""mini-ImageNet in the layouts it is passed around in."""

import numpy as np
import pytest

from tests.trainables._data.helpers import encode, write_tree, write_zip
from trainables._data import DataError, decode_image, load, prepare

LABELS = {"train": ["n01", "n02"], "val": ["n03"], "test": ["n04"]}
IMAGES = 3


def rows(word, labels=None):
    lines = ["filename,label"]
    for label in labels or LABELS[word]:
        lines += [f"{label}{i:04d}.jpg,{label}" for i in range(IMAGES)]
    return "\n".join(lines).encode()


def layout(kind):
    """The same images and lists, as in the usual copies."""
    files = {}
    for word, labels in LABELS.items():
        files[f"{word}.csv"] = rows(word)
        for seed, label in enumerate(labels):
            for i in range(IMAGES):
                name = f"{label}{i:04d}.jpg"
                folder = {
                    "one folder": "images/",
                    "class folders": f"{label}/",
                    "images and class folders": f"images/{label}/",
                    "split and class folders": f"{word}/{label}/",
                }[kind]
                image = encode(seed=100 * seed + i + len(word), size=(50, 40), kind="JPEG")
                files[folder + name] = image
    return files


@pytest.mark.parametrize(
    "kind",
    ["one folder", "class folders", "images and class folders", "split and class folders"],
)
@pytest.mark.parametrize("packed", [True, False])
def test_every_usual_layout_gives_the_same(tmp_path, cache, kind, packed):
    expected = load("mini-imagenet", root=write_tree(tmp_path / "plain", layout("one folder")))
    files = {f"mini-imagenet/{name}": data for name, data in layout(kind).items()}
    root = tmp_path / "root"
    if packed:
        write_zip(root / "mini-imagenet.zip", files)
    else:
        write_tree(root, files)
    data = load("mini-imagenet", root=root)
    assert data.fingerprint == expected.fingerprint
    assert data.train.names == ("n01", "n02")
    assert data.train.images.shape == (2 * IMAGES, 3, 84, 84)
    assert data.report.skipped == {}
    assert prepare("mini-imagenet", root) == root


def test_class_folders_may_repeat_a_file_name(tmp_path, cache):
    files = {}
    for word, labels in LABELS.items():
        files[f"{word}.csv"] = b"filename,label\n" + b"".join(
            f"{i}.jpg,{label}\n".encode() for label in labels for i in range(IMAGES)
        )
        for label in labels:
            for i in range(IMAGES):
                files[f"{label}/{i}.jpg"] = encode(seed=int(label[1:]) * 10 + i, size=(84, 84))
    data = load("mini-imagenet", root=write_tree(tmp_path / "d", files))
    expected = np.stack([decode_image(files[f"n02/{i}.jpg"], 84, 3) for i in range(IMAGES)])
    np.testing.assert_array_equal(data.train.of(1), expected)


def test_listed_images_that_are_absent_are_counted(tmp_path, cache):
    files = layout("one folder")
    del files["images/n010001.jpg"]
    data = load("mini-imagenet", root=write_tree(tmp_path / "d", files))
    assert data.report.skipped == {"listed in train's csv, but not there": 1}
    assert data.train.counts.tolist() == [2, 3]


def test_a_class_without_any_listed_image_is_refused(tmp_path, cache):
    files = layout("one folder") | {"val.csv": rows("val", ["n03", "n77"])}
    root = write_tree(tmp_path / "d", files)
    with pytest.raises(DataError, match=r"none of the images listed for class n77 \(validation\)"):
        load("mini-imagenet", root=root)


def test_a_list_without_its_header_is_refused(tmp_path, cache):
    files = layout("one folder") | {"test.csv": b"n040000.jpg,n04\n"}
    root = write_tree(tmp_path / "d", files)
    with pytest.raises(DataError, match=r"test\.csv in .* must begin with the line 'filename,lab"):
        load("mini-imagenet", root=root)


def test_a_missing_list_is_named(tmp_path, cache):
    files = layout("one folder")
    del files["val.csv"]
    with pytest.raises(DataError, match=r"val\.csv is not in"):
        load("mini-imagenet", root=write_tree(tmp_path / "d", files))


def test_nothing_there_says_that_there_is_no_download(tmp_path, cache):
    for call in (load, prepare):
        with pytest.raises(DataError, match=r"no official download.*image-net\.org"):
            call("mini-imagenet", root=tmp_path)


def test_another_split_of_the_same_images(tmp_path, cache):
    root = write_tree(tmp_path / "d", layout("one folder"))
    swapped = {"train.csv": rows("test"), "val.csv": rows("val"), "test.csv": rows("train")}
    own = write_tree(tmp_path / "own", swapped)
    data = load("mini-imagenet", root=root, split=own)
    assert (data.train.names, data.test.names) == (("n04",), ("n01", "n02"))
    with pytest.raises(DataError, match="is a folder with train"):
        load("mini-imagenet", root=root, split=own / "train.csv")
