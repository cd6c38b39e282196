"""Methods from outside for tests: the example's folder, copied, and packages with entry points."""

import shutil
import sys
from pathlib import Path

from trainables._core import outside

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_method"


def folder(place, name="reptile", **files):
    """A copy of the example; ``files`` are put over it, None leaves one out."""
    made = Path(place) / name
    shutil.copytree(EXAMPLE, made, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in files.items():
        if text is None:
            (made / f"{file}.py").unlink()
        else:
            (made / f"{file}.py").write_text(text)
    return made


def package(place, name="reptile", distribution="few-reptile", value="few_reptile"):
    """An installed package that offers the example as a method."""
    made = Path(place) / value
    if not made.exists():
        folder(place, value, __init__="")
    info = Path(place) / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[fewtune.methods]\n{name} = {value}\n")
    return made


def forget():
    """Have this process as if no folder had been imported."""
    for name in [name for name in sys.modules if name.startswith("fewtune_own_")]:
        del sys.modules[name]
    outside._FINDER.known.clear()
