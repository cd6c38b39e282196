"""Checkpoints in a bucket: written as Tune writes them, read as trials do, deleted when over."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import fs
from ray.tune import Checkpoint

from search import bucket as buckets
from search import remote as remotes
from search.addresses import shown
from search.checkpoints import Checkpoints
from search.remote import AwayError, Remote, away_in, spare
from search.rundir import RunDir, read_json
from tests.s3 import Memory
from trainables._core.digests import check_digest, write_digest

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "s3://bucket/runs/mine?endpoint_override=localhost:1&scheme=http"
TRIAL = "ray/session-1/trial-00000-abc"
NEWEST = f"{TRIAL}/checkpoint_000001"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory(ADDRESS, "bucket/runs/mine", fs.LocalFileSystem())
    monkeypatch.setattr(remotes, "_reached", lambda _: made)
    monkeypatch.setattr(buckets, "FIRST_S", 0.001)
    return made


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.create(tmp_path / "runs" / "mine")
    made.write_info(sessions=[{"started": "one", "in_bucket": True}])
    return made


@pytest.fixture
def remote(run: RunDir, bucket: Memory) -> Remote:
    return Remote(ADDRESS, str(run.path), turns=3)


def written(folder: Path, **files: bytes) -> Path:
    (folder / "student").mkdir(parents=True)
    for name, content in {"state": b"one", **files}.items():
        (folder / name).write_bytes(content)
    (folder / "student" / "model").write_bytes(b"weights")
    write_digest(folder, "identity")
    return folder


def uploaded(remote: Remote, folder: Path, place: str) -> Checkpoint:
    """As Tune's workers do it."""
    there = remote.filesystem()
    there.create_dir(place)
    fs.copy_files(str(folder), place, fs.LocalFileSystem(), there)
    return Checkpoint(place, there)


def test_tunes_checkpoints_lie_in_the_bucket_and_all_else_in_the_directory(
    remote: Remote, bucket: Memory, run: RunDir, tmp_path: Path
) -> None:
    made, tree = written(tmp_path / "made"), remote.filesystem()
    checkpoint = uploaded(remote, made, NEWEST)
    assert {f"{NEWEST}/state", f"{NEWEST}/student/model", f"{NEWEST}/digest.json"} == set(
        bucket.objects
    )
    with checkpoint.as_directory() as back:
        assert sorted(p.name for p in made.rglob("*")) == sorted(
            p.name for p in type(made)(back).rglob("*")
        )
        check_digest(type(made)(back))
    tree.create_dir("ray/session-1")
    for name in ("state.json", ".validate_storage_marker"):
        with tree.open_output_stream(f"ray/session-1/{name}") as out:
            out.write(b"of Tune")
    assert [p.name for p in (run.ray / "session-1").iterdir()] == ["state.json"]
    assert bucket.objects["ray/session-1/.validate_storage_marker"] == b"of Tune"
    listed = tree.get_file_info(fs.FileSelector("ray/session-1"))
    assert [(one.path, one.is_file) for one in listed] == [("ray/session-1/state.json", True)]
    for read in (tree.open_input_stream, tree.open_input_file):
        assert read("ray/session-1/state.json").read() == b"of Tune"
    assert tree.open_input_file(f"{NEWEST}/state").read() == b"one"
    kinds = [one.type for one in tree.get_file_info([NEWEST, f"{NEWEST}/none", "ray", "none"])]
    wanted = [fs.FileType.Directory, fs.FileType.NotFound]
    assert kinds == wanted * 2
    tree.delete_dir(NEWEST)
    tree.delete_dir("ray/session-1")
    assert [*bucket.objects] == ["ray/session-1/.validate_storage_marker"]
    assert not (run.ray / "session-1").exists()
    with pytest.raises(NotImplementedError):
        tree.delete_file("ray/a")


