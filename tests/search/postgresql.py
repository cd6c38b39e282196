"""A PostgreSQL server of a test's own, from the binaries that Debian's package installs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator  # noqa: TC003
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "hunter2 @/:%"


@dataclass(frozen=True)
class Server:
    """Where a server listens, and how it is started and stopped."""

    binaries: Path
    folder: Path
    port: int

    @property
    def address(self) -> str:
        """User, host and database, without the password."""
        return f"127.0.0.1:{self.port}/postgres"

    def control(self, *words: str) -> None:
        """Run ``pg_ctl`` as the owner of the data."""
        as_owner(str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *words)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self.control("-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once."""
        self.control("-m", "immediate", "stop")


def missing() -> str:
    """Say why no server can be started here; an empty string where one can."""
    if _binaries() is None:
        return "no PostgreSQL server is installed (apt-get install postgresql)"
    if os.getuid() == 0 and (_owner() is None or shutil.which("setpriv") is None):
        return "the server refuses to run as root, and there is no user postgres"
    return ""


@contextmanager
def server() -> Iterator[Server]:
    """Start a server with a password on its user, and take it away again."""
    binaries = _binaries()
    assert binaries is not None
    with tempfile.TemporaryDirectory(prefix="fewtune-pg-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if owner := _owner():
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        (folder / "password").write_text(PASSWORD, "utf-8")
        initdb = [
            str(binaries / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            "me",
            "-A",
            "scram-sha-256",
        ]
        as_owner(*initdb, f"--pwfile={folder / 'password'}", "-N")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        running = Server(binaries, folder, port)
        running.start()
        try:
            yield running
        finally:
            running.stop()


def as_owner(*words: str) -> None:
    """Run a command as the user the server may run as."""
    with tempfile.TemporaryFile() as said:  # a pipe would be held open by the server
        done = subprocess.run(_command(*words), stdout=said, stderr=said, check=False, timeout=120)
        said.seek(0)
        assert done.returncode == 0, said.read().decode()


def _command(*words: str) -> list[str]:
    owner = _owner()
    if owner is None:
        return list(words)
    ids = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
    return ["setpriv", *ids, *words]


def _owner() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None
