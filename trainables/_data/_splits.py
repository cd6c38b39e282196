"""Which class belongs to train, validation and test, as a person or an archive lists them."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path

from trainables._data.dataset import SPLITS, DataError

Splits = Mapping[str, tuple[str, ...]]  # train, validation, test -> class names

FILE_NAMES = {
    "train": ("train",),
    "validation": ("val", "validation", "valid"),
    "test": ("test",),
}


def split_name(word: str) -> str | None:
    """Train, validation or test for the words that mean one of them."""
    return next((split for split, words in FILE_NAMES.items() if word.lower() in words), None)


def read_split(path: Path) -> Splits:
    """A split given by a person.

    Args:
        path: a folder with train.txt, val.txt and test.txt, one class a line; or one file,
            JSON ``{"train": [...], "val": [...], "test": [...]}`` or CSV ``class,split``.

    Raises:
        DataError: missing, unreadable, empty, or a class in two splits.
    """
    if path.is_dir():
        return checked_split({s: lines(text) for s, text in _texts(path).items()}, path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The split {path} cannot be read: expected a folder with train.txt, val.txt and "
            "test.txt, or one JSON or CSV file."
        ) from error
    pairs = _json_pairs(text, path) if path.suffix == ".json" else _csv_pairs(text, path)
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for word, name in pairs:
        split = split_name(word)
        if split is None:
            raise DataError(f"The split {path} knows train, val and test; it says '{word}'.")
        found[split].append(name)
    return checked_split(found, path)


def _texts(folder: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for split, words in FILE_NAMES.items():
        files = [folder / f"{word}.txt" for word in words]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise DataError(
                f"The split in {folder} needs train.txt, val.txt and test.txt, one class a line; "
                f"{files[0].name} is missing."
            )
        try:
            texts[split] = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The list {file} cannot be read as UTF-8 text.") from error
    return texts


def _json_pairs(text: str, path: Path) -> Iterator[tuple[str, str]]:
    try:
        plain = json.loads(text)
        pairs = [(str(word), str(name)) for word, names in plain.items() for name in names]
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f'The split {path} must be JSON of the form {{"train": ["class", ...], "val": [...], '
            '"test": [...]}.'
        ) from error
    yield from pairs


def _csv_pairs(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for row in csv_rows(text, path, ("class", "split")):
        yield row["split"], row["class"]


def csv_rows(text: str, path: Path | str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with at least these columns.

    Raises:
        DataError: a column is missing, or a row is short.
    """
    reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True)
    found = reader.fieldnames or []
    if any(column not in found for column in columns):
        raise DataError(
            f"The list {path} must begin with the line '{','.join(columns)}'; it begins with "
            f"'{','.join(found)[:80]}'."
        )
    rows = [{column: (row[column] or "").strip() for column in columns} for row in reader]
    short = next((i for i, row in enumerate(rows) if not all(row.values())), None)
    if short is not None:
        raise DataError(
            f"The list {path} needs {' and '.join(columns)} in every row; row {short + 2} does "
            "not have them."
        )
    return rows


def lines(text: str) -> list[str]:
    """The names in a list, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def checked_split(found: Mapping[str, Iterable[str]], where: Path | str) -> Splits:
    """Sorted, without repeats.

    Raises:
        DataError: an empty part, or a class in two parts.
    """
    split: dict[str, tuple[str, ...]] = {part: tuple(sorted(set(found[part]))) for part in SPLITS}
    owner: dict[str, str] = {}
    for part in SPLITS:
        if not split[part]:
            raise DataError(f"The split {where} names no class for {part}.")
        for name in split[part]:
            if name in owner:
                raise DataError(
                    f"The split {where} puts class {name} into {owner[name]} and into {part}; "
                    "a class belongs to one of them."
                )
            owner[name] = part
    return split
