"""Small students, runs and folders of images, for tests of what is taken home."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw

from search.bundle import digest, new_bundle, seal
from search.rundir import RunDir
from trainables._core.scores import Scores
from trainables._core.student import Student, StudentSpec
from trainables._core.timing import Timed

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 16  # px
TASKS = 20  # that a model is scored on
SHAPES = ("bar", "cross", "disc", "frame", "slash")


def student(**changes: Any) -> Student:
    """A random student of four filters and two blocks, which tells simple shapes apart."""
    words: dict[str, Any] = {
        "width": 4, "depth": 2, "norm": "batch", "head": "prototype", "down": "stride", "ways": 5,
        "channels": 1, "size": SIZE, "input_size": SIZE, "mean": (0.8,), "std": (0.3,),
        "pattern": "011", "layers": ("conv1", "conv2", "head"), "inner_steps": 2,
        "inner_rate": 0.1, "views": 0, "normalisation": "inductive",
    }  # fmt: skip
    spec = StudentSpec(**{**words, **changes})
    return Student(spec, spec.network().init(torch.Generator().manual_seed(0)))


def bundle(folder: Path, programs: tuple[str, ...] = (), **changes: Any) -> Path:
    """A bundle of ``student(**changes)`` with the least that may be in one, and such programs."""
    with new_bundle(folder) as place:
        student(**changes).save(place)
        for name, text in (("config.yaml", "method: maml\n"), ("metrics.json", "{}"),
                           ("README.md", "# A student\n")):  # fmt: skip
            (place / name).write_text(text, encoding="utf-8")
        for name in programs:
            (place / name).write_text(name, encoding="utf-8")
        seal(place, {"run": "by hand"})
    return folder


def reseal(folder: Path) -> None:
    """Make the digests of a bundle those of the files as they are now."""
    file = folder / "provenance.json"
    known = json.loads(file.read_text())
    known["files"] = {name: digest(folder / name) for name in known["files"]}
    file.write_text(json.dumps(known))


def metrics(accuracy: float, params: int, ms: float, **more: Any) -> dict[str, Any]:
    """What a complete trial reports."""
    return {
        "accuracy": accuracy, "accuracy_ci95": 0.01, "accuracy_full": accuracy,
        "quality_drop": 0.0, "pattern": "011", "inner_steps": 2, "adapt_ms": ms,
        "adapt_macs": 1000, "adapt_mib": 0.25, "student_params": params,
        "student_mib": params * 4 / 2**20, **more,
    }  # fmt: skip


def run(
    folder: Path,
    points: list[tuple[float, int, float]],
    *,
    sweep: dict[str, Any] | None = None,
    kept: Student | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run directory with a complete trial for each accuracy, student_params and adapt_ms."""
    words = {"method": "maml", "budget": {"trials": 8, "iterations": 3}, **(sweep or {})}
    place = RunDir.create(folder)
    place.sweep_file.write_text(yaml.safe_dump(words), encoding="utf-8")
    place.write_info(
        name=folder.name,
        versions={"fewtune": "0.1.0", "torch": torch.__version__, "commit": "abc123"},
        data={"fingerprint": "0" * 64, "origin": str(folder.parent), "size": SIZE, "channels": 1},
        study="s-1",
    )
    for number, point in enumerate(points):
        add(place, number, metrics=metrics(*point), config=config)
        home = place.trial(number) / "student"
        home.mkdir()
        (kept or student()).save(home)
        (place.trial(number) / "table.json").write_text(
            json.dumps([{"pattern": "011", "step": 2, "accuracy": point[0]}])
        )
    return place.path


def add(place: RunDir, number: int, **more: Any) -> None:
    """Write the result of one trial."""
    known = {
        "id": number, "state": "COMPLETE", "failure": None, "cost_s": 1.0, "stopped": "",
        "metrics": {}, "notes": [f"went on from {place.path}"], "reports": [],
        "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00",
    }  # fmt: skip
    config = more.pop("config", None) or {"student.width": 4, "student.depth": 2}
    place.write_result({**known, "config": config, **more})


def draw(shape: str, seed: int, size: int = 40) -> Image.Image:
    """One drawing of a shape, dark on white, never twice the same."""
    image = Image.new("L", (size, size), 255)
    pen = ImageDraw.Draw(image)
    x, y = np.random.default_rng(seed).integers(-3, 4, 2).tolist()
    low, high, middle = 8, size - 8, size // 2
    if shape in ("bar", "cross"):
        pen.line((low + x, middle + y, high + x, middle + y), fill=0, width=5)
    if shape == "cross":
        pen.line((middle + x, low + y, middle + x, high + y), fill=0, width=5)
    if shape == "disc":
        pen.ellipse((low + x, low + y, high + x, high + y), fill=0)
    if shape == "frame":
        pen.rectangle((low + x, low + y, high + x, high + y), outline=0, width=4)
    if shape == "slash":
        pen.line((low + x, low + y, high + x, high + y), fill=0, width=5)
    return image


def folders(
    place: Path, shapes: tuple[str, ...] = SHAPES[:3], *, images: int = 2, seed: int = 0
) -> Path:
    """A folder of drawings for each shape."""
    for index, shape in enumerate(shapes):
        (place / shape).mkdir(parents=True, exist_ok=True)
        for n in range(images):
            draw(shape, seed + 100 * index + n).save(place / shape / f"{n}.png")
    return place


def scored(place: RunDir, number: int) -> None:
    """Give a trial the student, table and scores of a model whose cheaper patterns lose more."""
    home = place.trial(number)
    (home / "student").mkdir(exist_ok=True)
    student().save(home / "student")
    patterns = [f"{bits:03b}" for bits in range(1, 8)]
    noise = torch.Generator().manual_seed(number)
    accuracies, rows = {}, []
    for pattern in patterns:
        updated = pattern.count("1")
        for step in (1, 2):
            mean = 0.5 + 0.04 * updated + 0.02 * step
            scores = mean + 0.01 * torch.rand(TASKS, generator=noise)
            accuracies[pattern, step] = scores
            rows.append({"pattern": pattern, "step": step, "accuracy": float(scores.mean()),
                         "adapt_ms": float(updated * step), "tasks": TASKS})  # fmt: skip
    times = {p: tuple(float(p.count("1") * t) for t in (0, 1, 2)) for p in patterns}
    timings = {p: Timed(ms, ms, 0.0, 0.0) for p, ms in times.items()}
    mib = dict.fromkeys(patterns, 0.1)
    Scores("111", 2, 0.1, TASKS, {0.1: accuracies}, timings, mib).save(home)
    (home / "table.json").write_text(json.dumps(rows))
