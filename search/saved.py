"""An adapted student as files: what adaptation yielded, its classes, and how to predict with it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from search.bundle import new_bundle, write_json
from search.exported import PREDICTION
from trainables._core.programs import adapted_tensors, outputs_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainables._core.adapt import Adapted
    from trainables._core.student import Student

TENSORS, CLASSES = "adapted.npz", "classes.json"


def save_adapted(
    out: Path, bundle: Path, student: Student, adapted: Adapted, classes: Sequence[str]
) -> None:
    """Write an adapted student: its tensors by name, its classes, and the bundle's query programs.

    Args:
        out: A new or empty directory; it is written whole or not at all.
        bundle: What it was adapted from.
        student: The student in it.
        adapted: One task.
        classes: Their names, in the order of the labels.

    Raises:
        UserError: ``out`` is taken or cannot be written.
    """
    with new_bundle(out, "--save") as folder:
        values = adapted_tensors(student.spec, adapted)
        pairs = zip(outputs_of(student.spec), values, strict=True)
        arrays: dict[str, Any] = {name: value.contiguous().numpy() for name, value in pairs}
        np.savez(folder / TENSORS, **arrays)
        write_json(folder / CLASSES, {"classes": list(classes)})
        programs = [f"{PREDICTION}.{kind}" for kind in ("pt2", "onnx")]
        copied = [name for name in programs if (bundle / name).is_file()]
        for name in copied:
            shutil.copyfile(bundle / name, folder / name)
        (folder / "README.md").write_text(_guide(student, classes, copied), encoding="utf-8")


def _guide(student: Student, classes: Sequence[str], copied: Sequence[str]) -> str:
    spec = student.spec
    parts = [
        "# An adapted student",
        (
            f"It tells {len(classes)} classes apart: `{CLASSES}` names them in the order of its "
            f"probabilities. `{TENSORS}` holds what adaptation changed; the README of the bundle "
            "that it comes from says what an image must be like."
        ),
    ]
    if f"{PREDICTION}.pt2" in copied:
        parts.append(f"""With torch and numpy alone:

```python
import json
import numpy as np
import torch

student = torch.export.load("{PREDICTION}.pt2").module()
adapted = [torch.from_numpy(value) for value in np.load("{TENSORS}").values()]  # in this order
images = torch.zeros(3, {spec.channels}, {spec.size}, {spec.size}, dtype=torch.uint8)  # yours
with torch.inference_mode():
    probabilities = student(images, *adapted)
names = json.load(open("{CLASSES}"))["classes"]
print([names[i] for i in probabilities.argmax(1)])
```""")
    if f"{PREDICTION}.onnx" in copied:
        parts.append(f"""With numpy and onnxruntime alone:

```python
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{PREDICTION}.onnx")
images = np.zeros((3, {spec.channels}, {spec.size}, {spec.size}), np.uint8)  # yours
given = {{"images": images, **np.load("{TENSORS}")}}
wanted = [one.name for one in session.get_inputs()]
(probabilities,) = session.run(None, {{name: given[name] for name in wanted}})
names = json.load(open("{CLASSES}"))["classes"]
print([names[i] for i in probabilities.argmax(1)])
```""")
    return "\n\n".join(parts) + "\n"
