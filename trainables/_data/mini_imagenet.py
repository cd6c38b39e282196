"""mini-ImageNet: 100 classes x 600 photographs, split 64 / 16 / 20 (Ravi and Larochelle 2017).

Read from train.csv, val.csv and test.csv (``filename,label``) beside the images, which lie in one
folder ``images/`` or in a folder for each class; unpacked, or in a zip archive.
"""

from collections.abc import Mapping
from pathlib import Path

from trainables._data._archive import Tree, identity_of, open_tree, read_text
from trainables._data._builder import Builder, Tally
from trainables._data._classes import ClassFiles, decode_classes, sort_out
from trainables._data._source import Plan, Request, Source, first_existing
from trainables._data._splits import FILE_NAMES, checked_split, csv_rows
from trainables._data.dataset import DataError

PLACES = tuple(
    name + end
    for name in ("mini-imagenet", "mini_imagenet", "miniimagenet", "miniImagenet", "miniImageNet")
    for end in (".zip", "")
)
COLUMNS = ("filename", "label")
HOW = (
    "mini-ImageNet has no official download: its photographs are ImageNet's, whose terms each "
    "user accepts at https://image-net.org. Put the usual archive or folder (images/*.jpg or a "
    "folder for each class, with train.csv, val.csv and test.csv of Ravi and Larochelle) at {}."
)


def _plan(request: Request) -> Plan:
    path = _archive(request.folder)
    given = request.split
    if given is not None and not given.is_dir():
        raise DataError(
            f"A split of mini-imagenet is a folder with train.csv, val.csv and test.csv; {given} "
            "is none."
        )
    identity = identity_of(path) + ("" if given is None else identity_of(given))

    def build(builder: Builder) -> None:
        builder.split_from = "split by csv" if given is None else "split given"
        tree = open_tree(path)
        lists = tree if given is None else open_tree(given)
        try:
            decode_classes(builder, _classes(tree, lists, builder.tally))
        finally:
            tree.close()
            lists.close()

    return Plan(identity, f"{path}", build)


def _archive(root: Path) -> Path:
    if (root / "train.csv").is_file():
        return root
    path = first_existing(root, PLACES)
    if path is None:
        place = root / "mini-imagenet"
        raise DataError(
            f"mini-ImageNet needs {place} (or {place.name}.zip), and it is not there. "
            + HOW.format(place)
        )
    return path


def _classes(tree: Tree, lists: Tree, tally: Tally) -> dict[str, list[ClassFiles]]:
    """Train, validation, test -> classes, as the lists say."""
    rows = {split: _rows(lists, split) for split in FILE_NAMES}
    splits = checked_split({s: [label for _, label in rows[s]] for s in rows}, lists.path)
    images = sort_out(tree, tally, ignore=(".csv",))
    by_path = _endings(images)
    found: dict[str, list[ClassFiles]] = {}
    for split, labels in splits.items():
        files: dict[str, list[str]] = {label: [] for label in labels}
        for name, label in rows[split]:
            file = by_path.get(f"{label}/{name}") or by_path.get(name)
            if file is None:
                tally.skip(f"listed in {split}'s csv, but not there", name)
            else:
                files[label].append(file)
        found[split] = [
            ClassFiles(label, tree, tuple(sorted(set(some)))) for label, some in files.items()
        ]
        empty = next((c.name for c in found[split] if not c.files), None)
        if empty is not None:
            raise DataError(
                f"{tree.path} holds none of the images listed for class {empty} ({split}): "
                f"expected images/<filename> or {empty}/<filename>, such as "
                f"{next(name for name, label in rows[split] if label == empty)}; found "
                f"{tree.sample()}."
            )
    return found


def _rows(lists: Tree, split: str) -> list[tuple[str, str]]:
    """Filename and label of each listed image."""
    names = tuple(f"{word}.csv" for word in FILE_NAMES[split])
    file = next((f for f in lists.files if f.split("/")[-1] in names), None)
    if file is None:
        raise DataError(
            f"mini-ImageNet needs train.csv, val.csv and test.csv; {names[0]} is not in "
            f"{lists.path}, which holds {lists.sample()}."
        )
    rows = csv_rows(read_text(lists, file), f"{file} in {lists.path}", COLUMNS)
    return [(row["filename"].replace("\\", "/"), row["label"]) for row in rows]


def _endings(files: tuple[str, ...]) -> Mapping[str, str]:
    """Each file by its name and by its last two path components."""
    known: dict[str, str] = {}
    for file in files:
        parts = file.split("/")
        for depth in (1, 2, 3):
            known.setdefault("/".join(parts[-depth:]), file)
    return known


def _fetch(root: Path) -> None:
    tree = open_tree(_archive(root))
    try:
        _classes(tree, tree, Tally())
    finally:
        tree.close()


SOURCE = Source(
    name="mini-imagenet",
    about="100 classes x 600 photographs, split 64 / 16 / 20 by csv lists",
    expects=("mini-imagenet/images/*.jpg", "mini-imagenet/{train,val,test}.csv"),
    address="https://image-net.org",
    size=84,
    channels=3,
    seeded=False,
    plan=_plan,
    fetch=_fetch,
)
