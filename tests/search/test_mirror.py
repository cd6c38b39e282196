"""The copy of a run in a bucket: always one state that can be resumed."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import fs

from search import bucket as buckets
from search import mirror as mirrors
from search import moments
from search.bucket import Bucket
from search.errors import UserError
from search.fetch import fetch
from search.mirror import Mirror, check_free, mirrored
from search.rundir import RunDir, read_json, write_json
from tests.processes import until
from tests.s3 import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADDRESS = "s3://bucket/runs/mine"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory(ADDRESS, "bucket/runs/mine", fs.LocalFileSystem())
    monkeypatch.setattr(Bucket, "of", lambda _: made)
    monkeypatch.setattr(buckets, "PATIENCE", 1)
    return made


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.create(tmp_path / "runs" / "mine")
    made.write_info(name="mine", created="noon", sessions=[{"started": "one"}], bucket=ADDRESS)
    made.sweep_file.write_text("method: fake\n", "utf-8")
    made.journal.write_bytes(b'{"op_code":0}\n')
    (made.path / "driver.lock").write_text("process 1\n", "utf-8")
    return made


def checkpointed(run: RunDir, number: int, name: str) -> None:
    """A trial that runs, with a checkpoint; Tune deletes the one before the last."""
    write_json(run.trial(number) / "result.json", {"id": number, "state": "RUNNING", "at": name})
    trial = run.ray / "session-1" / f"trial-{number:05d}-abc"
    write_json(trial / name / "state.pt", {"weights": name})
    (trial / "events").write_text("of Tune", "utf-8")
    there = sorted(trial.glob("checkpoint_*"), reverse=True)
    run.write_saved(number, there[:2])
    for old in there[2:]:
        shutil.rmtree(old)


def ended(run: RunDir, number: int) -> None:
    """A trial that has ended: its files, then the study, then its checkpoints go."""
    write_json(run.trial(number) / "student" / "model.json", {"weights": number})
    write_json(run.trial(number) / "result.json", {"id": number, "state": "COMPLETE"})
    with run.journal.open("a") as file:
        file.write(json.dumps({"ended": number}) + "\n")
    shutil.rmtree(run.ray / "session-1" / f"trial-{number:05d}-abc", ignore_errors=True)
    (run.trial(number) / "checkpoint.json").unlink(missing_ok=True)


def begun(run: RunDir, number: int) -> None:
    with run.journal.open("a") as file:
        file.write(json.dumps({"begun": number}) + "\n")
    write_json(run.trial(number) / "result.json", {"id": number, "state": "RUNNING"})


def content(path: Path) -> dict[str, bytes]:
    """What a run directory holds that counts."""
    files = {f.relative_to(path).as_posix(): f for f in path.rglob("*") if f.is_file()}
    skipped = ("driver.lock", "events", "run.json")
    return {k: f.read_bytes() for k, f in sorted(files.items()) if f.name not in skipped}


def test_a_run_comes_back_as_it_was(run: RunDir, bucket: Memory, tmp_path: Path) -> None:
    begun(run, 0)
    checkpointed(run, 0, "checkpoint_000001")
    checkpointed(run, 0, "checkpoint_000002")
    with run.journal.open("a") as file:
        file.write('{"half')
    with Mirror(run, bucket, every_s=0.01):
        pass
    back = fetch(ADDRESS, tmp_path / "back")
    run.journal.write_bytes(run.journal.read_bytes().removesuffix(b'{"half'))
    assert content(back) == content(run.path)
    assert RunDir.open(back).info() == run.info()
    assert abs(RunDir.open(back).last_word() - run.last_word()) < 2
    assert not list(run.path.glob(".mirror-*"))


def test_only_what_has_changed_is_sent_and_what_nobody_names_is_deleted(
    run: RunDir, bucket: Memory
) -> None:
    mirror = Mirror(run, bucket)
    begun(run, 0)
    mirror.copy()
    first = set(bucket.objects)
    bucket.calls.clear()
    mirror.copy()
    assert not bucket.calls
    ended(run, 0)
    mirror.copy()
    assert sorted(call.partition(" ")[0] for call in bucket.calls) == ["put"] * 4
    assert bucket.calls[-1] == "put manifest.json"
    assert first < set(bucket.objects), "the state before is there until the next one"
    begun(run, 1)
    mirror.copy()
    named = {one["digest"] for one in json.loads(bucket.objects["manifest.json"])["files"].values()}
    before = first - set(bucket.objects)
    assert before
    assert not {f"objects/{one}" for one in named} & before
    run.trial(0).joinpath("result.json").touch()  # another stamp, the same content
    bucket.calls.clear()
    mirror.copy()
    assert not bucket.calls


def test_an_upload_torn_at_any_request_leaves_a_whole_state(
    run: RunDir, bucket: Memory, tmp_path: Path
) -> None:
    mirror = Mirror(run, bucket)
    begun(run, 0)
    checkpointed(run, 0, "checkpoint_000001")
    mirror.copy()
    before = content(run.path)
    ended(run, 0)
    begun(run, 1)
    after = content(run.path)
    kept, states = dict(bucket.objects), []
    for calls in range(100):
        bucket.objects.clear()
        bucket.objects.update(kept)
        torn, whole = Mirror(run, bucket), True
        torn._look()
        bucket.calls.clear()
        bucket.sick[:] = [calls]
        try:
            torn.copy()
        except OSError:
            whole = False
        bucket.sick.clear()
        back = content(fetch(ADDRESS, tmp_path / f"back-{calls}"))
        assert back in (before, after), f"torn after {calls} requests"
        states.append(back == after)
        if whole:
            break
    assert states[0] is False
    assert states[-1] is True
    assert len(states) > 4


def writing(run: RunDir) -> Iterator[None]:
    """A sweep's writes, one at each turn."""
    for number in range(6):
        begun(run, number)
        yield
        for step in range(3):
            checkpointed(run, number, f"checkpoint_{step:06d}")
            yield
        ended(run, number)
        yield


