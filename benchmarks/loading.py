"""A source read for the first time, against a loop of Pillow on the same archives; and once more.

    FEWTUNE_DATA=... python -m benchmarks.loading

The first load decodes every image and keeps the result; later ones map that file. The loop opens
each image with Pillow, makes it grey or coloured as the source is, and resizes it to the same size.
The embedded alphabet is drawn and has no peer.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import zipfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.record import Row, save
from benchmarks.timing import Contender, in_turns, ratio
from trainables._data import load

ARCHIVES = {
    "glyphs": (),
    "omniglot": ("images_background.zip", "images_evaluation.zip"),
    "cifar-fs": ("cifar-fs.zip",),
}
SIZES = {"omniglot": (28, "L"), "cifar-fs": (32, "RGB")}
FIRST_S = {"glyphs": 10.0, "omniglot": 30.0}  # our marks, seconds of wall time
AGAIN_S = 0.2


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(ARCHIVES), help="sources, commas between")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def by_hand(source: str) -> int:
    """Every image of the archives, one after the other; the number of them."""
    (size, mode), images = SIZES[source], []
    for name in ARCHIVES[source]:
        with zipfile.ZipFile(Path(os.environ["FEWTUNE_DATA"]) / name) as archive:
            for entry in archive.namelist():
                if entry.endswith(".png"):
                    image = Image.open(io.BytesIO(archive.read(entry))).convert(mode)
                    images.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
    return len(np.stack(images))


def first(source: str) -> None:
    """Into an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        load(source, cache=Path(cache))


def rows_of(source: str, rounds: int) -> list[Row]:
    """Seconds of the first load and of a later one, and how much slower the loop is."""
    with tempfile.TemporaryDirectory() as cache:
        report = load(source, cache=Path(cache)).report
        peers = [Contender("loop", lambda: by_hand(source))] if ARCHIVES[source] else []
        times = in_turns(
            [
                Contender("first", lambda: first(source)),
                Contender("again", lambda: load(source, cache=Path(cache))),
                *peers,
            ],
            rounds=rounds,
        )
    said = f"{report.decoded} images" if report.decoded else "drawn"
    mark = FIRST_S.get(source)
    rows = [
        Row(f"{source}_first", median(times["first"]), "s", "lower", mark, None, said),
        Row(
            f"{source}_again", median(times["again"]), "s", "lower", AGAIN_S, None, "from its cache"
        ),
    ]
    if peers:
        found = ratio(times, "loop", "first")
        rows.append(
            Row(f"{source}_first_speedup", found.value, "x", "higher", 1.0, "Pillow", found.spread)
        )
    return rows


def main() -> None:
    """Times and saves."""
    args = arguments()
    rows = [row for source in args.data.split(",") for row in rows_of(source, args.rounds)]
    save("loading", rows, settings=vars(args))


if __name__ == "__main__":
    main()
