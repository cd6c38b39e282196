"""A user's own images, in every shape they come in."""

import json

import numpy as np
import pytest

from tests.trainables._data.helpers import class_files, encode, write_tree, write_zip
from trainables._data import DataError, load, missing, read_class_folders
from trainables._data._archive import OUTSIDE_LINK, UNSAFE_ENTRY
from trainables._data._classes import HEIC, HIDDEN, NOT_AN_IMAGE
from trainables._data._decode import CORRUPT
from trainables._data.folder import draw_split

CLASSES = [f"class{i:02d}" for i in range(9)]
SPLIT = {"train": CLASSES[:5], "val": CLASSES[5:7], "test": CLASSES[7:]}


@pytest.fixture
def split(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(SPLIT))
    return path


def load_tree(root, **kwargs):
    return load("folder", root=root, size=16, **kwargs)


def names(data):
    return [name for s in ("train", "validation", "test") for name in data.split(s).names]


def test_a_given_split_decides(tmp_path, cache, split):
    root = write_tree(tmp_path / "tree", class_files(CLASSES))
    data = load_tree(root, split=split)
    assert data.train.names == tuple(SPLIT["train"])
    assert data.validation.names == tuple(SPLIT["val"])
    assert data.test.names == tuple(SPLIT["test"])
    assert data.train.images.shape == (20, 3, 16, 16)
    assert data.train.starts.tolist() == [0, 4, 8, 12, 16, 20]
    assert data.report.split_from == "split given"


@pytest.mark.parametrize("files", [{"a.zip": b"x"}, class_files(CLASSES[:2])])
def test_what_cannot_be_loaded_is_not_said_to_be_ready(tmp_path, cache, files):
    root = write_tree(tmp_path / "tree", files)
    with pytest.raises(DataError) as refused:
        load_tree(root)
    assert missing("folder", root=root) == str(refused.value)
    assert missing("folder", root=write_tree(tmp_path / "whole", class_files(CLASSES))) is None


def test_classes_are_where_their_pixels_are(tmp_path, cache, split):
    files = {
        f"{name}/{i}.png": encode(seed=10 * c + i, size=(16, 16))
        for c, name in enumerate(CLASSES)
        for i in range(3)
    }
    data = load_tree(write_tree(tmp_path / "tree", files), split=split)
    from trainables._data import decode_image

    for part in ("train", "validation", "test"):
        images = data.split(part)
        for c, name in enumerate(images.names):
            want = np.stack([decode_image(files[f"{name}/{i}.png"], 16, 3) for i in range(3)])
            np.testing.assert_array_equal(images.of(c), want)


def test_a_drawn_split_holds_every_class_once_and_repeats(tmp_path, cache):
    root = write_tree(tmp_path / "tree", class_files(CLASSES))
    first, again, other = (load_tree(root, seed=seed) for seed in (0, 0, 1))
    assert sorted(names(first)) == CLASSES
    assert names(first) == names(again)
    assert names(first) != names(other)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(3, (1, 1, 1)), (12, (4, 4, 4)), (15, (5, 5, 5)), (20, (10, 5, 5)), (100, (64, 16, 20))],
)
def test_shares_of_a_drawn_split(n, sizes):
    split = draw_split([f"c{i:03d}" for i in range(n)], seed=0)
    assert tuple(len(split[part]) for part in ("train", "validation", "test")) == sizes


def test_two_classes_cannot_be_split(tmp_path, cache):
    root = write_tree(tmp_path / "tree", class_files(CLASSES[:2]))
    with pytest.raises(DataError, match=r"at least 3 classes, .* there are 2"):
        load_tree(root)


@pytest.mark.parametrize("second", ["val", "validation", "valid"])
def test_folders_named_after_the_splits_are_the_split(tmp_path, cache, second):
    files = class_files(["cat", "dog"], prefix="train/")
    files |= class_files(["emu"], prefix=f"{second}/")
    files |= class_files(["fox"], prefix="test/")
    data = load_tree(write_tree(tmp_path / "tree", files))
    assert (data.train.names, data.validation.names, data.test.names) == (
        ("cat", "dog"),
        ("emu",),
        ("fox",),
    )
    assert data.report.split_from == "split by its folders"


def test_folders_of_splits_by_image_are_refused(tmp_path, cache):
    files: dict[str, bytes] = {}
    for word in ("train", "val", "test"):
        files |= class_files(["cat", "dog"], prefix=f"{word}/")
    root = write_tree(tmp_path / "tree", files)
    with pytest.raises(DataError, match="puts class cat into train and into validation"):
        load_tree(root)


def test_folders_of_splits_must_be_complete(tmp_path, cache):
    files = class_files(["cat"], prefix="train/") | class_files(["dog"], prefix="test/")
    with pytest.raises(DataError, match="it also needs val"):
        load_tree(write_tree(tmp_path / "tree", files))


@pytest.mark.parametrize("prefix", ["photos/", "photos/2024/"])
def test_wrapping_folders_are_no_classes(tmp_path, cache, prefix):
    root = write_tree(tmp_path / "tree", class_files(CLASSES, prefix=prefix))
    assert sorted(names(load_tree(root))) == CLASSES


def test_a_zip_is_read_in_place(tmp_path, cache):
    path = write_zip(tmp_path / "photos.zip", class_files(CLASSES, prefix="photos/"))
    assert sorted(names(load_tree(path))) == CLASSES


