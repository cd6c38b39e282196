"""From a finished sweep to predictions on a folder of pictures, in three commands of their own.

    python -m benchmarks.take_home [--run RUN] [--rounds 3]

``fewtune results RUN --front``, ``fewtune export RUN --pick knee``, ``fewtune adapt BUNDLE`` with a
sheet of the predictions, each as a user starts it: a process of its own, from its start to its end.
Without ``--run`` the sweep is the quickstart, run first and not timed. The pictures are drawn,
``SIDE`` px a side as of a camera that was set small, five classes of five known and five new ones.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.record import Row, save

COMMAND_S, ADAPT_S = 30.0, 10.0
SIDE, EACH = 1200, 5
SHAPES = ("bar", "cross", "disc", "ring", "square")


def draw(shape: str, file: Path, turn: int) -> None:
    """One picture of a shape, a little elsewhere at each turn."""
    image = Image.new("RGB", (SIDE, SIDE), (230, 226, 210))
    pen, ink = ImageDraw.Draw(image), (40, 40, 70)
    x, y, wide = 200 + 40 * turn, 240 - 30 * turn, 60
    box = (x, y, x + 640, y + 640)
    if shape == "bar":
        pen.line((x, y + 320, x + 640, y + 320), fill=ink, width=wide)
    elif shape == "cross":
        pen.line((x, y, x + 640, y + 640), fill=ink, width=wide)
        pen.line((x + 640, y, x, y + 640), fill=ink, width=wide)
    elif shape == "square":
        pen.rectangle(box, outline=ink, width=wide)
    else:
        pen.ellipse(box, outline=ink, width=wide, fill=ink if shape == "disc" else None)
    image.save(file, quality=90)


def photos(folder: Path) -> tuple[Path, Path]:
    """A folder of labelled pictures, one for each class in it, and a folder of others."""
    known, new = folder / "known", folder / "new"
    new.mkdir(parents=True)
    for shape in SHAPES:
        (known / shape).mkdir(parents=True)
        for turn in range(EACH):
            draw(shape, known / shape / f"{turn}.jpg", turn)
            draw(shape, new / f"{shape}-{turn}.jpg", turn + EACH)
    return known, new


def fewtune(*words: str | Path) -> float:
    """Seconds of one command, which must end well."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "search.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"fewtune {words[0]} failed: {done.stderr or done.stdout}")
    return time.perf_counter() - began


def main() -> None:
    """Sweeps if need be, then times the three commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="a finished run; the quickstart if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="take_home")
    args = parser.parse_args()
    times: dict[str, list[float]] = {"results": [], "export": [], "adapt": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        known, new = photos(folder / "photos")
        run = args.run or folder / "run"
        if args.run is None:
            print(f"sweep: {fewtune('sweep', '--name', 'run', '--storage', folder):.0f} s")
        for turn in range(args.rounds):
            student, sheet = folder / f"student{turn}", folder / f"seen{turn}.png"
            times["results"].append(fewtune("results", run, "--front"))
            times["export"].append(fewtune("export", run, "--pick", "knee", "-o", student))
            asked = ("--support", known, "--query", new, "--sheet", sheet)
            times["adapt"].append(fewtune("adapt", student, *asked))
    rows = [
        Row(
            name, statistics.median(found), "s", "lower",
            ADAPT_S if name == "adapt" else COMMAND_S,
            detail=f"median of {len(found)}, longest {max(found):.1f} s",
        )
        for name, found in times.items()
    ]  # fmt: skip
    save(args.name, rows, settings={"rounds": args.rounds, "side": SIDE, "each": EACH})


if __name__ == "__main__":
    main()
