"""A folder of a bucket, through pyarrow: small whole objects put, read, listed and deleted.

Keys come from where S3's clients look for them (``addresses``). An object is there whole or not at
all. What a server answers with is said in our words: theirs may name keys.
"""

from __future__ import annotations

import platform
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pyarrow import fs

from search.addresses import check_address, options, shown
from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_S, ATTEMPTS = 5.0, 3  # of pyarrow's own, for one request; our default
PATIENCE, FIRST_S, LONGEST_S = 4, 0.5, 60.0  # times a call is made, and waits between; our default
_CODE = re.compile(r"AWS Error (\w+)")
_SAID = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NETWORK_CONNECTION": "its endpoint does not answer",
    "ACCESS_DENIED": "access is denied",
    "INVALID_ACCESS_KEY_ID": "the access key is not known there",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is not the right one",
}
_LASTING = {*_SAID} - {"NETWORK_CONNECTION"}

T = TypeVar("T")


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket.

    Attributes:
        address: As the user gave it; no key is in it.
        root: Bucket and path.
        system: What reaches it.
    """

    address: str
    root: str
    system: fs.FileSystem

    @classmethod
    def of(cls, address: str) -> Bucket:
        """Name a folder; nothing is asked of the server yet.

        Raises:
            UserError: No run can be kept at such an address.
        """
        check_address(address)
        parts = urlsplit(address)
        system = fs.S3FileSystem(
            **options(address),
            allow_delayed_open=True,  # a small object is one request
            connect_timeout=CONNECT_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        )
        return cls(address, f"{parts.netloc}{parts.path}".rstrip("/"), system)

    def put(self, name: str, content: bytes) -> None:
        """Write an object.

        Raises:
            OSError: The server did not take it.
        """
        with self.system.open_output_stream(f"{self.root}/{name}") as out:
            out.write(content)

    def get(self, name: str) -> bytes:
        """Read an object.

        Raises:
            FileNotFoundError: There is none.
            OSError: The server did not give it.
        """
        with self.system.open_input_stream(f"{self.root}/{name}") as file:
            return bytes(file.read())

    def names(self, folder: str) -> set[str]:
        """List the objects in a folder.

        Raises:
            OSError: The server did not tell.
        """
        asked = fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True)
        found = self.system.get_file_info(asked)
        return {one.base_name for one in found if one.type == fs.FileType.File}

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error.

        Raises:
            OSError: The server did not do it.
        """
        try:
            self.system.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return

    def tree(self, folder: str) -> dict[str, int]:
        """List the objects in a folder and below it.

        Returns:
            Name, as ``get`` takes it -> when it was written, in ns of the epoch as the server
            tells it.

        Raises:
            OSError: The server did not tell.
        """
        asked = fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True, recursive=True)
        found = [one for one in self.system.get_file_info(asked) if one.type == fs.FileType.File]
        return {one.path.removeprefix(f"{self.root}/"): one.mtime_ns or 0 for one in found}

    def kind(self, name: str) -> fs.FileType:
        """Say what lies under a name.

        Raises:
            OSError: The server did not tell.
        """
        return self.system.get_file_info(f"{self.root}/{name}").type

    def clear(self, folder: str) -> None:
        """Delete a folder with all that is in it; one that is not there is no error.

        Raises:
            OSError: The server did not do it.
        """
        try:
            self.system.delete_dir(f"{self.root}/{folder}")
        except FileNotFoundError:
            return


def check_bucket(address: str, turns: int | None = None) -> Bucket:
    """Write, read and delete a small object; ``turns`` as ``patiently`` takes it.

    Raises:
        UserError: That does not work; it says why.
    """
    bucket = Bucket.of(address)
    name = f".fewtune-probe-{platform.node()}-{time.time_ns()}"

    def try_it() -> bytes:
        bucket.put(name, name.encode())
        found = bucket.get(name)
        bucket.delete(name)
        return found

    found = patiently(bucket, try_it, turns=turns)
    if found != name.encode():
        raise UserError(f"What is written to {shown(address)} is not what is read from it.")
    return bucket


def patiently(
    bucket: Bucket,
    call: Callable[[], T],
    sleep: Callable[[float], None] = time.sleep,
    turns: int | None = None,
) -> T:
    """Call until the server answers well, a few times, with longer and longer waits.

    Args:
        bucket: What is called.
        call: What is tried; it can be repeated.
        sleep: What waits.
        turns: How often it is tried; None: our default.

    Raises:
        FileNotFoundError: There is no such object.
        UserError: It did not; it says why.
    """
    last = (turns or PATIENCE) - 1
    for turn in range(last + 1):
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError as error:
            if turn == last or _code(error) in _LASTING:
                raise UserError(unusable(bucket.address, error)) from error
        sleep(waiting(turn))
    raise AssertionError("the last turn returns or raises")


def waiting(failures: int) -> float:
    """Seconds to wait after so many failures, the first of them 0.

    Example:
        >>> [waiting(n) for n in (0, 1, 2, 20)]
        [0.5, 1.0, 2.0, 60.0]
    """
    return float(min(LONGEST_S, FIRST_S * 2.0 ** min(failures, 20)))


def unusable(address: str, error: BaseException) -> str:
    """Say why a bucket cannot be used, and what to do, without any key."""
    return (
        f"The bucket {shown(address)} cannot be used: {why(error)}. Check its name, the endpoint "
        "(`?endpoint_override=HOST:PORT&scheme=http` behind the address, where it is not AWS), and "
        "that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role, may write there."
    )


def why(error: BaseException) -> str:
    """Say what a server answered, in our words.

    Example:
        >>> why(OSError("AWS Error NO_SUCH_BUCKET during PutObject operation: not there"))
        'there is no such bucket'
        >>> why(OSError("AWS Error SLOW_DOWN during PutObject operation: me:hunter2"))
        'it answers SLOW_DOWN'
        >>> why(OSError(28, "No space left on device"))
        'No space left on device'
    """
    if code := _code(error):
        return _SAID.get(code, f"it answers {code}")
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror
    return type(error).__name__


def _code(error: BaseException) -> str:
    found = _CODE.search(str(error))
    return found[1] if found else ""
