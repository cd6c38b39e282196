"""The user's folders of images, read as a student needs them.

The support folder has one folder of images for each class. The query folder is either the same,
and then the predictions are scored, or holds images alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from search.errors import UserError, suggest
from search.outlets import echo
from trainables._data import decode_image, read_class_folders
from trainables._data._archive import FolderTree
from trainables._data._builder import Tally
from trainables._data._classes import HIDDEN, sort_out
from trainables._data._decode import ImageProblemError
from trainables._data.dataset import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from trainables._core.student import StudentSpec


@dataclass(frozen=True)
class Images:
    """Decoded images: uint8 ``[M, C, size, size]``, a file name and a class (or none) each."""

    pixels: torch.Tensor
    files: tuple[str, ...]
    labels: tuple[str, ...]


def check_ways(spec: StudentSpec, ways: int, found: str) -> None:
    """Hold a number of classes against what a student's head takes.

    Args:
        spec: The student's.
        ways: The number of classes.
        found: Who has so many, for the sentence: "the labels have".

    Raises:
        UserError: It is a linear head, trained for another number.
    """
    if spec.head == "linear" and ways != spec.ways:
        raise UserError(
            f"This student's linear head was trained for {spec.ways} classes, and {found} "
            f"{ways}. Give it {spec.ways} classes, or export a student whose head fits any "
            "number (student.head: prototype or shared)."
        )


def support_images(folder: Path, spec: StudentSpec) -> Images:
    """Read the labelled images, a folder for each class.

    Raises:
        UserError: There are fewer than 2 classes, a class has no image left, or the student's head
            takes another number of classes.
        DataError: The folder is missing, holds no class, or one without images.
    """
    labelled = _labelled(folder)
    classes = tuple(dict.fromkeys(name for _, name in labelled))
    if len(classes) < 2:
        raise UserError(
            f"The student tells classes apart, so it needs at least 2; {folder} has 1 "
            f"({classes[0]}). Put a folder of images there for each class."
        )
    check_ways(spec, len(classes), f"{folder} has")
    found = _decoded(folder, labelled, spec)
    for name in classes:
        if name not in found.labels:
            raise UserError(
                f"Class {name} in {folder} has no readable image left. Add images to it, or leave "
                "the class out."
            )
    return found


def query_images(folder: Path, spec: StudentSpec, names: tuple[str, ...]) -> Images:
    """Read the images to classify.

    Args:
        folder: Class folders with names from ``names``, which are scored, or images alone.
        spec: Of the student that is to classify them.
        names: Its classes.

    Raises:
        UserError: The folder does not fit the student or the support images.
        DataError: It is missing or holds no images.
    """
    found = _decoded(folder, _to_classify(folder, names), spec)
    if not found.files:
        raise DataError(f"None of the images in {folder} can be read.")
    transductive = spec.normalisation == "transductive" and spec.norm == "batch"
    if transductive and len(found.files) == 1:
        raise UserError(
            "This student is transductive: it normalises query images with the statistics of all "
            f"of them, and those of 1 image ({found.files[0]}) mean nothing. Give it several query "
            "images at once, or export a student with normalisation: inductive."
        )
    return found


def _to_classify(folder: Path, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the query images with their classes, an empty one where they have none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with the images to classify.")
    images = sort_out(FolderTree(folder), Tally())
    flat = [file for file in images if "/" not in file]
    if not images:
        raise DataError(f"{folder} holds no image that can be read, such as a PNG or JPEG file.")
    if len(flat) == len(images):
        return [(file, "") for file in flat]
    if flat:
        raise UserError(
            f"{folder} holds both images (such as {flat[0]}) and folders of images. Query images "
            "are either all in class folders, which are scored, or all in the folder itself."
        )
    labelled = _labelled(folder)
    for _, name in labelled:
        if name not in names:
            raise UserError(
                f"{folder} has images of the class {name}, which the support images do not have. "
                f"{suggest(name, names)} Images without labels go straight into {folder}."
            )
    return labelled


def _labelled(folder: Path) -> list[tuple[str, str]]:
    """Return the images of class folders, relative to the folder, each with its class."""
    return [
        (file.relative_to(folder).as_posix(), name)
        for name, files in read_class_folders(folder)
        for file in files
    ]


def _decoded(folder: Path, wanted: list[tuple[str, str]], spec: StudentSpec) -> Images:
    """Decode images as the bundle says; what cannot be used is counted and named."""
    tree, tally = FolderTree(folder), Tally()
    images, listed = sort_out(tree, tally), {file for file, _ in wanted}
    for file in images:
        if file not in listed:
            tally.skip("image outside a class folder", file)
    pixels, files, labels = [], [], []
    for file, label in wanted:
        try:
            pixels.append(decode_image(tree.read(file), spec.size, spec.channels))
        except (ImageProblemError, DataError) as error:
            cause = error if isinstance(error, ImageProblemError) else error.__cause__
            tally.skip(getattr(cause, "reason", str(error)), file)
            continue
        files.append(_readable(file))
        labels += [_readable(label)] if label else []
    for reason, count in sorted(tally.skipped.items()):
        if reason != HIDDEN:
            some = ", ".join(map(_readable, tally.examples[reason]))
            more = ", ..." * (count > 3)
            line = f"{folder}: skipped {count}: {reason} ({some}{more})"
            echo(_readable(line), to_stderr=True)
    shape = (0, spec.channels, spec.size, spec.size)
    stacked = np.stack(pixels) if pixels else np.empty(shape, np.uint8)
    return Images(torch.from_numpy(stacked), tuple(files), tuple(labels))


def _readable(name: str) -> str:
    """Return a file name that can be printed, whatever bytes it has on disk."""
    return os.fsencode(name).decode("utf-8", "replace")
