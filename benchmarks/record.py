"""The one form of a result file, so that one reader checks them all."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ray", "optuna")


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


def machine() -> dict[str, str | int]:
    """Processor, cores and memory, read from this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = Path("/proc/meminfo")
    kib = int(memory.read_text(encoding="utf-8").split()[1]) if memory.exists() else 0
    return {
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

    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ":/search", ":/trainables")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if dirty else "")


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
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "rows": [asdict(row) for row in rows],
        **more,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        against = "" if row.floor is None else f"  floor {row.floor:g}"
        mark = "ok  " if row.holds() else "MISS"
        sys.stdout.write(f"{mark} {row.id}: {row.value:.4g} {row.unit}{against}  {row.detail}\n")
    return path
