"""One complete copy under each key, whatever is killed, torn or racing."""

import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.trainables._data.helpers import class_files, write_tree
from trainables._data import DataError, _cache, load
from trainables._data._cache import cache_folder

REPOSITORY = Path(__file__).parents[3]
CLASSES = [f"class{i:02d}" for i in range(12)]


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", class_files(CLASSES))


def load_tree(tree, cache, **kwargs):
    return load("folder", root=tree, size=16, cache=cache, **kwargs)


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def equal(a, b):
    return a.fingerprint == b.fingerprint and all(
        np.array_equal(a.split(s).images, b.split(s).images)
        for s in ("train", "validation", "test")
    )


def test_the_second_load_maps_what_the_first_decoded(tree, cache):
    first = load_tree(tree, cache)
    assert not first.report.cached
    assert len(entries(cache)) == 1
    second = load_tree(tree, cache)
    assert second.report.cached
    assert equal(first, second)
    assert (second.mean, second.std, second.train.names) == (
        first.mean,
        first.std,
        first.train.names,
    )
    assert isinstance(second.train.images.base, np.memmap)


def test_arrays_cannot_be_written(tree, cache):
    images = load_tree(tree, cache).train
    for array in (images.images, images.starts, images.groups):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("change", [{"size": 20}, {"channels": 1}, {"seed": 1}])
def test_what_decides_the_content_decides_the_key(tree, cache, change):
    load_tree(tree, cache)
    other = load("folder", **({"root": tree, "size": 16, "cache": cache} | change))
    assert not other.report.cached
    assert len(entries(cache)) == 2


def test_a_changed_source_is_decoded_again(tree, cache):
    before = load_tree(tree, cache)
    write_tree(tree, class_files(["class99"]))
    after = load_tree(tree, cache)
    assert not after.report.cached
    assert after.fingerprint != before.fingerprint


def test_the_seed_does_not_matter_where_nothing_is_drawn(tmp_path, cache):
    root = tmp_path / "data"
    write_tree(root / "mini-imagenet/images", class_files(CLASSES[:3], images=2))
    for i, word in enumerate(("train", "val", "test")):
        rows = "".join(f"{n:02d}.png,{CLASSES[i]}\n" for n in range(2))
        (root / f"mini-imagenet/{word}.csv").write_text("filename,label\n" + rows)
    first = load("mini-imagenet", root=root, size=16, seed=0)
    second = load("mini-imagenet", root=root, size=16, seed=1)
    assert second.report.cached
    assert equal(first, second)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def zero_end(path):
    data = bytearray(path.read_bytes())
    data[-64:] = bytes(64)
    path.write_bytes(data)


def half_json(path):
    text = path.read_text()
    path.write_text(text[: len(text) // 2])


def other_json(path):
    meta = json.loads(path.read_text())
    del meta["splits"]["test"]
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train.npy", truncate),
        ("train.npy", zero_end),
        ("test.npy", Path.unlink),
        ("meta.json", half_json),
        ("meta.json", other_json),
        ("meta.json", Path.unlink),
    ],
)
def test_a_torn_copy_is_noticed_and_rebuilt(tree, cache, name, damage):
    whole = load_tree(tree, cache)
    expected = whole.fingerprint, np.array(whole.train.images)
    (folder,) = entries(cache)
    damage(cache / folder / name)
    again = load_tree(tree, cache)
    assert not again.report.cached
    assert again.fingerprint == expected[0]
    np.testing.assert_array_equal(again.train.images, expected[1])
    assert entries(cache) == [folder]
    assert load_tree(tree, cache).report.cached


def test_a_failed_build_leaves_nothing_behind(tree, cache):
    for file in (tree / "class03").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="Class class03"):
        load_tree(tree, cache)
    assert entries(cache) == []


SCRIPT = """
import sys
from pathlib import Path
from trainables._data import _cache, load
if sys.argv[3] == "unlocked":
    from contextlib import nullcontext
    _cache._lock = lambda path: nullcontext()
sys.stdin.readline()  # all start together
data = load("folder", root=Path(sys.argv[1]), size=16, cache=Path(sys.argv[2]))
print(data.fingerprint, int(data.train.images.sum()), data.report.cached)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["locked", "unlocked"])
@pytest.mark.parametrize("torn", [False, True])
def test_processes_that_race_get_one_whole_copy(tree, cache, lock, torn):
    if torn:
        load_tree(tree, cache)
        (folder,) = entries(cache)
        truncate(cache / folder / "train.npy")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tree), str(cache), lock],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    time.sleep(2)
    with ThreadPoolExecutor(len(racers)) as pool:
        ends = list(pool.map(lambda racer: racer.communicate("go\n"), racers))
    assert [racer.returncode for racer in racers] == [0] * 6, ends
    answers = [out.split() for out, _ in ends]
    assert len({(fingerprint, total) for fingerprint, total, _ in answers}) == 1
    if lock == "locked":
        assert [cached for *_, cached in answers].count("False") == 1
    assert len(entries(cache)) == 1
    assert load_tree(tree, cache).report.cached


def test_a_process_killed_while_building_leaves_no_trap(tree, cache):
    cache.mkdir()
    left, fresh = cache / ".building-old", cache / ".building-new"
    for folder in (left, fresh):
        folder.mkdir()
        (folder / "train.npy").write_bytes(b"half")
    old = time.time() - _cache.STALE_S - 1
    os.utime(left, (old, old))
    load_tree(tree, cache)
    assert not left.exists()
    assert fresh.exists()  # another process may be at work in it


def test_a_cache_that_cannot_be_written_is_a_sentence(tree, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be kept in .*file/cache: .* Set FEWTUNE_CACHE"):
        load_tree(tree, tmp_path / "file" / "cache")


def test_a_full_disk_is_a_sentence(tree, cache, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache, "_to_disk", full)
    with pytest.raises(DataError, match="No space left on device"):
        load_tree(tree, cache)
    assert entries(cache) == []


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path / "named"))
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder(None) == tmp_path / "named"
    monkeypatch.delenv("FEWTUNE_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "fewtune"


def test_a_dataset_travels_by_pickle_without_its_files(tree, cache):
    data = load_tree(tree, cache)
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    assert sum(buffer.raw().nbytes for buffer in buffers) >= data.train.images.nbytes
    assert len(small) < 5000  # pixels go out of band: an object store shares them
    assert equal(pickle.loads(small, buffers=buffers), data)  # noqa: S301  made above
