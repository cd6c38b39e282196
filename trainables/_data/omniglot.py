"""Omniglot: 1623 characters of 50 alphabets, 20 drawings each (Lake et al. 2015).

Read in the author's two archives; split by character as in Vinyals et al. 2016 (1028, 172 and
423), where each character turned by 90, 180 and 270 degrees counts as a class of its own.
"""

import re
from functools import partial
from pathlib import Path

from trainables._data._archive import Tree, identity_of, open_tree
from trainables._data._builder import Builder, Tally
from trainables._data._classes import ClassFiles, decode_classes, kind_of, pick, sort_out
from trainables._data._download import download, download_text
from trainables._data._source import Plan, Request, Source, first_existing
from trainables._data._splits import Splits, read_split
from trainables._data.dataset import SPLITS, DataError

ARCHIVES = {"images_background": 964, "images_evaluation": 659}  # characters in each
DRAWINGS = 20
ADDRESS = "https://github.com/brendenlake/omniglot/raw/master/python/"
SPLIT_ADDRESS = (
    "https://raw.githubusercontent.com/jakesnell/prototypical-networks/master/"
    "data/omniglot/splits/vinyals/"
)
SPLIT_FOLDER = "splits/omniglot-vinyals"
PLACES = ("", "omniglot/", "omniglot-py/")  # also where other programs have put the archives
ROTATION = re.compile(r"/rot(000|090|180|270)$")  # lists that name the rotations one by one


def _plan(request: Request) -> Plan:
    root = request.folder
    paths = [_archive(root, name) for name in ARCHIVES]
    split_path = request.split or _split_folder(root)
    splits = _characters(read_split(split_path))
    identity = "\n".join([*map(identity_of, paths), repr(sorted(splits.items()))])

    def build(builder: Builder) -> None:
        builder.split_from = "Vinyals split" if request.split is None else "split given"
        trees = [open_tree(path) for path in paths]
        try:
            classes: dict[str, ClassFiles] = {}
            for tree, name in zip(trees, ARCHIVES, strict=True):
                classes |= _read_tree(tree, name, builder.tally)
            where = f"the archives {' and '.join(p.name for p in paths)} of {root}"
            decode_classes(builder, pick(classes, splits, where), rotations=True)
        finally:
            for tree in trees:
                tree.close()

    return Plan(identity, f"{root}", build)


def _archive(root: Path, name: str) -> Path:
    names = tuple(f"{place}{name}{end}" for end in (".zip", "") for place in PLACES)
    path = first_existing(root, names)
    if path is None:
        raise DataError(
            f"Omniglot needs {name}.zip (or the unpacked folder {name}) in {root}, and it is not "
            f"there: run 'fewtune data prepare omniglot', or download {ADDRESS}{name}.zip into "
            f"{root}."
        )
    return path


def _split_folder(root: Path) -> Path:
    path = first_existing(root, (SPLIT_FOLDER, f"omniglot/{SPLIT_FOLDER}"))
    if path is None:
        raise DataError(
            f"Omniglot needs the Vinyals split: train.txt, val.txt and test.txt, one "
            f"Alphabet/characterNN a line, in {root / SPLIT_FOLDER}. Run 'fewtune data prepare "
            f"omniglot', download them from {SPLIT_ADDRESS}, or name a split of your own."
        )
    return path


def _characters(splits: Splits) -> Splits:
    """The same split without rotations, which are made here."""
    return {
        split: tuple(sorted({ROTATION.sub("", name) for name in splits[split]})) for split in SPLITS
    }


def _read_tree(tree: Tree, name: str, tally: Tally) -> dict[str, ClassFiles]:
    """Alphabet/characterNN -> its drawings."""
    drawings: dict[str, list[str]] = {}
    for file in sort_out(tree, tally):
        parts = file.split("/")
        if len(parts) >= 3 and parts[-2].startswith("character"):
            drawings.setdefault("/".join(parts[-3:-1]), []).append(file)
    if not drawings:
        raise DataError(
            f"{tree.path} is not Omniglot's {name}: expected {name}/Alphabet/characterNN/*.png, "
            f"found {tree.sample()}."
        )
    return {key: ClassFiles(key, tree, tuple(files)) for key, files in sorted(drawings.items())}


def _complete(name: str, path: Path) -> None:
    """Refuse an archive that does not hold all drawings."""
    tree = open_tree(path)
    try:
        images = sum(kind_of(file) is None for file in tree.files)
    finally:
        tree.close()
    if images != ARCHIVES[name] * DRAWINGS:
        raise DataError(
            f"{path} should hold {ARCHIVES[name] * DRAWINGS} drawings and holds {images}: "
            "remove it and run 'fewtune data prepare omniglot' again."
        )


def _fetch(root: Path) -> None:
    for name in ARCHIVES:
        names = tuple(f"{place}{name}{end}" for end in (".zip", "") for place in PLACES)
        path = first_existing(root, names)
        if path is None:
            path = root / f"{name}.zip"
            download(f"{ADDRESS}{name}.zip", path, partial(_complete, name))
        else:
            _complete(name, path)
    if first_existing(root, (SPLIT_FOLDER, f"omniglot/{SPLIT_FOLDER}")) is None:
        download_text(SPLIT_ADDRESS, ("train.txt", "val.txt", "test.txt"), root / SPLIT_FOLDER)


SOURCE = Source(
    name="omniglot",
    about="1623 handwritten characters x 20 drawings, Vinyals split, rotations as classes",
    expects=(
        "images_background.zip",
        "images_evaluation.zip",
        SPLIT_FOLDER + "/{train,val,test}.txt",
    ),
    address="https://github.com/brendenlake/omniglot",
    size=28,
    channels=1,
    seeded=False,
    plan=_plan,
    fetch=_fetch,
)
