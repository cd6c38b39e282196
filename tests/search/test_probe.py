"""A machine looks at itself; nothing is left behind."""

import pytest
from pyarrow import fs

from search import probe as probing
from search.errors import UserError
from search.probe import Question, marked, now, probe, standing, try_storage, versions


class Data:
    def __init__(self, error=None):
        self.error = error

    def open(self):
        if self.error:
            raise self.error


def test_a_storage_is_tried_and_left_as_it_was(tmp_path):
    with marked(tmp_path) as marker:
        found = probe(Question(str(tmp_path), marker, Data()))
    assert (found.storage, found.data) == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert found.free_gib["storage"] > 0
    assert found.versions["ray"]
    assert abs(found.clock - now()) < 60


def test_a_storage_that_is_not_the_drivers_is_found_out(tmp_path):
    assert "not the same directory" in try_storage(str(tmp_path), ".marker-of-the-driver")
    assert "No such file" in try_storage(str(tmp_path / "none"))
    assert "storage" not in probe(Question(str(tmp_path / "none"))).free_gib


def test_what_is_read_must_be_what_was_written(tmp_path, monkeypatch):
    class Forgetful(fs.LocalFileSystem):  # type: ignore[misc]
        def open_output_stream(self, path):
            (tmp_path / path).write_bytes(b"something else")
            return open("/dev/null", "wb")  # noqa: PTH123

    monkeypatch.setattr(fs, "LocalFileSystem", Forgetful)
    assert try_storage(str(tmp_path)) == "what is written there is not what is read"


def test_data_that_cannot_be_read_is_told_not_raised():
    assert probe(Question(data=Data(ValueError("torn\nsecond line")))).data == "torn"
    assert probe(Question(data=Data(ValueError()))).data == "ValueError"


def test_the_nearest_directory_that_is_there(tmp_path):
    assert standing(tmp_path / "runs" / "mine") == tmp_path
    assert standing(tmp_path) == tmp_path


def test_versions_tell_our_own_code_by_its_content(monkeypatch):
    assert len(versions()["fewtune"]) == 12
    monkeypatch.setattr(probing, "PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] == "not installed"


@pytest.fixture(autouse=True)
def _fresh():
    probing._code.cache_clear()


def test_a_bucket_is_tried_where_one_is_asked_for(monkeypatch):
    asked = []

    def tried(address, turns):
        asked.append((address, turns))
        error = UserError("It cannot be used.")
        if len(asked) == 2:
            raise error from OSError("AWS Error ACCESS_DENIED: hunter2")
        if len(asked) == 3:
            raise error

    monkeypatch.setattr(probing, "check_bucket", tried)
    assert probe(Question()).bucket == ""
    assert asked == []
    told = [probe(Question(bucket="s3://bucket/runs")).bucket for _ in range(3)]
    assert told == ["", "access is denied", "It cannot be used"]
    assert asked[0] == ("s3://bucket/runs", probing.BUCKET_TURNS)