def test_it_travels_without_keys(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    sent = pickle.dumps((remote, remote.filesystem()))
    assert b"hunter2" not in sent
    assert len(sent) < 1000
    back: Any = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert back == (remote, remote.filesystem())
    assert back[1].type_name == "py::run"
    assert hash(back[0]) == hash(remote)


def test_a_run_has_them_where_it_is_kept_in_a_bucket(run: RunDir) -> None:
    assert Remote.of(run) is None
    run.write_info(bucket=ADDRESS)
    assert Remote.of(run) == Remote(ADDRESS, str(run.path))


def test_a_moment_is_waited_out_and_what_stays_away_is_told(
    remote: Remote, bucket: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real, fails = written(tmp_path / "made"), bucket.put, [True, True]

    def sometimes(name: str, content: bytes) -> None:
        if fails and fails.pop():
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: hunter2")
        real(name, content)

    monkeypatch.setattr(Memory, "put", lambda _, *what: sometimes(*what))
    uploaded(remote, made, NEWEST)
    assert not fails
    fails += [True] * 100
    with pytest.raises(AwayError) as caught:
        uploaded(remote, made, f"{TRIAL}/checkpoint_000002")
    said = str(caught.value)
    assert "hunter2" not in said
    assert f"{shown(ADDRESS)}: its endpoint does not answer (asked by " in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said  # noqa: S301 - our own bytes
    assert said == away_in(f"ray.exceptions.RayTaskError(AwayError): {said}\n  more")
    bucket.sick[:] = [0]
    for asked in (
        lambda: remote.saved(0),
        lambda: remote.fetch(NEWEST, tmp_path / "back"),
        lambda: remote.filesystem().get_file_info(NEWEST),
    ):
        with pytest.raises(AwayError, match="SLOW_DOWN"):
            asked()


def test_files_of_any_size_are_sent(remote: Remote, bucket: Memory) -> None:
    for name, parts in (("empty", []), ("large", [b"a" * 9, b"b", b"c"])):
        with remote.filesystem().open_output_stream(f"{NEWEST}/{name}") as out:
            for part in parts:
                out.write(part)
            out.flush()
        assert bucket.objects[f"{NEWEST}/{name}"] == b"".join(parts)
    assert remote.filesystem() != fs.LocalFileSystem()


def test_what_is_fetched_is_what_was_sent_and_what_is_gone_is_torn(
    remote: Remote, bucket: Memory, tmp_path: Path
) -> None:
    made = written(tmp_path / "made")
    remote.send(made, NEWEST)
    remote.fetch(NEWEST, tmp_path / "back")
    check_digest(tmp_path / "back", "identity")
    assert (tmp_path / "back" / "student" / "model").read_bytes() == b"weights"
    remote.fetch(f"{TRIAL}/checkpoint_000009", tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []
    real = bucket.tree(NEWEST)
    del bucket.objects[f"{NEWEST}/state"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "tree", lambda *_: real)  # deleted while it was fetched
        remote.fetch(NEWEST, tmp_path / "late")
    with pytest.raises(ValueError, match="state is not what was saved"):
        check_digest(tmp_path / "late")


def test_nobody_keeps_what_is_old_or_of_trials_that_have_ended() -> None:
    def tree(*places: str) -> dict[str, int]:
        return {f"ray/session-{p}/state.pt": n for n, p in enumerate(places)}

    old = tree(*(f"1/trial-00000-a/checkpoint_{n:06d}" for n in range(3)))
    new = {f"{k}".replace("session-1", "session-2"): v + 10 for k, v in old.items()}
    ended = tree("1/trial-00001-b/checkpoint_000000")
    found = {**new, **old, **ended, "ray/session-1/.validate_storage_marker": 0}
    over = {1}.__contains__
    assert spare(found, over, ending=False) == [
        "ray/session-1/trial-00001-b",
        *(f"ray/session-1/trial-00000-a/checkpoint_{n:06d}" for n in range(3)),
    ]
    assert spare(found, {0, 1}.__contains__, ending=True) == ["ray"]
    assert spare({}, over, ending=True) == []
    assert spare({"ray/session-1/.validate_storage_marker": 0}, over, ending=False) == []


def test_checkpoints_of_directory_and_bucket_are_noted_and_given_as_one(
    remote: Remote, bucket: Memory, run: RunDir, tmp_path: Path
) -> None:
    ours = Checkpoints(run, remote)
    assert Checkpoints(run, remote).target is None
    here = written(run.ray / "session-1" / "trial-00000-abc" / "checkpoint_000000")
    (run.trial(0)).mkdir()
    ours.note(0, str(here))
    assert ours.given(0, begun=True) == [str(here)]
    assert "in_bucket" not in read_json(run.trial(0) / "checkpoint.json")

    ours.afar = True
    assert ours.target is remote
    assert ours.given(0, begun=True) == [f"{TRIAL}/checkpoint_000000"]  # sent there for others
    assert f"{TRIAL}/checkpoint_000000/digest.json" in bucket.objects
    for number in (1, 2):
        remote.send(written(tmp_path / str(number)), f"{TRIAL}/checkpoint_00000{number}")
        ours.note(0, f"{TRIAL}/checkpoint_00000{number}")
    told = read_json(run.trial(0) / "checkpoint.json")
    newest = [f"{TRIAL}/checkpoint_00000{number}" for number in (2, 1)]
    assert told["checkpoints"] == told["in_bucket"] == newest
    with ours.at_hand(run.path / newest[0]) as folder:
        check_digest(folder)
    assert not folder.exists()
    with ours.at_hand(here) as folder:
        assert folder == here
    assert ours.given(0, begun=False) == newest
    ours.forget(0)
    assert not (run.trial(0) / "checkpoint.json").exists()

    run.write_info(sessions=[{"started": "one"}])
    calls = len(bucket.calls)
    assert Checkpoints(run, remote).given(0, begun=True) == [str(here)]
    assert len(bucket.calls) == calls  # it is not asked for what was never sent
    run.write_info(sessions=[{"started": "one", "in_bucket": True}])
    later = Checkpoints(run, remote)
    there = later.given(0, begun=True)
    assert set(there) >= {*newest}
    assert there[-1] in (str(here), f"{TRIAL}/checkpoint_000000")
    assert Checkpoints(run).given(0, begun=False) == []


def test_a_trained_model_is_lent_to_trials_on_other_nodes_once(
    remote: Remote, bucket: Memory, run: RunDir
) -> None:
    done = str(written(run.trial(3), **{"scores.safetensors": b"of every task"}))
    ours = Checkpoints(run, remote)
    assert ours.lent([done]) == [done]  # all nodes share the directory
    ours.afar = True
    assert ours.lent([done, str(run.trial(2))]) == ["ray/trained/3"]
    assert {*bucket.objects} == {
        "ray/trained/3/student/model",
        "ray/trained/3/scores.safetensors",
    }
    calls = len(bucket.calls)
    assert ours.lent([done]) == ["ray/trained/3"]
    assert len(bucket.calls) == calls
    assert ours.lent([]) == []
