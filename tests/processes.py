"""Processes that tests start and end, each by its id, and what a Ray of a test's own needs."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent


def environment(folder: Path, steps: Path) -> dict[str, str]:
    """What the processes of a Ray with a token of its own find in their environment.

    Args:
        folder: For the token.
        steps: Where the fake method notes every step.
    """
    token = folder / "token"
    token.write_text(secrets.token_hex(32), "utf-8")
    token.chmod(0o600)
    own = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
           "FEWTUNE_STEPS": str(steps), "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, **own}


def until(ready: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for what another process or thread does."""
    deadline = time.monotonic() + within_s
    while not ready():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def descendants(root: int) -> list[int]:
    """Process ids of a process and all below it, Ray's workers in their own groups included."""
    asked = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    children: dict[int, list[int]] = {}
    for line in asked.stdout.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything it started, all at once, by process id."""
    if process.poll() is None:
        for pid in descendants(process.pid):
            end(pid)
    process.wait(timeout=30)


def end(pid: int) -> None:
    """SIGKILL; one that has ended is left alone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def words_of(pid: int) -> str:
    """The command line of a process, as Ray renames it; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def trials_below(root: int) -> list[int]:
    """The process ids of the trials that run below a process; Ray's agents are called ray:: too."""
    return [pid for pid in descendants(root) if re.match(r"ray::.*Trainable", words_of(pid))]
