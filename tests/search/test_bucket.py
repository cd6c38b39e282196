"""A bucket, on a server of its own on this machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from search import bucket as buckets
from search.bucket import Bucket, check_bucket, patiently
from search.errors import UserError
from tests import s3

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Proxy]:
    with s3.served() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, server: s3.Proxy) -> None:
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(buckets, "ATTEMPTS", 1)
    monkeypatch.setattr(buckets, "FIRST_S", 0.01)
    server.failing = server.late = 0.0


def test_objects_are_put_read_listed_and_deleted(server: s3.Proxy) -> None:
    bucket = check_bucket(server.address("bucket/runs/a"))
    assert bucket.names("objects") == set()
    bucket.put("objects/1", b"one")
    bucket.put("objects/1", b"two")
    bucket.put("objects/empty", b"")
    assert bucket.get("objects/1") == b"two"
    assert bucket.names("objects") == {"1", "empty"}
    for _ in range(2):
        bucket.delete("objects/1")
    assert bucket.names("objects") == {"empty"}
    with pytest.raises(FileNotFoundError):
        patiently(bucket, lambda: bucket.get("objects/1"))


def test_a_large_object_is_whole(server: s3.Proxy) -> None:
    bucket, content = Bucket.of(server.address("bucket/large")), bytes(range(256)) * 8_000
    bucket.put("a", content)
    assert bucket.get("a") == content


def test_failures_and_slow_replies_are_waited_out(
    server: s3.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PATIENCE", 12)
    server.failing, server.late, server.late_s = 0.4, 0.2, 0.05
    bucket = Bucket.of(server.address("bucket/slow"))
    before = server.seen["failed"]
    for number in range(5):
        content = b"%d" % number
        patiently(bucket, partial(bucket.put, str(number), content))
        assert patiently(bucket, partial(bucket.get, str(number))) == content
    assert server.seen["failed"] > before


def test_what_cannot_be_used_is_said_in_one_sentence_without_keys(
    server: s3.Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def said(address: str) -> str:
        with pytest.raises(UserError) as caught:
            check_bucket(address)
        assert "hunter2" not in str(caught.value)
        assert "Check its name, the endpoint" in str(caught.value)
        return str(caught.value)

    monkeypatch.setattr(buckets, "PATIENCE", 2)
    nowhere = server.address("bucket/a").replace(server.endpoint, "127.0.0.1:1")
    assert "there is no such bucket" in said(server.address("other/a"))
    assert "s3://bucket/a cannot be used: its endpoint does not answer" in said(nowhere)
    server.failing = 1.0
    assert "it answers INTERNAL_FAILURE" in said(server.address("bucket/a"))
    server.failing = 0.0
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "access is denied" in said(server.address("bucket/a"))


def test_what_is_read_must_be_what_was_written(
    server: s3.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bucket, "get", lambda *_: b"another")
    with pytest.raises(UserError, match="is not what is read"):
        check_bucket(server.address("bucket/a"))
