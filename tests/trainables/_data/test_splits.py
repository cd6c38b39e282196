"""Lists of classes as people write them, and what is wrong with them."""

import json

import pytest

from trainables._data import DataError
from trainables._data._splits import csv_rows, read_split

GOOD = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
EXPECTED = {"train": ("a", "b"), "validation": ("c",), "test": ("d",)}


def as_folder(path, lists, second="val"):
    path.mkdir()
    for word, names in lists.items():
        text = "\ufeff" + "\r\n".join([*names, "", "  "])
        (path / f"{second if word == 'val' else word}.txt").write_text(text, encoding="utf-8")
    return path


def as_json(path, lists):
    path.write_text(json.dumps(lists))
    return path


def as_csv(path, lists):
    rows = [f"{name},{word}" for word, names in lists.items() for name in names]
    path.write_text("\n".join(["class,split", *rows]))
    return path


@pytest.mark.parametrize("second", ["val", "validation", "valid"])
def test_a_folder_of_lists(tmp_path, second):
    assert read_split(as_folder(tmp_path / "s", GOOD, second)) == EXPECTED


def test_one_file(tmp_path):
    assert read_split(as_json(tmp_path / "s.json", GOOD)) == EXPECTED
    assert read_split(as_csv(tmp_path / "s.csv", GOOD)) == EXPECTED


def test_repeats_count_once_and_order_does_not_matter(tmp_path):
    lists = {"train": ["b", "a", "b"], "val": ["c"], "test": ["d"]}
    assert read_split(as_json(tmp_path / "s.json", lists)) == EXPECTED


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_a_class_in_two_parts_is_refused(tmp_path, write):
    with pytest.raises(DataError, match="puts class a into train and into test"):
        read_split(write(tmp_path / f"s.{write.__name__[3:]}", {**GOOD, "test": ["d", "a"]}))


def test_an_empty_part_is_refused(tmp_path):
    with pytest.raises(DataError, match="names no class for validation"):
        read_split(as_folder(tmp_path / "s", {**GOOD, "val": []}))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"test\.txt is missing"):
        read_split(as_folder(tmp_path / "s", {"train": ["a"], "val": ["b"]}))


def test_words_other_than_the_three_are_refused(tmp_path):
    with pytest.raises(DataError, match="it says 'holdout'"):
        read_split(as_json(tmp_path / "s.json", {**GOOD, "holdout": ["e"]}))


@pytest.mark.parametrize("text", ["{", "[1]", '{"train": 3}'])
def test_wrong_json_shows_the_right_form(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match="must be JSON of the form"):
        read_split(tmp_path / "s.json")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read: expected a folder"):
        read_split(tmp_path / "s.csv")
    folder = as_folder(tmp_path / "s", GOOD)
    (folder / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        read_split(folder)


def test_csv_needs_its_columns_and_full_rows():
    with pytest.raises(DataError, match=r"begin with the line 'a,b'; it begins with 'x,b'"):
        csv_rows("x,b\n1,2\n", "list.csv", ("a", "b"))
    with pytest.raises(DataError, match="row 3 does not"):
        csv_rows("a,b\n1,2\n3\n", "list.csv", ("a", "b"))
    assert csv_rows("b, a\n2, 1\n", "list.csv", ("a", "b")) == [{"a": "1", "b": "2"}]
