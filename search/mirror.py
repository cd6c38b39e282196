"""A copy of a run in a bucket, kept up while the run is driven; the directory stays the original.

::

    ADDRESS/manifest.json       path -> digest and time of every file, and the run's sessions
    ADDRESS/objects/<sha256>    the files, by their content

The manifest is written last and whole, and what it names is deleted only once the next one is
there. So what lies in the bucket is always one state that can be resumed, however an upload ends:
trials that have ended for the journal have all their files, and no file is of a trial that the
journal does not know.

A thread does it. A bucket that fails is asked again, later and later; it neither stops nor slows
the sweep.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from search.addresses import shown
from search.bucket import Bucket, check_bucket, patiently, waiting, why
from search.errors import UserError
from search.moments import Seen, take
from search.outlets import echo
from search.rundir import INFO, now

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.moments import State
    from search.rundir import RunDir

MANIFEST, OBJECTS = "manifest.json", "objects"
EVERY_S = 5.0  # between two looks for what has changed; our default
SILENT_S = 30.0  # of a bucket that fails, before the user is told; our default
LAST_S = 120.0  # for the last state, when the sweep ends; our default
_SPOOL = ".mirror-"


class Mirror:
    """Keeps the copy of a run, while it is entered.

    Args:
        run: The run, which this process drives.
        bucket: Where the copy is.
        every_s: Seconds between two looks.
        last_s: Seconds that the last state may take, when the sweep has ended.
    """

    def __init__(
        self, run: RunDir, bucket: Bucket, *, every_s: float = EVERY_S, last_s: float = LAST_S
    ) -> None:
        self.run, self.bucket, self._every_s, self._last_s = run, bucket, every_s, last_s
        self.say: Callable[[str], None] = lambda line: echo(line, to_stderr=True)
        self._seen: dict[str, Seen] = {}
        self._there: set[str] = set()  # digests of objects that are whole in the bucket
        self._named: set[str] = set()  # by the manifest that is in the bucket
        self._spare: set[str] = set()  # objects that no manifest names
        self._known: dict[str, Any] = {}
        self._failures, self._failing_since, self._told = 0, 0.0, False
        self._last: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def __enter__(self) -> Self:
        """See what is in the bucket, and begin.

        Raises:
            UserError: The bucket cannot be used, or the run has gone on from there elsewhere.
        """
        for left in self.run.path.glob(f"{_SPOOL}*"):  # of a driver that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._look()
        self._thread.start()
        return self

    def _look(self) -> None:
        found = read_manifest(self.bucket)
        if found is not None:
            self._check_ours(found)
            self._known = found["files"]
            self._named = {one["digest"] for one in self._known.values()}
        listed = patiently(self.bucket, lambda: self.bucket.names(OBJECTS))
        self._there, self._spare = self._named & listed, listed - self._named

    def __exit__(self, *_: object) -> None:
        """Copy the last state, and say whether that was done."""
        self._ending.set()
        self._thread.join(self._last_s)
        place, address = shown(self.bucket.address), shlex.quote(self.bucket.address)
        if not self._thread.is_alive() and self._last is None:
            self.say(f"The run is in {place} as well; elsewhere: fewtune fetch {address}")
            return
        reason = why(self._last) if self._last is not None else "it does not answer in time"
        self.say(
            f"The last state of the run could not be copied to {place}: {reason}. It is whole in "
            f"{self.run.path}; `fewtune resume {self.run.path}` copies it."
        )

    def copy(self) -> None:
        """Copy the run as it is now.

        Raises:
            OSError: The bucket did not take all of it; what it took is not sent again.
        """
        with tempfile.TemporaryDirectory(
            prefix=_SPOOL, dir=self.run.path, ignore_cleanup_errors=True
        ) as spool:
            seen = {path: one for path, one in self._seen.items() if one.digest in self._there}
            state = take(self.run, Path(spool), seen)
            files = {path: self._send(path, link, state) for path, link in state.files.items()}
        if state.journal:
            digest = self._put(state.journal)
            files[self.run.journal.name] = {"digest": digest, "time": time.time_ns()}
        if {path: one["digest"] for path, one in files.items()} != {
            path: one["digest"] for path, one in self._known.items()
        }:
            self._publish(files)

    def _send(self, path: str, link: Path | None, state: State) -> dict[str, Any]:
        stamp = state.stamps[path]
        if link is not None:
            self._seen[path] = Seen(stamp, self._put(link.read_bytes()))
        return {"digest": self._seen[path].digest, "time": stamp[2]}

    def _put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._there:
            self.bucket.put(f"{OBJECTS}/{digest}", content)
            self._there.add(digest)
        return digest

    def _publish(self, files: dict[str, Any]) -> None:
        """Write the manifest, then delete what neither it nor the one before names."""
        document = {"run": self.run.path.name, "written": now(),
                    "sessions": sessions(self.run), "files": files}  # fmt: skip
        self.bucket.put(MANIFEST, json.dumps(document).encode())
        before, self._named = self._named, {one["digest"] for one in files.values()}
        self._known = files
        self._spare = (self._there | self._spare) - self._named - before
        self._there -= self._spare  # first: an answer may be lost, and the object be gone
        for digest in sorted(self._spare):
            self.bucket.delete(f"{OBJECTS}/{digest}")
            self._spare.discard(digest)

    def _work(self) -> None:
        while True:
            last = self._ending.is_set()
            try:
                self.copy()
                self._well()
                if last:
                    return
            except Exception as error:  # noqa: BLE001 - told; a copy that fails stops no sweep
                self._failed(error)
            wait = waiting(self._failures - 1) if self._last is not None else self._every_s
            self._ending.wait(wait)
            if last:
                time.sleep(min(wait, 5.0))

    def _well(self) -> None:
        self._failures, self._last = 0, None
        if self._told:
            self._told = False
            self.say(f"{shown(self.bucket.address)} answers again, and has the run as it is.")

    def _failed(self, error: BaseException) -> None:
        if self._last is None:
            self._failing_since = time.monotonic()
        self._failures, self._last = self._failures + 1, error
        if not self._told and time.monotonic() - self._failing_since > SILENT_S:
            self._told = True
            self.say(
                f"The run cannot be copied to {shown(self.bucket.address)}: {why(error)}. The "
                f"sweep goes on, all of it is in {self.run.path}, and is copied when that is over."
            )

    def _check_ours(self, found: dict[str, Any]) -> None:
        ours, theirs = sessions(self.run), found["sessions"]
        if ours[: len(theirs)] != theirs:
            place, address = shown(self.bucket.address), shlex.quote(self.bucket.address)
            raise UserError(
                f"The run in {place} is another one than {self.run.path}, or has gone on elsewhere "
                f"since. Get that one (`fewtune fetch {address} -o DIR`) and go on with it."
            )


def mirrored(run: RunDir) -> AbstractContextManager[Mirror | None]:
    """Keep a copy of a run where it says that one is kept; None where it says nothing."""
    address = run.info().get("bucket")
    return Mirror(run, Bucket.of(address)) if address else nullcontext()


def check_free(address: str) -> None:
    """Try a bucket, and see that a new run can be kept at an address.

    Raises:
        UserError: The bucket cannot be used, or there is a run already.
    """
    if read_manifest(check_bucket(address)) is not None:
        raise UserError(
            f"There is already a run at {shown(address)}. Go on with it (`fewtune resume "
            f"{shlex.quote(address)}`), or give another --name."
        )


def sessions(run: RunDir) -> list[str]:
    """When the run was made, and each of its sessions begun: nobody else's has the same."""
    info = run.info()
    return [str(info["created"]), *(str(one["started"]) for one in info["sessions"])]


def read_manifest(bucket: Bucket) -> dict[str, Any] | None:
    """Read what is in a bucket; None where no run is.

    Raises:
        UserError: The bucket cannot be used, or what lies there is no manifest of ours.
    """
    try:
        content = patiently(bucket, lambda: bucket.get(MANIFEST))
    except FileNotFoundError:
        return None
    try:
        found = json.loads(content)
        if all(set(one) == {"digest", "time"} for one in found["files"].values()):
            return {"sessions": list(found["sessions"]), **found}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{shown(bucket.address)} holds no run: its {MANIFEST} is not one of fewtune.")


def files_of(bucket: Bucket) -> dict[str, Any]:
    """Read which files a run in a bucket has: path -> digest and time.

    Raises:
        UserError: The bucket cannot be used, or there is no run.
    """
    found = read_manifest(bucket)
    if found is None or INFO not in found["files"]:
        raise UserError(
            f"There is no run at {shown(bucket.address)}: no {MANIFEST} is there. Give the address "
            "of the run itself, s3://BUCKET/PREFIX/NAME."
        )
    return dict(found["files"])
