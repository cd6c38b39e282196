"""Classes as lists of files -> decoded into a builder."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from trainables._data._archive import Tree
from trainables._data._builder import Builder, Tally
from trainables._data._decode import (
    SUFFIXES,
    Decoded,
    ImageProblemError,
    decode,
    probe_channels,
    quiet_pillow,
)
from trainables._data._splits import Splits
from trainables._data.dataset import SPLITS, Bytes, DataError

NOT_AN_IMAGE = "not an image"
HEIC = "HEIC photo, which Pillow cannot read: convert it to JPEG"
HIDDEN = "hidden file or folder"
PROBED = 500  # images looked at to decide between grey and colour
THREADS = 4
LARGE = 2**16  # bytes of a file, from which on threads decode more than they wait: our default


@dataclass(frozen=True)
class ClassFiles:
    """One class before decoding: its name, and its images by path in a tree."""

    name: str
    tree: Tree
    files: tuple[str, ...]


def kind_of(file: str) -> str | None:
    """Why a file is no image by its name, or None where it is one."""
    path = PurePosixPath(file)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return HIDDEN
    if path.suffix.lower() in (".heic", ".heif"):
        return HEIC
    return None if path.suffix.lower() in SUFFIXES else NOT_AN_IMAGE


def sort_out(tree: Tree, tally: Tally, ignore: str | tuple[str, ...] = ()) -> tuple[str, ...]:
    """The image files of a tree; the others are counted, except what is to be ignored.

    Args:
        tree: where they lie.
        tally: counts what is left out.
        ignore: beginnings or endings of files that belong there and are no images.
    """
    marks = (ignore,) if isinstance(ignore, str) else ignore
    for reason, file in tree.skips:
        tally.skip(reason, file)
    images: list[str] = []
    for file in tree.files:
        unfit = kind_of(file)
        if unfit is None:
            images.append(file)
        elif not (file.startswith(marks) or file.endswith(marks)):
            tally.skip(unfit, file)
    return tuple(images)


def decode_classes(
    builder: Builder, splits: Mapping[str, Iterable[ClassFiles]], *, rotations: bool = False
) -> None:
    """Decode the classes of each split, in order, into a builder.

    Args:
        builder: where they go.
        splits: train, validation, test -> classes.
        rotations: each class also turned by 90, 180 and 270 degrees, as classes of one group.

    Raises:
        DataError: a class without a readable image.
    """
    listed = {split: list(splits[split]) for split in SPLITS}
    workers = min(THREADS, os.cpu_count() or 1)
    with quiet_pillow(), ThreadPoolExecutor(workers) as pool:
        if builder.channels is None:
            builder.channels = _majority([c for split in SPLITS for c in listed[split]])
        for split in SPLITS:
            for group, one in enumerate(listed[split]):
                images = _decode_class(builder, one, pool)
                for quarter in range(4 if rotations else 1):
                    name = f"{one.name}@{90 * quarter}" if quarter else one.name
                    builder.add(split, name, group, np.rot90(images, quarter, axes=(2, 3)))


def _decode_class(builder: Builder, one: ClassFiles, pool: ThreadPoolExecutor) -> Bytes:
    size, channels = builder.size, builder.channels or 1
    tally = builder.tally

    def read(file: str) -> Decoded | ImageProblemError:
        try:
            return decode(one.tree.read(file), size, channels)
        except ImageProblemError as problem:
            return problem

    pixels: list[Bytes] = []
    lost: Counter[str] = Counter()
    results = pool.map(read, one.files) if _large(one) else map(read, one.files)
    for file, result in zip(one.files, results, strict=True):
        if isinstance(result, ImageProblemError):
            tally.skip(result.reason, file)
            lost[result.reason] += 1
            continue
        pixels.append(result.pixels)
        tally.decoded += 1
        tally.sizes["{}x{}".format(*result.original_size)] += 1
        if result.native_channels != channels:
            tally.convert("grey to colour" if channels == 3 else "colour to grey", file)
    if not pixels:
        raise empty_class(one.name, one.tree.path, lost)
    return np.stack(pixels)


def _large(one: ClassFiles) -> bool:
    """Whether a class's images are photos; drawings take less time than to hand them over."""
    try:
        return bool(one.files) and len(one.tree.read(one.files[0])) > LARGE
    except ImageProblemError:
        return False


def empty_class(name: str, where: Path, lost: Mapping[str, int]) -> DataError:
    """The error for a class without images."""
    why = ", ".join(f"{reason}: {n}" for reason, n in sorted(lost.items()))
    return DataError(
        f"Class {name} in {where} has no readable image"
        + (f" ({why})" if why else "")
        + ". Add images to it, or leave the class out."
    )


def _majority(classes: list[ClassFiles]) -> int:
    """1 where most images are grey, else 3; from the headers of images spread over all of them."""
    images = [(c.tree, file) for c in classes for file in c.files]
    step = max(1, len(images) // PROBED)
    seen = Counter(_channels(tree, file) for tree, file in images[::step])
    return 1 if seen[1] > seen[3] else 3


def _channels(tree: Tree, file: str) -> int | None:
    try:
        return probe_channels(tree.read(file))
    except ImageProblemError:
        return None


def pick(
    classes: Mapping[str, ClassFiles], splits: Splits, where: Path | str
) -> dict[str, list[ClassFiles]]:
    """The classes a split names.

    Raises:
        DataError: the split names classes that are not there.
    """
    missing = [name for part in SPLITS for name in splits[part] if name not in classes]
    if missing:
        some = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
        known = ", ".join(list(classes)[:3])
        raise DataError(
            f"Classes that the split names are not in {where} ({len(missing)}: {some}); it holds "
            f"{len(classes)}, such as {known}."
        )
    return {part: [classes[name] for name in splits[part]] for part in SPLITS}
