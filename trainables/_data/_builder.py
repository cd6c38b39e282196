"""Decoded classes go in one by one; arrays on disk, statistics and a fingerprint come out."""

import hashlib
import json
import time
from collections import Counter
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables._data.dataset import SPLITS, Bytes, DataError, LoadReport

EXAMPLES = 3  # files named for each reason in a report
COMMON_SIZES = 5  # original sizes named in a report
LEAST_STD = 1e-3  # a channel without contrast must not divide by zero (our default)


class Tally:
    """Counts with reasons, and a few examples of each."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.converted: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.decoded = 0

    def skip(self, reason: str, example: str) -> None:
        """A file was left out."""
        self.skipped[reason] += 1
        self._note(reason, example)

    def convert(self, reason: str, example: str) -> None:
        """An image was changed between grey and colour."""
        self.converted[reason] += 1
        self._note(reason, example)

    def _note(self, reason: str, example: str) -> None:
        some = self.examples.setdefault(reason, [])
        if len(some) < EXAMPLES:
            some.append(example)


class ArrayWriter:
    """A .npy file [n, C, H, W] whose n is known only when all images are in it."""

    def __init__(self, path: Path, row_shape: tuple[int, int, int]) -> None:
        self.rows = 0
        self._row_shape = row_shape
        self._file = path.open("wb")
        self._header_bytes = self._write_header(self._file)

    def _write_header(self, file: BufferedWriter) -> int:
        # numpy pads the header so that the first axis can grow without moving the data
        np.lib.format.write_array_header_1_0(
            file,
            {"shape": (self.rows, *self._row_shape), "fortran_order": False, "descr": "|u1"},
        )
        return file.tell()

    def append(self, block: Bytes) -> None:
        """Add images [n, C, H, W]."""
        self._file.write(np.ascontiguousarray(block).data)
        self.rows += len(block)

    def close(self) -> None:
        """Write the final length and let go of the file."""
        with self._file as file:
            file.seek(0)
            if self._write_header(file) != self._header_bytes:
                raise AssertionError("the header of a .npy file changed its length")


class Builder:
    """Collects one dataset in a folder.

    Args:
        folder: an empty folder of its own; arrays are written there as they come.
        source: name of the source.
        size: side of the square images, pixels.
        channels: 1, 3, or None until the source has looked at its images.
    """

    def __init__(self, folder: Path, source: str, size: int, channels: int | None) -> None:
        self.source = source
        self.size = size
        self.channels = channels
        self.split_from = "its own split"
        self.tally = Tally()
        self._folder = folder
        self._begun = time.perf_counter()
        self._names: dict[str, list[str]] = {split: [] for split in SPLITS}
        self._groups: dict[str, list[int]] = {split: [] for split in SPLITS}
        self._starts: dict[str, list[int]] = {split: [0] for split in SPLITS}
        self._digests = {str(split): hashlib.sha256() for split in SPLITS}
        self._writers: dict[str, ArrayWriter] = {}
        self._histogram: npt.NDArray[np.int64] | None = None

    def add(self, split: str, name: str, group: int, images: Bytes) -> None:
        """Add one class, uint8 [n, C, H, W]."""
        if not len(images):
            raise DataError(f"Class {name} of {self.source} has no image.")
        shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        if split not in self._writers:
            self._writers[split] = ArrayWriter(self._folder / f"{split}.npy", shape)
        block = np.ascontiguousarray(images, dtype=np.uint8)
        writer = self._writers[split]
        writer.append(block)
        self._digests[split].update(block.data)
        self._names[split].append(name)
        self._groups[split].append(group)
        self._starts[split].append(writer.rows)
        if split == "train":
            self._count_levels(block)

    def _count_levels(self, block: Bytes) -> None:
        """Grey levels per channel, [C, 256]: exact integers, so mean and std have no rounding."""
        levels = np.stack(
            [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(block, 1, 0)]
        )
        self._histogram = levels if self._histogram is None else self._histogram + levels

    def close(self) -> None:
        """Let go of the files; safe to call twice."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def finish(self) -> dict[str, Any]:
        """Close the arrays and describe them in plain types.

        Raises:
            DataError: a split has no class.
        """
        empty = [split for split in SPLITS if not self._names[split]]
        if empty:
            raise DataError(
                f"{self.source} needs classes in train, validation and test; "
                f"{' and '.join(empty)} got none."
            )
        self.close()
        mean, std = self._statistics()
        splits = {
            split: {
                "names": self._names[split],
                "groups": self._groups[split],
                "starts": self._starts[split],
                "pixels": self._digests[split].hexdigest(),
            }
            for split in SPLITS
        }
        canonical = json.dumps([self.source, self.size, self.channels, splits], sort_keys=True)
        return {
            "name": self.source,
            "splits": splits,
            "mean": mean,
            "std": std,
            "fingerprint": hashlib.sha256(canonical.encode()).hexdigest(),
            "report": self._report().to_json(),
        }

    def _statistics(self) -> tuple[list[float], list[float]]:
        if self._histogram is None:
            raise AssertionError("no training image was counted")
        levels = np.arange(256) / 255.0
        weights = self._histogram / self._histogram.sum(axis=1, keepdims=True)
        mean = weights @ levels
        variance = weights @ levels**2 - mean**2
        std = np.sqrt(np.maximum(variance, LEAST_STD**2))
        return [float(m) for m in mean], [float(s) for s in std]

    def _report(self) -> LoadReport:
        tally = self.tally
        return LoadReport(
            source=self.source,
            origin="",
            split_from=self.split_from,
            size=self.size,
            channels=self.channels or 0,
            classes={split: len(self._names[split]) for split in SPLITS},
            images={split: self._starts[split][-1] for split in SPLITS},
            decoded=tally.decoded,
            skipped=dict(tally.skipped),
            converted=dict(tally.converted),
            original_sizes=dict(tally.sizes.most_common(COMMON_SIZES)),
            distinct_sizes=len(tally.sizes),
            examples={reason: tuple(some) for reason, some in tally.examples.items()},
            build_s=time.perf_counter() - self._begun,
        )
