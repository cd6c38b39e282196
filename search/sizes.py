"""Sizes as people write them, and the key ``max_disk`` of a sweep file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from search.errors import UserError

if TYPE_CHECKING:
    from search.documents import Document
    from search.errors import Problem

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B?", re.IGNORECASE)
_FORM = "The room a run may take is a size, as 500MB, 20GB or 1TiB"


def read_size(text: str) -> int:
    """Return a size in bytes; 0 for an empty text, which is no limit.

    Example:
        >>> read_size("20GB"), read_size("1.5 MiB"), read_size("")
        (20000000000, 1572864, 0)

    Raises:
        UserError: It is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None and text:
        raise UserError(f"{_FORM}; found {text!r}.")
    if found is None:
        return 0
    power = "KMGT".index(found[2].upper()) + 1
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def read_limit(document: Document, problems: list[Problem]) -> object:
    """Read the key ``max_disk``."""
    raw = document.values.get("max_disk")
    try:
        read_size("" if raw is None else str(raw))
    except UserError as error:
        problems.append(document.problem(("max_disk",), str(error)))
    return raw if raw is None else str(raw)