def check_moment(at: dict[str, bytes]) -> int:
    """Hold files against the journal beside them; returns how many whole checkpoints there are."""
    logs = [json.loads(line) for line in at["study.journal"].splitlines()]
    for number in (log["ended"] for log in logs if "ended" in log):
        assert json.loads(at[f"trials/{number}/result.json"])["state"] == "COMPLETE"
        assert f"trials/{number}/student/model.json" in at
    known = {log["begun"] for log in logs if "begun" in log}
    assert {int(path.split("/")[1]) for path in at if path.startswith("trials/")} <= known
    lists = [json.loads(at[path]) for path in at if path.endswith("checkpoint.json")]
    return sum(f"{place}/state.pt" in at for one in lists for place in one["checkpoints"])


@pytest.mark.parametrize("pace", [3, 5, 9])
def test_a_copy_made_while_trials_go_on_is_of_one_moment(
    run: RunDir, bucket: Memory, monkeypatch: pytest.MonkeyPatch, pace: int
) -> None:
    """What the journal says has ended is all there; no trial is there that it does not know."""
    sweep, turns, mirror, over = writing(run), itertools.count(), Mirror(run, bucket), list[bool]()

    def beside(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if next(turns) % pace == 0 and next(sweep, over) is over:
                over.append(True)
            return real(*args)

        return call

    for name in ("_hold", "_trials"):
        monkeypatch.setattr(moments, name, beside(getattr(moments, name)))
    running = 0
    while not over:
        try:
            mirror.copy()
        except FileNotFoundError:
            continue
        files = json.loads(bucket.objects["manifest.json"])["files"]
        at = {path: bucket.objects[f"objects/{one['digest']}"] for path, one in files.items()}
        running += check_moment(at)
    assert running


def test_files_that_vanish_again_and_again_are_looked_for_again(
    run: RunDir, bucket: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(run, 0)
    checkpointed(run, 0, "checkpoint_000001")
    shutil.rmtree(run.ray)  # its list names it still
    Mirror(run, bucket).copy()
    assert "trials/0/checkpoint.json" in json.loads(bucket.objects["manifest.json"])["files"]
    (run.trial(0) / "checkpoint.json").write_text("{", "utf-8")
    Mirror(run, bucket).copy()

    def gone(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(moments, "_hold", gone)
    with pytest.raises(FileNotFoundError):
        Mirror(run, bucket).copy()


def test_checkpoints_in_the_bucket_stay_until_a_state_says_that_their_trial_has_ended(
    run: RunDir, bucket: Memory, tmp_path: Path
) -> None:
    trial = [f"ray/session-1/trial-0000{number}-abc" for number in range(2)]

    def saved(number: int) -> None:
        begun(run, number)
        places = [f"{trial[number]}/checkpoint_00000{at}" for at in range(5)]
        for place in places:
            bucket.objects[f"{place}/state.pt"] = b"weights"
        last = [run.path / place for place in reversed(places[-2:])]
        run.write_saved(number, last, last)

    def there() -> list[str]:
        return sorted(name for name in bucket.objects if name.startswith("ray/"))

    run.write_info(sessions=[{"started": "one", "in_bucket": True}])
    mirror = Mirror(run, bucket)
    for number in range(2):
        saved(number)
    mirror.copy()
    assert there() == [f"{one}/checkpoint_00000{at}/state.pt" for one in trial for at in (2, 3, 4)]
    files = json.loads(bucket.objects["manifest.json"])["files"]
    assert {"trials/0/checkpoint.json", "trials/1/checkpoint.json"} <= set(files)
    assert not any(name.startswith("ray/") for name in files)

    back = RunDir.open(fetch(ADDRESS, tmp_path / "back"))
    assert back.saved(0)[0] == [back.path / f"{trial[0]}/checkpoint_00000{at}" for at in (4, 3)]

    ended(run, 0)
    bucket.sick[:] = [len(bucket.calls) + 1]  # it answers once more: no state is published
    with pytest.raises(OSError, match="SLOW_DOWN"):
        mirror.copy()
    bucket.sick.clear()
    assert f"{trial[0]}/checkpoint_000004/state.pt" in there()
    mirror.copy()
    assert there() == [f"{trial[1]}/checkpoint_00000{at}/state.pt" for at in (2, 3, 4)]
    with Mirror(run, bucket, every_s=0.01):
        pass
    assert there()  # the other one can go on
    ended(run, 1)
    with Mirror(run, bucket, every_s=60):
        pass
    assert there() == []


def test_a_file_system_without_links_is_copied_from(
    run: RunDir, bucket: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    Mirror(run, bucket).copy()
    assert content(fetch(ADDRESS, tmp_path / "back")) == content(run.path)


def test_a_bucket_that_fails_in_the_middle_is_told_once_and_asked_again(
    run: RunDir, bucket: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "SILENT_S", 0.05)
    monkeypatch.setattr(buckets, "FIRST_S", 0.01)
    said: list[str] = []
    with Mirror(run, bucket, every_s=0.01) as mirror:
        mirror.say = said.append
        until(lambda: "manifest.json" in bucket.objects)
        bucket.sick[:] = [0]
        begun(run, 0)
        until(lambda: bool(said))
        time.sleep(0.2)
        bucket.sick.clear()
        until(lambda: len(said) == 2)
    assert said == [
        (
            f"The run cannot be copied to {ADDRESS}: it answers SLOW_DOWN. The sweep goes on, all "
            f"of it is in {run.path}, and is copied when that is over."
        ),
        f"{ADDRESS} answers again, and has the run as it is.",
        f"The run is in {ADDRESS} as well; elsewhere: fewtune fetch {ADDRESS}",
    ]


def test_a_last_state_that_cannot_be_copied_is_told(
    run: RunDir, bucket: Memory, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mirror(run, bucket, every_s=0.01, last_s=0.2) as mirror:
        until(lambda: "manifest.json" in bucket.objects)
        bucket.sick[:] = [0]
        begun(run, 0)
        until(lambda: mirror._last is not None)
    said = capsys.readouterr().err
    assert f"The last state of the run could not be copied to {ADDRESS}: it answers SLOW" in said
    assert f"`fewtune resume {run.path}` copies it" in said
    assert "hunter2" not in said


def test_a_bucket_that_cannot_be_used_stops_a_run_at_its_start(run: RunDir, bucket: Memory) -> None:
    bucket.sick[:] = [0]
    with (
        pytest.raises(UserError, match="cannot be used: it answers SLOW_DOWN"),
        Mirror(run, bucket),
    ):
        pytest.fail("it went on")


def test_a_run_that_has_gone_on_elsewhere_is_not_overwritten(run: RunDir, bucket: Memory) -> None:
    with Mirror(run, bucket):
        pass
    run.write_info(sessions=[{"started": "one"}, {"started": "two"}])
    (run.path / ".mirror-killed").mkdir()
    bucket.objects["objects/orphan"] = b"of a torn upload"
    with mirrored(run) as mirror:
        assert mirror is not None
    assert not (run.path / ".mirror-killed").exists()
    assert "objects/orphan" not in bucket.objects
    run.write_info(sessions=[{"started": "one"}, {"started": "elsewhere"}])
    with pytest.raises(UserError, match="has gone on elsewhere since"), Mirror(run, bucket):
        pytest.fail("it went on")
    run.write_info(bucket="")
    with mirrored(run) as nothing:
        assert nothing is None


def test_a_new_run_takes_no_others_place(run: RunDir, bucket: Memory) -> None:
    check_free(ADDRESS)
    Mirror(run, bucket).copy()
    with pytest.raises(UserError, match=f"already a run at {ADDRESS}"):
        check_free(ADDRESS)


def test_what_is_fetched_is_whole_or_not_there(
    run: RunDir, bucket: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="There is no run at"):
        fetch(ADDRESS, tmp_path / "none")
    Mirror(run, bucket).copy()
    with pytest.raises(UserError, match=r"is there already\. Go on with that copy"):
        fetch(ADDRESS)
    with pytest.raises(UserError, match="has no name of a run"):
        fetch("s3://bucket")
    good = dict(bucket.objects)
    digest = json.loads(good["manifest.json"])["files"]["sweep.yaml"]["digest"]

    def damaged(**changes: bytes | None) -> str:
        bucket.objects.clear()
        bucket.objects.update({**good, **{k: v for k, v in changes.items() if v is not None}})
        for name in [name for name, value in changes.items() if value is None]:
            del bucket.objects[name]
        with pytest.raises(UserError) as caught:
            fetch(ADDRESS, tmp_path / "torn")
        assert not list(tmp_path.glob("*torn*"))
        assert not list(tmp_path.glob(".*"))
        return str(caught.value)

    name = f"objects/{digest}"
    assert f"is damaged: sweep.yaml ({name}) is not what was sent" in damaged(**{name: b"x"})
    assert f"lacks sweep.yaml ({name})" in damaged(**{name: None})
    assert "is not one of fewtune" in damaged(**{"manifest.json": b"{}"})
    evil = good["manifest.json"].replace(b"sweep.yaml", b"../sweep.yaml")
    assert "'../sweep.yaml' is no file of a run" in damaged(**{"manifest.json": evil})


def test_a_fetch_sees_a_newer_state_when_its_own_is_gone(
    run: RunDir, bucket: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(run, bucket)
    mirror.copy()
    old = bucket.objects["manifest.json"]
    for number in range(2):
        begun(run, number)
        mirror.copy()
    manifests = [old, bucket.objects["manifest.json"]]
    real = mirrors.read_manifest

    def stale(asked: Bucket) -> Any:
        bucket.objects["manifest.json"] = manifests.pop(0)
        return real(asked)

    monkeypatch.setattr(mirrors, "read_manifest", stale)
    back = fetch(ADDRESS, tmp_path / "back")
    assert read_json(back / "trials" / "1" / "result.json")["id"] == 1


def test_a_place_that_cannot_be_written_is_told(
    run: RunDir, bucket: Memory, tmp_path: Path
) -> None:
    Mirror(run, bucket).copy()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written at .*: Not a directory"):
        fetch(ADDRESS, tmp_path / "file" / "run")