def test_folders_inside_a_class_belong_to_it(tmp_path, cache):
    files = class_files(CLASSES[1:]) | {
        f"{CLASSES[0]}/1.png": encode(1),
        f"{CLASSES[0]}/indoors/2.png": encode(2),
        f"{CLASSES[0]}/indoors/night/3.png": encode(3),
    }
    found = dict(read_class_folders(write_tree(tmp_path / "tree", files)))
    assert sorted(found) == CLASSES
    assert [p.name for p in found[CLASSES[0]]] == ["1.png", "2.png", "3.png"]


def test_nested_classes_are_named_by_their_path(tmp_path, cache):
    files = class_files(["a", "b"], prefix="Greek/") | class_files(["a"], prefix="Latin/")
    found = read_class_folders(write_tree(tmp_path / "tree", files))
    assert [name for name, _ in found] == ["Greek/a", "Greek/b", "Latin/a"]


def test_what_is_no_image_is_left_out_counted_and_named(tmp_path, cache, split):
    outside = write_tree(tmp_path / "outside", {"x.png": encode()})
    root = write_tree(
        tmp_path / "tree",
        class_files(CLASSES)
        | {
            "class00/notes.txt": b"text",
            "class00/IMG_1.HEIC": b"heic",
            "class01/.DS_Store": b"mac",
            "class01/broken.png": b"no image",
            "class02/half.jpg": encode(kind="JPEG", size=(64, 64))[:400],
            "README.md": b"text",
            "loose.png": encode(),
            "__MACOSX/class00/._00.png": b"mac",
        },
    )
    (root / "class03/out.png").symlink_to(outside / "x.png")
    report = load_tree(root, split=split).report
    assert report.skipped == {
        NOT_AN_IMAGE: 2,
        HEIC: 1,
        HIDDEN: 2,
        CORRUPT: 2,
        OUTSIDE_LINK: 1,
        "image outside a class folder": 1,
    }
    assert report.examples[CORRUPT] == ("class01/broken.png", "class02/half.jpg")
    assert report.images == {"train": 20, "validation": 8, "test": 8}
    assert f"skipped 1: {OUTSIDE_LINK} (such as class03/out.png)" in report.lines()
    assert load_tree(root, split=split).report.skipped == report.skipped  # also from the cache


def test_zip_entries_pointing_outside_are_counted(tmp_path, cache):
    files = class_files(CLASSES) | {"../class00/evil.png": encode()}
    report = load_tree(write_zip(tmp_path / "a.zip", files)).report
    assert report.skipped == {UNSAFE_ENTRY: 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, ""),
        ({"notes.txt": b"text"}, r"\(not an image: 1\)"),
        ({"a.png": b"no image", "b.png": b"nor this"}, r"\(corrupt image: 2\)"),
    ],
)
def test_an_empty_class_is_refused_by_name(tmp_path, cache, content, why):
    root = write_tree(tmp_path / "tree", class_files(CLASSES))
    (root / "class99").mkdir()
    write_tree(root / "class99", content)
    with pytest.raises(DataError, match=rf"^Class class99 in .* has no readable image ?{why}"):
        load_tree(root)


def test_a_class_of_phone_photos_says_what_to_do(tmp_path, cache):
    root = write_tree(tmp_path / "tree", class_files(CLASSES) | {"class99/IMG.HEIC": b"heic"})
    with pytest.raises(DataError, match="convert it to JPEG"):
        load_tree(root)


def test_an_empty_folder_outside_the_given_split_does_not_matter(tmp_path, cache, split):
    root = write_tree(tmp_path / "tree", class_files(CLASSES))
    (root / "annotations").mkdir()
    assert sorted(names(load_tree(root, split=split))) == CLASSES


def test_a_split_naming_absent_classes_says_which(tmp_path, cache, split):
    root = write_tree(tmp_path / "tree", class_files(CLASSES[:-2]))
    with pytest.raises(DataError, match=r"names are not in .* \(2: class07, class08\); it holds 7"):
        load_tree(root, split=split)


def test_mixed_sizes_are_made_one_and_counted(tmp_path, cache, split):
    files = class_files(CLASSES) | {"class00/wide.png": encode(size=(40, 20))}
    data = load_tree(write_tree(tmp_path / "tree", files), split=split)
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert data.report.original_sizes == {"20x20": 36, "40x20": 1}
    assert any(line.startswith("mixed sizes: 2") for line in data.report.lines())


@pytest.mark.parametrize(
    ("most", "few", "channels", "reason"),
    [("RGB", "L", 3, "grey to colour"), ("L", "RGB", 1, "colour to grey")],
)
def test_the_majority_decides_between_grey_and_colour(
    tmp_path, cache, split, most, few, channels, reason
):
    files = class_files(CLASSES, mode=most) | {"class00/other.png": encode(mode=few)}
    root = write_tree(tmp_path / "tree", files)
    data = load_tree(root, split=split)
    assert data.channels == channels
    assert data.report.converted == {reason: 1}
    assert data.report.examples[reason] == ("class00/other.png",)
    other = load_tree(root, split=split, channels=4 - channels)
    assert other.channels == 4 - channels
    assert sum(other.report.converted.values()) == 36


def test_a_tree_without_classes_says_what_was_found(tmp_path, cache):
    root = write_tree(tmp_path / "tree", {"1.png": encode(), "2.png": encode()})
    with pytest.raises(DataError, match=r"expected one folder of images for each class, .*1\.png"):
        load_tree(root)
    with pytest.raises(DataError, match="expected one with a folder for each class"):
        read_class_folders(tmp_path / "absent")


def test_odd_names_are_kept(tmp_path, cache):
    odd = ["Ünïcode ☃", "with space", "comma,name"]
    assert sorted(names(load_tree(write_tree(tmp_path / "tree", class_files(odd))))) == sorted(odd)
