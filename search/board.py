"""``fewtune board``: TensorBoard's own server on a run, on loopback unless asked otherwise."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.addresses import is_address, last_name
from search.bucket import Bucket
from search.errors import UserError
from search.live import Live
from search.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Iterator


def command(run: str | Path, host: str = "127.0.0.1", port: int = 6006) -> list[str]:
    """Return the command that serves a run.

    Args:
        run: The run directory.
        host: Address to listen on; loopback is reached from this machine alone.
        port: Port to listen on; 0 picks a free one.

    Raises:
        UserError: The path is no run, has nothing to show, or TensorBoard is not installed.
    """
    folder = RunDir.open(run)
    if not any(folder.tensorboard.rglob("events.out.tfevents.*")):
        raise UserError(
            f"{folder.path} has nothing for TensorBoard yet: {folder.tensorboard} holds no events. "
            "They are written once the first trial starts."
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed; `pip install tensorboard` brings it.")
    return [
        sys.executable, "-m", "tensorboard.main", "--logdir", str(folder.tensorboard),
        "--host", host, "--port", str(port), "--reload_interval", "5",
    ]  # fmt: skip


@contextmanager
def _directory(run: str | Path) -> Iterator[str | Path]:
    """The run's directory; of one in a bucket, a directory that is kept up with it."""
    if not is_address(str(run)):
        yield run
        return
    bucket = Bucket.of(str(run))
    with (
        tempfile.TemporaryDirectory(prefix="fewtune-board-", ignore_cleanup_errors=True) as place,
        Live(bucket, Path(place) / last_name(bucket.address)) as live,
    ):
        yield live.folder


def serve(run: str | Path, host: str = "127.0.0.1", port: int = 6006) -> None:
    """Serve a run until Ctrl-C, or until this process is asked to end: the server ends with it.

    Args:
        run: The run directory, or the address of a run in a bucket, which is followed there.
        host: As for ``command``.
        port: As for ``command``.

    Raises:
        UserError: As ``command``, the bucket cannot be used, or the server ended with an error,
            such as a port in use.
    """
    with _directory(run) as folder, subprocess.Popen(command(folder, host, port)) as server:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            ended = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return
        finally:
            signal.signal(signal.SIGTERM, before)
    if ended > 0:
        raise UserError(
            f"TensorBoard ended with code {ended}; its message is above. If port {port} is in "
            "use, give another --port, or 0 for any free one."
        )
