"""``fewtune board``: TensorBoard's own server on a run, on loopback unless asked otherwise."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from search.errors import UserError
from search.rundir import RunDir

if TYPE_CHECKING:
    from pathlib import Path


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


def serve(run: str | Path, host: str = "127.0.0.1", port: int = 6006) -> None:
    """Serve a run until Ctrl-C, or until this process is asked to end: the server ends with it.

    Raises:
        UserError: As ``command``, or the server ended with an error, such as a port in use.
    """
    words = command(run, host, port)
    with subprocess.Popen(words) as server:
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
