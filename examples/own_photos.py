"""Your own photos in ten minutes: search, take the knee home, adapt it to classes of your own.

    python examples/own_photos.py [--known DIR --new DIR] [--trials 8] [--out DIR]

``--known`` has a folder of images for each class, ``--new`` images to be named. Left out, arrows
and rings are drawn, so that the script runs anywhere. The search is on embedded data; for photos
take ``data.source: cifar-fs`` or ``mini-imagenet``, whose students have seen photos.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from search import api

SMALL = {"budget.iterations": 40, "evaluation.validation_tasks": 20, "evaluation.test_tasks": 20}


def drawings(folder: Path, each: int, shift: int) -> Path:
    """Draw two classes of pictures, a folder each."""
    for name in ("arrow", "ring"):
        (folder / name).mkdir(parents=True)
        for n in range(each):
            image = Image.new("L", (60, 60), 255)
            pen, x = ImageDraw.Draw(image), shift + 2 * n
            if name == "ring":
                pen.ellipse((8 + x, 8, 40 + x, 40), outline=0, width=4)
            else:
                pen.line((8 + x, 50, 40 + x, 10), fill=0, width=4)
                pen.line((40 + x, 10, 24 + x, 12), fill=0, width=4)
            image.save(folder / name / f"{n}.png")
    return folder


def pictures(folder: Path) -> list[Path]:
    """Every file below a folder that could be an image."""
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg"))


def main() -> None:
    """Search, export, adapt, predict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--known", type=Path)
    parser.add_argument("--new", type=Path)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--out", type=Path, help="a new directory for run and bundle")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    known = args.known or drawings(out / "known", each=3, shift=0)
    new = args.new or drawings(out / "new", each=2, shift=7)

    run = api.sweep(None, {**SMALL, "budget.trials": args.trials}, name="photos", storage=out)
    for trial in run.front():
        print(f"trial {trial.number}: accuracy {trial.metrics['accuracy']:.3f}, "
              f"{trial.metrics['student_params']} parameters")  # fmt: skip

    bundle = run.export("knee", out / "my-student")
    support = pictures(known)
    adapted = bundle.adapt(support, [file.parent.name for file in support])
    files = pictures(new)
    for file, said in zip(files, adapted.predict(files), strict=True):
        print(f"{file.relative_to(new)}: {said.label} ({100 * said.confidence:.0f} %)")


if __name__ == "__main__":
    main()
