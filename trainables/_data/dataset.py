"""What every image source becomes: class-indexed uint8 arrays with a report of how they came to be.

Shapes: images are [n, C, H, W] with H = W = the dataset's size; class c of an image set owns
rows ``starts[c]`` to ``starts[c + 1]``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

Bytes = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]


class DataError(ValueError):
    """The data cannot be used as asked; the message is a finished sentence for the user."""

    kind = "bad data"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The classes of one split.

    Attributes:
        images: uint8 [n, C, H, W], the images of one class side by side; read-only.
        starts: int64 [classes + 1]; class c owns ``images[starts[c]:starts[c + 1]]``.
        groups: int64 [classes]; classes of one group (a character and its rotations) are
            variants of each other and never meet in one episode.
        names: one name for each class.
    """

    images: Bytes
    starts: Index
    groups: Index
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def counts(self) -> Index:
        """Images of each class, int64 [classes]."""
        return np.diff(self.starts)

    @property
    def distinct_groups(self) -> int:
        """How many classes an episode can hold at most."""
        return len(np.unique(self.groups))

    def of(self, index: int) -> Bytes:
        """The images of one class, [n, C, H, W]."""
        return self.images[self.starts[index] : self.starts[index + 1]]


@dataclass(frozen=True)
class LoadReport:
    """What was read, skipped and converted, counted.

    Attributes:
        source: name of the source.
        origin: where the images came from, for a reader.
        split_from: who says which class is for training and which for test.
        size: side of the square images, pixels.
        channels: 1 (grey) or 3 (colour).
        classes: classes of each split.
        images: images of each split.
        decoded: images decoded; fewer than ``images`` where rotations are classes too.
        skipped: why files were left out, with how often.
        converted: conversions between grey and colour, with how often.
        original_sizes: "WIDTHxHEIGHT" before resizing, with how often; the most frequent ones.
        distinct_sizes: how many different original sizes there were.
        examples: for each reason of ``skipped`` and ``converted``, a few of the files.
        build_s: seconds it took to decode them, once.
        cached: whether this load found them decoded already.
    """

    source: str
    origin: str
    split_from: str
    size: int
    channels: int
    classes: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    decoded: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
    original_sizes: Mapping[str, int] = field(default_factory=dict)
    distinct_sizes: int = 0
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    build_s: float = 0.0
    cached: bool = False

    def lines(self) -> list[str]:
        """The report for a reader, one statement a line."""
        shape = f"{self.size} x {self.size}, {'grey' if self.channels == 1 else 'colour'}"
        splits = "; ".join(
            f"{name} {self.classes[name]} classes, {self.images[name]} images"
            for name in self.classes
        )
        read = "read from the cache" if self.cached else f"decoded in {self.build_s:.1f} s"
        lines = [f"{self.source} from {self.origin}: {shape}, {read}"]
        lines.append(f"{self.split_from}: {splits}")
        if self.distinct_sizes > 1:
            most = ", ".join(f"{size} ({n})" for size, n in self.original_sizes.items())
            lines.append(
                f"mixed sizes: {self.distinct_sizes} different ones, all brought to "
                f"{self.size} x {self.size}; most frequent: {most}"
            )
        for verb, counts in (("converted", self.converted), ("skipped", self.skipped)):
            for reason, n in sorted(counts.items()):
                some = ", ".join(self.examples.get(reason, ()))
                lines.append(f"{verb} {n}: {reason}" + (f" (such as {some})" if some else ""))
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "LoadReport":
        """The inverse of ``to_json``; lists become tuples again."""
        fields = dict(plain)
        fields["examples"] = {key: tuple(value) for key, value in fields["examples"].items()}
        return LoadReport(**fields)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three image sets with disjoint classes, and what is needed to normalise their pixels.

    Attributes:
        name: name of the source.
        train: meta-training classes.
        validation: meta-validation classes; every selection looks here.
        test: classes touched once, at the end.
        mean: per channel over the training pixels, in [0, 1].
        std: per channel over the training pixels, in [0, 1]; never below 1e-3.
        fingerprint: sha256 over pixels, class names and split.
        report: what was read, skipped and converted.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    report: LoadReport

    @property
    def size(self) -> int:
        """Side of the square images, pixels."""
        return int(self.train.images.shape[-1])

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return int(self.train.images.shape[1])

    def split(self, name: str) -> ImageSet:
        """The image set called train, validation or test."""
        sets = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in sets:
            raise DataError(f"A dataset has the splits {', '.join(SPLITS)}; there is no '{name}'.")
        return sets[name]


def check_shape(dataset: Dataset, ways: int, shots: int, queries: int) -> None:
    """Refuse tasks that the classes of a dataset cannot fill.

    Raises:
        DataError: too few classes for the ways, or too few images for shots and queries.
    """
    for word, value, least in (("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1)):
        if value < least:
            raise DataError(f"A task needs {word} of at least {least}; {word} is {value}.")
    task = f"{ways}-way {shots}-shot with {queries} queries"
    need = shots + queries
    for split in SPLITS:
        images = dataset.split(split)
        if images.distinct_groups < ways:
            kind = "unrelated classes" if images.distinct_groups < len(images) else "classes"
            raise DataError(
                f"{task} needs {ways} {kind} in each split; the {split} split of {dataset.name} "
                f"has {images.distinct_groups}. Lower the ways, add classes or give another split."
            )
        short = np.flatnonzero(images.counts < need)
        if len(short):
            worst = int(short[np.argmin(images.counts[short])])
            more = f", and {len(short) - 1} more have too few" if len(short) > 1 else ""
            raise DataError(
                f"{task} needs {need} images in each class; class {images.names[worst]} has "
                f"{images.counts[worst]} ({split} split of {dataset.name}{more}). Lower shots or "
                "queries, add images, or leave such classes out of the split."
            )
