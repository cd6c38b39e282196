"""A storage that fails under a run."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from search import sweep
from search._optuna import Study
from search._storages import _Journal, mend_journal
from search.config import SweepConfig
from search.errors import UserError
from search.rundir import RunDir, write_json
from search.storage import StorageError, told, trouble
from tests import fakes

if TYPE_CHECKING:
    from pathlib import Path

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_in_one_sentence_however_deep_it_is_found(tmp_path: Path) -> None:
    def search() -> None:
        try:
            raise FULL
        except OSError as error:
            raise RuntimeError("the searcher broke") from error

    with pytest.raises(StorageError) as caught, told(tmp_path):
        search()
    assert str(caught.value) == (
        f"The run at {tmp_path} cannot be written: No space left on device. What had finished is "
        f"kept. Make room there, then `fewtune resume {tmp_path}` goes on."
    )


@pytest.mark.parametrize("code", [errno.EROFS, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_every_failure_of_a_storage_has_its_remedy(tmp_path: Path, code: int) -> None:
    text = f"ray::Trial.save() OSError: [Errno {code}] {os.strerror(code)}: 'a'"
    assert trouble(RuntimeError(text)) == os.strerror(code)
    assert f"{os.strerror(code)}. What had" in str(StorageError(tmp_path, os.strerror(code)))


@pytest.mark.parametrize("error", [ValueError("a layer"), UserError("a word"), OSError(2, "none")])
def test_other_errors_are_left_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told(tmp_path):
        raise error
    assert caught.value is error


def test_a_writers_thread_does_not_print_what_is_told_anyway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def fail(error: Exception) -> None:
        raise error

    with told(tmp_path):
        for error in (FULL, ValueError("a bug")):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
    assert [type(one.exc_value) for one in seen] == [ValueError]
    assert threading.excepthook == seen.append


def test_a_run_whose_storage_fails_at_its_start_says_so(
    tmp_path: Path, fake_method: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(sweep, "write_warm_start", full)
    plain: Any = {"method": "fake", "data": {"source": "glyphs", "queries": 5}}
    with pytest.raises(StorageError, match="Make room there"):
        sweep.run_sweep(SweepConfig(**plain), name="full", storage=tmp_path)
    monkeypatch.undo()
    fakes.install(monkeypatch)
    assert RunDir.create(tmp_path / "full").path == tmp_path / "full"  # the name is not taken


def test_half_a_json_file_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", {"a": 1})

    def full(_: int) -> None:
        raise FULL

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {"a": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n "a": 1\n}\n'


def test_half_a_line_is_not_left_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that come after it would be lost with it."""
    file = tmp_path / "journal"
    journal = _Journal(str(file))
    journal.append_logs([{"op_code": 8}])

    def full(_: int) -> None:
        raise FULL

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.append_logs([{"op_code": 4}])
    assert file.read_text() == '{"op_code":8}\n'


def test_a_torn_last_line_is_cut_off_and_named_and_a_damaged_one_stops(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    made = Study(file, "s", fakes.SPACE, {"accuracy": "max"})
    made.ask()
    whole = file.read_bytes()
    assert made.mended == mend_journal(file) == ""
    file.write_bytes(whole + b'{"op_co')
    again = Study(file, "s", fakes.SPACE, {"accuracy": "max"})
    assert again.mended.startswith(f"The last line of {file} was half-written (7 bytes)")
    assert file.read_bytes().startswith(whole)
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"}" + lines[2][1:], *lines[3:]]))
    with pytest.raises(UserError, match=r"is damaged: line 3 is no JSON object\. Restore it"):
        Study(file, "s", fakes.SPACE, {"accuracy": "max"})
