"""The one form of a result file, so that one reader checks them all."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ray", "optuna")
PEERS = ("higher", "torchopt")  # the extra `bench`: named where they are installed
KEYS = ("name", "command", "commit", "machine", "versions", "rows")  # of every document


@dataclass(frozen=True)
class Row:
    """One figure against its floor; ``floor`` and ``peer`` are None where there is none."""

    id: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    floor: float | None = None
    peer: str | None = None
    detail: str = ""

    def holds(self) -> bool:
        """Whether the figure is on the right side of its floor."""
        if self.floor is None:
            return True
        return self.value >= self.floor if self.better == "higher" else self.value <= self.floor

    def line(self) -> str:
        """The figure and its floor on one line."""
        against = "" if self.floor is None else f"  floor {self.floor:g}"
        mark = "ok  " if self.holds() else "MISS"
        return f"{mark} {self.id}: {self.value:.4g} {self.unit}{against}  {self.detail}"


def machine() -> dict[str, str | int]:
    """Processor, cores, memory and GPU, read from this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = Path("/proc/meminfo")
    kib = int(memory.read_text(encoding="utf-8").split()[1]) if memory.exists() else 0
    gpu: dict[str, str | int] = (
        {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    )
    return gpu | {
        "processor": models[0] if models else platform.processor(),
        "cores": len(models),
        "memory_gib": round(kib / 2**20),
        "system": platform.platform(terse=True),
    }


def commit() -> str:
    """The commit the figures were taken at, with ``+changes`` where the tree was not clean."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=False
        ).stdout.strip()

    code = (":/search", ":/trainables", ":/benchmarks/*.py")
    dirty = git("status", "--porcelain", "--", *code)
    return git("rev-parse", "--short", "HEAD") + ("+changes" if dirty else "")


def versions() -> dict[str, str]:
    """Python's and those of the packages that figures depend on."""
    found = {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}
    for package in PEERS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def save(name: str, rows: list[Row], **more: object) -> Path:
    """Writes ``results/<name>.json`` and prints each row against its floor.

    Args:
        name: the file's name without its ending.
        rows: the figures.
        more: further entries of the document, JSON-ready.
    """
    words = [Path(sys.argv[0]).stem, *sys.argv[1:]]
    document = {
        "name": name,
        "command": "python -m benchmarks." + " ".join(words),
        "commit": commit(),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
        **more,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        sys.stdout.write(f"{row.line()}\n")
    return path


class ResultError(ValueError):
    """A result file is missing, or does not have the one form."""


@dataclass(frozen=True)
class Result:
    """What a reader wants of a result file."""

    command: str
    rows: list[Row]


def read(path: Path) -> Result:
    """A stored result.

    Raises:
        ResultError: the file is missing or of another form.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for key in KEYS if key not in document]
        rows = [] if lacking else [Row(**row) for row in document["rows"]]
    except (OSError, ValueError, TypeError) as error:
        msg = f"A result file is JSON with {', '.join(KEYS)}; {path.name}: {error}."
        raise ResultError(msg) from error
    if lacking or not rows:
        what = f"lacks {', '.join(lacking)}" if lacking else "has no rows"
        msg = f"A result file is JSON with {', '.join(KEYS)}; {path.name} {what}."
        raise ResultError(msg)
    return Result(document["command"], rows)
