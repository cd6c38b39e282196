"""Sources by name: what a user may ask for, and what is said when it cannot be had."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainables._data.helpers import class_files, write_tree
from trainables import _data
from trainables._data import SOURCES, DataError, describe, load, missing, prepare

REPOSITORY = Path(__file__).parents[3]


def test_the_names_are_sorted_and_described():
    assert SOURCES == ("cifar-fs", "folder", "glyphs", "mini-imagenet", "omniglot")
    for name in SOURCES:
        source = describe(name)
        assert source.name == name
        assert source.about
        assert source.size >= 28


def test_every_module_without_underscore_but_dataset_is_a_source():
    modules = {path.stem for path in Path(_data.__file__).parent.glob("[!_]*.py")} - {"dataset"}
    assert {name.replace("_", "-") for name in modules} == set(SOURCES)
    assert len(modules) == 5


def test_an_unknown_source_is_refused_with_the_names():
    with pytest.raises(DataError, match="no data source 'omnigolt'; there are cifar-fs, folder"):
        load("omnigolt")


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "glyphs"])
def test_no_root_says_how_to_name_one(source, cache):
    with pytest.raises(DataError, match="set FEWTUNE_DATA"):
        load(source)
    assert "set FEWTUNE_DATA" in str(missing(source))


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "glyphs"])
def test_a_root_that_is_not_there_is_named(source, cache, tmp_path):
    with pytest.raises(DataError, match=r"told to read .*absent, and there is nothing there"):
        load(source, root=tmp_path / "absent")


def test_fewtune_data_is_the_root(cache, tmp_path, monkeypatch):
    root = write_tree(tmp_path / "tree", class_files(["a", "b", "c"]))
    monkeypatch.setenv("FEWTUNE_DATA", str(root))
    assert missing("folder") is None
    assert load("folder", size=16).report.origin == str(root)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 4}, "8 to 512 pixels wide; 4 was asked"),
        ({"channels": 2}, r"1 \(grey\) or 3 \(colour\) channels; 2 was asked"),
        ({"split": Path("/absent/split")}, "The split /absent/split does not exist"),
    ],
)
def test_settings_out_of_range_are_refused(cache, wrong, message):
    with pytest.raises(DataError, match=message):
        load("glyphs", **wrong)


def test_what_can_be_prepared(cache, tmp_path):
    with pytest.raises(DataError, match="Say where the data should go"):
        prepare("omniglot")
    with pytest.raises(DataError, match="nothing to download for the source folder"):
        prepare("folder", tmp_path)
    assert prepare("glyphs") == cache
    assert len(list(cache.glob("glyphs-*"))) == 1


def test_neither_torch_nor_ray_is_imported():
    code = "import sys, trainables._data; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
