"""Shapes of tasks against the classes there are; the report in words."""

import json

import numpy as np
import pytest

from trainables._data import DataError, Dataset, ImageSet, LoadReport, check_shape


def image_set(counts, groups=None, prefix="c"):
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ImageSet(
        images=np.zeros((int(starts[-1]), 1, 8, 8), np.uint8),
        starts=starts,
        groups=np.arange(len(counts)) if groups is None else np.array(groups),
        names=tuple(f"{prefix}{i}" for i in range(len(counts))),
    )


def dataset(train, validation=None, test=None):
    return Dataset(
        name="folder",
        train=train,
        validation=validation or train,
        test=test or train,
        mean=(0.5,),
        std=(0.5,),
        fingerprint="0",
        report=LoadReport("folder", "here", "split given", 8, 1),
    )


def test_a_task_that_fits_passes():
    check_shape(dataset(image_set([20] * 5)), 5, 5, 15)


def test_too_few_images_name_the_class_and_both_numbers():
    images = image_set([20, 13, 12, 20, 20], prefix="Greek/")
    with pytest.raises(DataError) as error:
        check_shape(dataset(images), 5, 5, 15)
    assert str(error.value).startswith(
        "5-way 5-shot with 15 queries needs 20 images in each class; class Greek/2 has 12"
    )
    assert "1 more have too few" in str(error.value)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_is_looked_at(split):
    few, enough = image_set([20] * 4), image_set([20] * 5)
    sets = {"train": enough, "validation": enough, "test": enough, split: few}
    with pytest.raises(DataError, match=rf"needs 5 classes in each split; the {split} split .* 4"):
        check_shape(dataset(**sets), 5, 1, 1)


def test_rotations_of_one_character_count_once():
    images = image_set([20] * 8, groups=[0, 0, 0, 0, 1, 1, 1, 1])
    check_shape(dataset(images), 2, 1, 1)
    with pytest.raises(DataError, match="needs 3 unrelated classes"):
        check_shape(dataset(images), 3, 1, 1)


@pytest.mark.parametrize(("shape", "word"), [((1, 1, 1), "ways"), ((2, 0, 1), "shots")])
def test_numbers_without_sense_are_refused(shape, word):
    with pytest.raises(DataError, match=f"needs {word} of at least"):
        check_shape(dataset(image_set([20] * 5)), *shape)


def test_splits_by_name():
    data = dataset(image_set([3, 4]))
    assert data.split("validation") is data.validation
    assert (data.size, data.channels) == (8, 1)
    assert [len(data.train.of(c)) for c in range(2)] == [3, 4]
    with pytest.raises(DataError, match=r"train, validation, test; there is no 'val'"):
        data.split("val")


def test_a_report_survives_json_and_says_what_was_counted():
    report = LoadReport(
        source="folder",
        origin="/photos",
        split_from="split given",
        size=28,
        channels=3,
        classes={"train": 3},
        images={"train": 30},
        skipped={"corrupt image": 2},
        converted={"grey to colour": 1},
        original_sizes={"30x20": 29, "20x20": 1},
        distinct_sizes=2,
        examples={"corrupt image": ("cat/1.png", "dog/2.png")},
    )
    assert LoadReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    text = "\n".join(report.lines())
    assert "folder from /photos: 28 x 28, colour" in text
    assert "split given: train 3 classes, 30 images" in text
    assert "skipped 2: corrupt image (such as cat/1.png, dog/2.png)" in text
    assert "converted 1: grey to colour" in text
    assert "mixed sizes: 2 different ones" in text
