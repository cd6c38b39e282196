"""CIFAR-FS: 100 classes of CIFAR-100, split 64 / 16 / 20 (Bertinetto et al. 2019).

Read in the author's archive: ``data/<class>/*.png`` and ``splits/bertinetto/{train,val,test}.txt``
below one folder whose name has varied.
"""

from pathlib import Path

from trainables._data._archive import Tree, identity_of, open_tree, read_text
from trainables._data._builder import Builder, Tally
from trainables._data._classes import ClassFiles, decode_classes, pick, sort_out
from trainables._data._source import Plan, Request, Source, first_existing
from trainables._data._splits import FILE_NAMES, Splits, checked_split, lines, read_split
from trainables._data.dataset import DataError

PLACES = ("cifar-fs.zip", "cifar_fs.zip", "cifar-fs", "cifar_fs", "cifar100.zip", "cifar100")
SPLIT_FOLDER = "splits/bertinetto"
ADDRESS = "https://drive.google.com/file/d/1pTsCCMDj45kzFYgrnO67BWVbKs48Q3NI/view"


def _plan(request: Request) -> Plan:
    path = _archive(request.folder)
    given = None if request.split is None else read_split(request.split)
    identity = identity_of(path) + ("" if given is None else repr(sorted(given.items())))

    def build(builder: Builder) -> None:
        builder.split_from = "split given" if given else "split of Bertinetto et al."
        tree = open_tree(path)
        try:
            classes, splits = _read_tree(tree, builder.tally)
            decode_classes(builder, pick(classes, given or splits, path))
        finally:
            tree.close()

    return Plan(identity, f"{path}", build)


def _archive(root: Path) -> Path:
    path = first_existing(root, PLACES)
    if path is None:
        raise DataError(
            f"CIFAR-FS needs cifar-fs.zip (or the unpacked folder cifar-fs) in {root}, and it is "
            f"not there. Its author keeps it on Google Drive, where only a browser gets it: "
            f"download it from {ADDRESS} and put it at {root / 'cifar-fs.zip'}."
        )
    return path


def _read_tree(tree: Tree, tally: Tally) -> tuple[dict[str, ClassFiles], Splits]:
    lists = f"{SPLIT_FOLDER}/train.txt"
    train = next((f for f in tree.files if f == lists or f.endswith("/" + lists)), None)
    prefix = "" if train is None else train.removesuffix(lists)
    images: dict[str, list[str]] = {}
    for file in sort_out(tree, tally, ignore=prefix + "splits/"):
        parts = file.removeprefix(prefix).split("/")
        if file.startswith(prefix) and len(parts) == 3 and parts[0] == "data":
            images.setdefault(parts[1], []).append(file)
    if train is None or not images:
        raise DataError(
            f"{tree.path} is not CIFAR-FS: expected cifar-fs/data/<class>/*.png and "
            f"cifar-fs/{SPLIT_FOLDER}/train.txt, found {tree.sample()}."
        )
    classes = {name: ClassFiles(name, tree, tuple(files)) for name, files in images.items()}
    return classes, _splits(tree, prefix)


def _splits(tree: Tree, prefix: str) -> Splits:
    found: dict[str, list[str]] = {}
    for split, words in FILE_NAMES.items():
        file = f"{prefix}{SPLIT_FOLDER}/{words[0]}.txt"
        if file not in tree.files:
            raise DataError(f"CIFAR-FS needs the list {file} in {tree.path}; it is not there.")
        found[split] = lines(read_text(tree, file))
    return checked_split(found, f"{prefix}{SPLIT_FOLDER} in {tree.path}")


def _fetch(root: Path) -> None:
    tree = open_tree(_archive(root))
    try:
        _read_tree(tree, Tally())
    finally:
        tree.close()


SOURCE = Source(
    name="cifar-fs",
    about="100 classes of small colour photographs, split 64 / 16 / 20",
    expects=("cifar-fs.zip",),
    address=ADDRESS,
    size=32,
    channels=3,
    seeded=False,
    plan=_plan,
    fetch=_fetch,
)
