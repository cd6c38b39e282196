"""The bundle: written whole or not at all, read only when every file is as it was."""

import json
import shutil

import pytest
import torch

from search.bundle import check_free, new_bundle, read_bundle
from search.errors import UserError
from tests import bundles


@pytest.fixture
def home(tmp_path):
    return bundles.bundle(tmp_path / "home")


def change(file, **words):
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, **words}))


def test_what_was_written_is_read(home):
    found = read_bundle(home)
    assert found.provenance["run"] == "by hand"
    own = bundles.student()
    assert found.student.spec == own.spec
    assert all(torch.equal(found.student.params[n], own.params[n]) for n in own.params)


def test_every_file_can_be_read_by_others(home):
    modes = {file.stat().st_mode & 0o777 for file in home.iterdir()}
    assert len(list(home.iterdir())) == 6
    assert len(modes) == 1


def test_it_can_be_moved(home, tmp_path):
    read_bundle(home.rename(tmp_path / "elsewhere"))


def test_nothing_in_it_is_a_pickle(home):
    for file in home.iterdir():
        assert not file.read_bytes().startswith((b"\x80", b"PK"))


@pytest.mark.parametrize("name", ["model.safetensors", "pattern.json", "config.yaml", "README.md"])
def test_a_changed_file_is_named(home, name):
    data = bytearray((home / name).read_bytes())
    data[-1] ^= 1
    (home / name).write_bytes(data)
    with pytest.raises(UserError, match=f"is not whole: {name} is not as it was exported"):
        read_bundle(home)


def test_missing_and_foreign_files_are_named_together(home, tmp_path):
    (home / "README.md").unlink()
    (home / "model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"README.md is missing; model.bin does not belong to it"):
        read_bundle(home)


def test_a_file_of_another_bundle_is_named(home, tmp_path):
    other = bundles.bundle(tmp_path / "other", width=5)
    shutil.copy(other / "model.safetensors", home)
    with pytest.raises(UserError, match=r"model.safetensors is not as it was exported"):
        read_bundle(home)


def test_what_desktops_leave_behind_does_no_harm(home):
    for name in (".DS_Store", "Thumbs.db"):
        (home / name).write_bytes(b"x")
    read_bundle(home)


def test_no_bundle(tmp_path):
    with pytest.raises(UserError, match=r"made by `fewtune export`; .*gone does not exist"):
        read_bundle(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file is a file"):
        read_bundle(tmp_path / "file")
    with pytest.raises(UserError, match=r"has no provenance\.json\.$"):
        read_bundle(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"It is a run; `fewtune export .* makes a bundle of it"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"bundle": 2}, "format 2, made by a newer fewtune"),
        ({"bundle": "x"}, "was not written by `fewtune export`"),
        ({"files": ["model.safetensors"]}, "was not written by `fewtune export`"),
        ({"files": {"../x": ""}}, r"names \.\./x, which lies outside the bundle"),
        ({"files": {"/etc/x": ""}}, "names /etc/x, which lies outside"),
        ({"files": {"README.md": ""}}, r"does not name model\.safetensors"),
    ],
)
def test_a_foreign_provenance_is_refused(home, words, said):
    change(home / "provenance.json", **words)
    with pytest.raises(UserError, match=said):
        read_bundle(home)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_provenance_is_named(home, text):
    (home / "provenance.json").write_text(text)
    with pytest.raises(UserError, match=r"provenance\.json is damaged"):
        read_bundle(home)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"pattern": "01"}, "no readable student"),
        ({"pattern": "01x"}, "no readable student"),
        ({"pattern": "000"}, "no readable student"),
        ({"width": 5}, "does not hold the weights"),
        ({"kind": "vgg"}, "no readable student"),
        ({"extra": 1}, "no readable student"),
        ({"mean": [0.1, 0.2]}, "needs a mean and a standard deviation"),
        ({"std": [0.0]}, "needs a mean and a standard deviation"),
    ],
)
def test_a_wrong_specification_is_refused_even_with_right_digests(home, words, said):
    change(home / "pattern.json", **words)
    bundles.reseal(home)
    with pytest.raises(UserError, match=said) as error:
        read_bundle(home)
    assert "\n" not in str(error.value)


def test_torn_weights_are_refused_even_with_right_digests(home):
    weights = home / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    bundles.reseal(home)
    with pytest.raises(UserError, match="no readable student"):
        read_bundle(home)


# ------------------------------------------------------------------ writing


def test_a_failure_leaves_nothing(tmp_path):
    def broken():
        with new_bundle(tmp_path / "deep" / "out") as place:
            (place / "model.safetensors").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    read_bundle(bundles.bundle(tmp_path / "out"))


def test_a_place_that_is_taken_is_left_alone(home, tmp_path):
    with pytest.raises(UserError, match="home already holds a bundle"):
        check_free(home)
    (tmp_path / "full").mkdir()
    for name in "abcd":
        (tmp_path / "full" / name).write_text("mine")
    with pytest.raises(UserError, match=r"full holds a, b, c and 1 more\. Give another -o"):
        bundles.bundle(tmp_path / "full")
    assert len(list((tmp_path / "full").iterdir())) == 4
    with pytest.raises(UserError, match=r"and .*/a is a file"):
        bundles.bundle(tmp_path / "full" / "a")
    with pytest.raises(UserError, match=r"cannot be written at .*: Not a directory"):
        bundles.bundle(tmp_path / "full" / "a" / "b")


def test_a_place_filled_meanwhile_is_left_alone(tmp_path):
    def late():
        with new_bundle(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(UserError, match=r"cannot be written at .*out: "):
        late()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]
