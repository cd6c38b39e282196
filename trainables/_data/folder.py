"""Your own images: a tree with one folder for each class, split by class.

A class is the topmost folder that directly holds images; what lies below it belongs to it. The
split is, in this order: the one given (see ``read_split``), the folders train, val and test where
the tree has them, or drawn from the seed in the proportions 64 / 16 / 20 of mini-ImageNet, with at
least five classes in each where there are enough (our default: five ways is the usual task).
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables._data._archive import FolderTree, Tree, identity_of, open_tree
from trainables._data._builder import Builder, Tally
from trainables._data._classes import (
    ClassFiles,
    decode_classes,
    empty_class,
    kind_of,
    pick,
    sort_out,
)
from trainables._data._source import Plan, Request, Source
from trainables._data._splits import FILE_NAMES, Splits, checked_split, read_split, split_name
from trainables._data.dataset import SPLITS, DataError

SHARES = (0.64, 0.16, 0.20)
LEAST_CLASSES = 5


def read_class_folders(folder: Path) -> list[tuple[str, list[Path]]]:
    """The classes under a folder, by name, each with its image files, by name.

    Raises:
        DataError: no such folder, no class, or a class without images.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder} is not a folder; expected one with a folder for each class.")
    tree = FolderTree(Path(folder))
    classes = _class_files(tree, Tally(), None)
    return [(one.name, [tree.path / file for file in one.files]) for one in classes.values()]


def _plan(request: Request) -> Plan:
    path = request.folder
    given = None if request.split is None else read_split(request.split)
    identity = identity_of(path) + ("" if given is None else repr(sorted(given.items())))

    def sorted_out(tree: Tree, tally: Tally) -> tuple[str, Mapping[str, Iterable[ClassFiles]]]:
        classes = _class_files(tree, tally, request.split, given)
        if given is None and (folders := _split_by_folders(classes, path)):
            return "split by its folders", folders
        split_from = "split given" if given else f"split drawn from seed {request.seed}"
        splits = given or draw_split(sorted(classes), request.seed)
        return split_from, pick(classes, splits, path)

    def build(builder: Builder) -> None:
        with closing(open_tree(path)) as tree:
            builder.split_from, splits = sorted_out(tree, builder.tally)
            decode_classes(builder, splits)

    def check() -> None:
        with closing(open_tree(path)) as tree:
            sorted_out(tree, Tally())

    return Plan(identity, f"{path}", build, check)


def _class_files(
    tree: Tree, tally: Tally, split: Path | None, given: Splits | None = None
) -> dict[str, ClassFiles]:
    """Class name -> files; with a split given, only the classes it names must have images."""
    images = sort_out(tree, tally)
    holders = {file.rpartition("/")[0] for file in images}
    found: dict[str, list[str]] = {}
    for file in images:
        parts = file.split("/")[:-1]
        tops = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        top = next((folder for folder in tops if folder in holders), None)
        if top is None:
            tally.skip("image outside a class folder", file)
        else:
            found.setdefault(top, []).append(file)
    if given is None:
        _refuse_empty(tree, found, split)
    if not found:
        raise DataError(
            f"{tree.path} holds no class: expected one folder of images for each class, found "
            f"{tree.sample()}."
        )
    prefix = _wrapper(found)
    return {
        name.removeprefix(prefix): ClassFiles(name.removeprefix(prefix), tree, tuple(files))
        for name, files in sorted(found.items())
    }


def _refuse_empty(tree: Tree, found: dict[str, list[str]], split: Path | None) -> None:
    """A folder that neither is in a class nor holds one was meant to be a class."""
    for folder in sorted(tree.folders):
        inside = [name for name in found if _within(folder, name) or _within(name, folder)]
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in folder.split("/"))
        lists = split is not None and split.resolve().is_relative_to(tree.path.resolve() / folder)
        if not inside and not hidden and not lists:
            left_out = [*tree.skips, *((kind_of(file), file) for file in tree.files)]
            lost = Counter(str(reason) for reason, file in left_out if _within(file, folder))
            raise empty_class(folder, tree.path, lost)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer + "/")


def _wrapper(found: dict[str, list[str]]) -> str:
    """The folders that all classes lie in, as archives often have some, with a "/" at the end."""
    parents = [name.split("/")[:-1] for name in found]
    common = os.path.commonprefix(parents)  # noqa: RUF071  of lists: it compares components
    return "".join(f"{part}/" for part in common)


def _split_by_folders(
    classes: dict[str, ClassFiles], where: Path
) -> dict[str, list[ClassFiles]] | None:
    """The classes by the folders train, val and test; None where the tree is not built so.

    Raises:
        DataError: one of the three is missing, or a class is in two of them.
    """
    tops = {name.split("/")[0] for name in classes}
    parts = {split_name(top) for top in tops}
    if None in parts or not all("/" in name for name in classes):
        return None
    if len(parts) < len(SPLITS):
        absent = [words[0] for split, words in FILE_NAMES.items() if split not in parts]
        raise DataError(
            f"{where} is split by folders and has {', '.join(sorted(tops))}; it also needs "
            f"{' and '.join(absent)}, with classes of their own."
        )
    found: dict[str, list[ClassFiles]] = {split: [] for split in SPLITS}
    for one in classes.values():
        top, _, name = one.name.partition("/")
        found[split_name(top) or ""].append(replace(one, name=name))
    checked_split({split: [one.name for one in found[split]] for split in SPLITS}, where)
    return found


def draw_split(names: list[str], seed: int) -> Splits:
    """Classes at random into train, validation and test.

    Raises:
        DataError: fewer than three classes.
    """
    n = len(names)
    if n < len(SPLITS):
        raise DataError(
            f"A split by class needs at least 3 classes, one each for train, validation and test; "
            f"there are {n}."
        )
    least = min(LEAST_CLASSES, n // 3)
    validation = max(least, round(SHARES[1] * n))
    test = max(least, round(SHARES[2] * n))
    order = [names[i] for i in np.random.default_rng(seed).permutation(n)]
    ends = (n - validation - test, n - test)
    return checked_split(
        {
            "train": order[: ends[0]],
            "validation": order[ends[0] : ends[1]],
            "test": order[ends[1] :],
        },
        "drawn from the seed",
    )


def _fetch(root: Path) -> None:
    raise DataError(
        f"There is nothing to download for the source folder: put images of your own into {root}, "
        "one folder for each class."
    )


SOURCE = Source(
    name="folder",
    about="your own images: one folder for each class",
    expects=("<class>/*.{png,jpg,...}",),
    address="",
    size=84,
    channels=None,
    seeded=True,
    plan=_plan,
    fetch=_fetch,
)
