"""A folder with the digest of each of its files: whole, and whose it is, or not believed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "digest.json"


class CheckpointError(ValueError):
    """A checkpoint is torn, or belongs to something else; it is named."""


def write_digest(folder: Path, identity: str) -> None:
    """Write the digests of all files of a checkpoint, last, and whose it is."""
    files = {
        file.relative_to(folder).as_posix(): _sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != DIGEST
    }
    text = json.dumps({"identity": identity, "files": files})
    (folder / DIGEST).write_text(text, encoding="utf-8")


def check_digest(folder: Path, identity: str | None = None) -> None:
    """Hold a checkpoint against its digests.

    Raises:
        CheckpointError: It is missing, torn, or another configuration's.
    """
    try:
        known = json.loads((folder / DIGEST).read_text(encoding="utf-8"))
        files, whose = dict(known["files"]), known["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint {folder} is torn: it has no whole {DIGEST}."
        ) from error
    if identity is not None and whose != identity:
        raise CheckpointError(
            f"The checkpoint {folder} belongs to another configuration, data set or setting."
        )
    for name, digest in files.items():
        if _sha256(folder / name) != digest:
            raise CheckpointError(f"The checkpoint {folder} is torn: {name} is not what was saved.")


def _sha256(file: Path) -> str:
    """Empty where the file cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError):  # a name may be damaged too
        return ""
