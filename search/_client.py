"""A command that is given the address of a Ray client, ``ray://HOST:PORT``: it runs on the head.

Ray's client takes a program apart, its objects here and its work there, and Tune's driver does not
survive that. So the whole command becomes a process on the cluster's head, which drives from there
as any driver does, and what it writes comes back here line by line. It is nobody's but the
cluster's: when this machine leaves, it goes on.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray

from search._cluster import client
from search.addresses import shown
from search.documents import dump, read_mapping
from search.errors import FailedError, UserError
from search.interrupts import Interrupt
from search.outlets import FAILED, echo
from search.overrides import resolve_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = {"node:__internal_head__": 0.001}
HEARD_S = 600.0  # a command that has ended waits so long to be asked what it wrote
READ_S = 1.0  # a question waits so long for a line
FILE = "sweep.yaml"
INTERRUPTS = 2  # as many as a sweep understands
APART_S = 0.3  # two signals at once are one

# a signal that comes before the command can take it waits until then
_COMMAND = """
import signal
from search.cli import main
from search.outlets import end

def command():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    main()

signal.signal(signal.SIGINT, signal.default_int_handler)
end(command, debug=False)
"""


class Heard(NamedTuple):
    """Lines that a command has written, and its exit code once it has ended."""

    lines: list[tuple[bool, str]]  # whether to standard error, and what
    code: int | None


class Errand:
    """A command on the machine where this object lives.

    Args:
        words: Of the command.
        file: What the sweep file behind its first word holds; relative paths in it start from the
            working directory here. None: it has none.
        heard_s: Seconds after the command's end and the last question after which this process
            ends; None: never.
    """

    def __init__(
        self, words: Sequence[str], file: str | None, heard_s: float | None = HEARD_S
    ) -> None:
        self._lines: list[tuple[bool, str]] = []
        self._new = threading.Condition()
        self._asked = time.monotonic()
        self._place = tempfile.TemporaryDirectory(prefix="fewtune-")
        named: list[str] = []
        if file is not None:
            values = read_mapping(file, FILE).values
            resolve_paths(values, Path.cwd())
            named = [str(Path(self._place.name) / FILE)]
            Path(named[0]).write_text(dump(values), encoding="utf-8")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, words[0], *named, *words[1:]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        streams = (self._process.stdout, False), (self._process.stderr, True)
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True) for pair in streams
        ]
        for reader in self._readers:
            reader.start()
        if heard_s is not None:
            threading.Thread(target=self._leave, args=(heard_s,), daemon=True).start()

    def where(self) -> tuple[str, str]:
        """Name the machine and the directory that relative paths start from."""
        return socket.gethostname(), str(Path.cwd())

    def hear(self, known: int) -> Heard:
        """Return the lines behind those that are known; waits a moment where there is none."""
        self._asked = time.monotonic()
        with self._new:
            if len(self._lines) <= known and self._reading():
                self._new.wait(READ_S)
            if self._reading():
                return Heard(self._lines[known:], None)
            code = self._process.wait()
            self._place.cleanup()
            return Heard(self._lines[known:], code)

    def interrupt(self) -> None:
        """Do to the command what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def _reading(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    def _read(self, stream: Any, is_error: bool) -> None:  # noqa: ANN401, FBT001 - a pipe of text
        with stream:
            for line in stream:
                with self._new:
                    self._lines.append((is_error, line.rstrip("\n")))
                    self._new.notify_all()

    def _leave(self, heard_s: float) -> None:
        for reader in self._readers:
            reader.join()
        self._process.wait()
        ended = time.monotonic()
        while time.monotonic() - max(self._asked, ended) < heard_s:
            time.sleep(READ_S)
        self._place.cleanup()
        os._exit(0)


def run_there(address: str, words: Sequence[str], file: str | None = None) -> int:
    """Run a command of fewtune on the head of a cluster, and write here what it writes there.

    Ctrl-C once asks its trials to save and stop, twice stops it at once; where this process ends
    otherwise, or the connection does, the command goes on.

    Args:
        address: Of a Ray client's server, ``ray://HOST:PORT``.
        words: The command, without its file and without ``--address``.
        file: What the sweep file behind its first word holds; None: it has none.

    Returns:
        The command's exit code.

    Raises:
        UserError: Nobody answers at the address, Ray or Python there are of another version, or
            fewtune is not installed there.
        FailedError: The connection was lost, or the process there was.
    """
    with client(address), Interrupt(lambda _: None, (signal.SIGINT,)) as interrupt:
        try:
            driver, cluster = _started(words, file)
            host, folder = ray.get(driver.where.remote())
            told = [words[0], *([] if file is None else [FILE]), *map(shown, words[1:])]
            said = shlex.join(["fewtune", *told, "--address", cluster])
            echo(f"On {host}, in {folder}: {said}", to_stderr=True)
            code = _follow(driver, interrupt)
        except BrokenPipeError:  # of this process's own output
            raise
        except (ConnectionError, ray.exceptions.RayError) as error:
            raise FailedError(_lost(address, error)) from error
        with suppress(Exception):  # it ends by itself too
            ray.kill(driver)
    if code < 0:
        echo(f"The command on {host} was ended by signal {-code}.", to_stderr=True)
        return FAILED
    return code


def _started(words: Sequence[str], file: str | None) -> tuple[Any, str]:
    """Start the command on the head; return what to ask, and the cluster's address there."""
    on_head: Any = ray.remote(num_cpus=0, resources=HEAD)
    asked, actor = on_head(_home), on_head(Errand)
    stays = {"lifetime": "detached", "max_concurrency": INTERRUPTS + 1}
    try:
        cluster = ray.get(asked.remote())
        return actor.options(**stays).remote([*words, "--address", cluster], file), cluster
    except (ray.exceptions.RayError, ModuleNotFoundError) as error:
        if "ModuleNotFoundError" not in f"{type(error).__name__} {error}":
            raise
        raise UserError(
            "The cluster's head cannot import fewtune; install the same version on every node, "
            "with its pins."
        ) from error


def _home() -> str:
    """Return the address by which processes of this node reach their cluster."""
    return str(ray.get_runtime_context().gcs_address)


def _follow(driver: Any, interrupt: Interrupt) -> int:  # noqa: ANN401 - an actor's handle
    """Write what the command writes until it ends; pass Ctrl-C on, once and twice."""
    again = passed = known = 0
    code: int | None = None
    while code is None:
        try:
            while passed < interrupt.asked() + again:
                passed += 1
                ray.get(driver.interrupt.remote())
                time.sleep(APART_S)
            lines, code = ray.get(driver.hear.remote(known))
            for is_error, line in lines:
                echo(line, to_stderr=is_error)
                known += 1
        except KeyboardInterrupt:
            code, again = None, again + 1
            if again == INTERRUPTS:  # the third
                raise
    return code


def _lost(address: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("details =")]
    reason = (told or lines or [type(error).__name__])[0].rstrip(".:")
    if isinstance(error, ray.exceptions.ActorDiedError):
        return (
            f"The command's process on the head of {address} is gone ({reason}). A sweep goes on "
            f"with `fewtune resume RUN --address {address}`."
        )
    return (
        f"The connection to {address} was lost ({reason}). The command goes on there as long as "
        f"the head lives; a sweep that it did not end goes on with "
        f"`fewtune resume RUN --address {address}`."
    )
