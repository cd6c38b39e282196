"""Only safe files are listed, and what is left out has a reason."""

import os
import stat
import zipfile

import pytest

from tests.trainables._data.helpers import encode, write_tree, write_zip
from trainables._data import DataError, _archive
from trainables._data._archive import (
    BROKEN_LINK,
    DUPLICATE_ENTRY,
    FOLDER_LINK,
    LINK_ENTRY,
    OUTSIDE_LINK,
    OVERSIZE_FILE,
    SPECIAL,
    UNSAFE_ENTRY,
    identity_of,
    open_tree,
    read_text,
)
from trainables._data._decode import CORRUPT, ImageProblemError


def reasons(tree):
    return {file: reason for reason, file in tree.skips}


def test_a_folder_lists_files_and_folders_sorted(tmp_path):
    write_tree(tmp_path, {"b/2.png": b"2", "a/1.png": b"1", "top.txt": b"t"})
    (tmp_path / "empty").mkdir()
    tree = open_tree(tmp_path)
    assert tree.files == ("a/1.png", "b/2.png", "top.txt")
    assert tree.folders == {"a", "b", "empty"}
    assert tree.skips == []
    assert tree.read("b/2.png") == b"2"


def test_links_out_of_the_tree_are_left_out_and_named(tmp_path):
    outside = write_tree(tmp_path / "outside", {"secret.png": b"s", "more/x.png": b"x"})
    root = write_tree(tmp_path / "root", {"cat/1.png": b"1"})
    (root / "cat/out.png").symlink_to(outside / "secret.png")
    (root / "dog").symlink_to(outside / "more")
    (root / "cat/twin.png").symlink_to(root / "cat/1.png")
    (root / "loop").symlink_to(root)
    (root / "cat/gone.png").symlink_to(root / "nothing.png")
    os.mkfifo(root / "cat/pipe.png")
    tree = open_tree(root)
    assert tree.files == ("cat/1.png", "cat/twin.png")
    assert reasons(tree) == {
        "cat/out.png": OUTSIDE_LINK,
        "dog": OUTSIDE_LINK,
        "loop": FOLDER_LINK,
        "cat/gone.png": BROKEN_LINK,
        "cat/pipe.png": SPECIAL,
    }


def test_a_root_that_is_itself_a_link_is_fine(tmp_path):
    write_tree(tmp_path / "root", {"cat/1.png": b"1"})
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert open_tree(tmp_path / "link").files == ("cat/1.png",)


def test_zip_entries_pointing_outside_are_left_out_and_named(tmp_path):
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_zip(
        tmp_path / "a.zip",
        {
            "cat/1.png": b"1",
            "../evil.png": b"e",
            "cat/../../evil.png": b"e",
            "/etc/evil.png": b"e",
            "C:/evil.png": b"e",
            "cat\\..\\..\\evil.png": b"e",
            link: b"/etc/passwd",
            "dog\\2.png": b"2",
        },
    )
    tree = open_tree(path)
    assert tree.files == ("cat/1.png", "dog/2.png")
    assert tree.read("dog/2.png") == b"2"
    found = [reason for reason, _ in tree.skips]
    assert found.count(UNSAFE_ENTRY) == 5
    assert found.count(LINK_ENTRY) == 1
    assert len(found) == 6
    tree.close()


def test_a_name_used_twice_counts_once(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/1.png", b"second")
    tree = open_tree(path)
    assert tree.files == ("cat/1.png",)
    assert reasons(tree) == {"cat/1.png": DUPLICATE_ENTRY}
    tree.close()


def test_a_damaged_entry_is_corrupt(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": encode(1), "cat/2.png": encode(2)})
    data = bytearray(path.read_bytes())
    data[data.index(b"cat/1.png") + 100] ^= 0xFF
    path.write_bytes(data)
    tree = open_tree(path)
    with pytest.raises(ImageProblemError, match=CORRUPT):
        tree.read("cat/1.png")
    assert tree.read("cat/2.png") == encode(2)
    tree.close()


def test_files_too_large_for_an_image_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_archive, "MAX_FILE_MIB", 1)
    big = {"cat/1.png": bytes((1 << 20) + 1)}
    folder = open_tree(write_tree(tmp_path / "tree", big))
    archive = open_tree(write_zip(tmp_path / "a.zip", big))
    for tree in (folder, archive):
        with pytest.raises(ImageProblemError) as problem:
            tree.read("cat/1.png")
        assert problem.value.reason == OVERSIZE_FILE
        tree.close()


def test_what_is_no_zip_says_what_it_looks_like(tmp_path):
    page = tmp_path / "images.zip"
    page.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(DataError, match=r"not a complete zip archive: .* begins with b'<!DOCTYPE"):
        open_tree(page)
    whole = write_zip(tmp_path / "b.zip", {"a/1.png": encode()}).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a complete zip archive"):
        open_tree(tmp_path / "b.zip")


def test_other_archives_and_missing_paths_are_refused(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"x")
    with pytest.raises(DataError, match="unpack it and name the folder"):
        open_tree(tmp_path / "a.tgz")
    with pytest.raises(DataError, match="There is nothing at"):
        open_tree(tmp_path / "absent")


def test_identity_changes_with_the_content(tmp_path):
    root = write_tree(tmp_path / "tree", {"a/1.png": b"1"})
    archive = write_zip(tmp_path / "a.zip", {"a/1.png": b"1"})
    seen = {identity_of(root), identity_of(archive)}
    assert identity_of(root) in seen
    (root / "a/2.png").write_bytes(b"2")
    write_zip(archive, {"a/1.png": b"2"})
    seen |= {identity_of(root), identity_of(archive)}
    assert len(seen) == 4
    with pytest.raises(DataError, match="cannot be read"):
        identity_of(tmp_path / "absent")


def test_text_is_utf8_with_or_without_mark(tmp_path):
    tree = open_tree(write_tree(tmp_path, {"a.txt": "\ufeffé".encode(), "b.txt": b"\xff\xfe"}))
    assert read_text(tree, "a.txt") == "é"
    with pytest.raises(DataError, match=r"b\.txt in .* cannot be read as UTF-8"):
        read_text(tree, "b.txt")
