"""The README of a bundle: what the student is and how to use it, in words and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search import registry
from search.metrics import METRICS
from search.progress import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.config import SweepConfig
    from trainables._core.student import StudentSpec

_SHOWN = (
    "accuracy",
    "accuracy_full",
    "quality_drop",
    "quality_drop_worst",
    "quality_drop_teacher",
    "fresh_accuracy",
    "test_accuracy",
    "teacher_accuracy",
    "adapt_ms",
    "adapt_speedup",
    "adapt_macs",
    "adapt_mib",
    "student_params",
    "student_mib",
    "student_macs",
)
_MODES = {
    "inductive": "Each query image is classified by itself: it is normalised with the statistics "
    "of the support images, so that predictions do not depend on what else is classified.",
    "transductive": "Query images are normalised with their own statistics, all at once: "
    "predictions for an image change with the images classified beside it.",
}


def guide(
    spec: StudentSpec,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    config: SweepConfig,
    programs: Sequence[str] = (),
) -> str:
    """Write the README of a bundle.

    Args:
        spec: Of its student.
        metrics: Its ``metrics.json``.
        provenance: Its ``provenance.json``, without the digests.
        config: The sweep that the trial is from.
        programs: Names of the exported programs in it.
    """
    parts = [
        f"# A few-shot student: trial {provenance['trial']} of {provenance['run']}",
        _what(spec, metrics, config),
        "## Numbers",
        _numbers(spec, metrics, config),
        "## Use it",
        _use(spec),
        *_without_fewtune(spec, programs),
        "## What it expects of an image",
        _images(spec),
        "## Where it comes from",
        _origin(provenance, config, programs),
    ]
    return "\n\n".join(parts) + "\n"


def _what(spec: StudentSpec, metrics: Mapping[str, Any], config: SweepConfig) -> str:
    layers = spec.network().layers
    updated = [n for n, bit in zip(layers, spec.pattern, strict=True) if bit == "1"]
    frozen = [n for n in layers if n not in updated]
    stay = f"{_list(frozen)} stay{'s' if len(frozen) == 1 else ''} as trained" if frozen else ""
    data = config.data
    classes = (
        f"exactly {spec.ways} classes (its linear head is fixed)"
        if spec.head == "linear"
        else "any number of classes from 2 on"
    )
    return (
        f"A {spec.kind} network with {spec.width} filters, {spec.depth} blocks and "
        f"{show('student_params', metrics['student_params'])} parameters, meta-trained with "
        f"`{registry.title(config.method)}` on {data.source} "
        f"({data.ways}-way {data.shots}-shot tasks). Shown a few labelled images of new classes "
        f"it adapts in {_count(spec.inner_steps, 'step')} at "
        f"rate {spec.inner_rate:.3g}: {_list(updated)} learn{'s' if len(updated) == 1 else ''}"
        f"{', ' if stay else ''}{stay} (pattern `{spec.pattern}`, input side first). It takes "
        f"{classes}, with any number of images of each."
    )


def _numbers(spec: StudentSpec, metrics: Mapping[str, Any], config: SweepConfig) -> str:
    rows = ["| metric | value | meaning |", "|---|---:|---|"]
    for name in _SHOWN:
        value = metrics.get(name)
        if value is None:
            continue
        error = metrics.get(f"{name}_ci95")
        shown = show(name, value) + (f" ± {100 * error:.1f}" if error is not None else "")
        unit = f" {METRICS[name].unit}" if METRICS[name].unit else ""
        rows.append(f"| `{name}` | {shown}{unit} | {METRICS[name].meaning} |")
    data = config.data
    said = (
        f"Accuracies are **{spec.normalisation}**, on {data.ways}-way {data.shots}-shot tasks with "
        f"{data.queries} queries a class, with their 95 % intervals. {_MODES[spec.normalisation]}"
    )
    other = "transductive" if spec.normalisation == "inductive" else "inductive"
    beside = metrics.get(f"accuracy_{other}")
    if beside is not None:
        said += f" The same measured the other way ({other}): {show('accuracy', beside)}."
    if metrics.get("fresh_accuracy") is not None:
        said += (
            " `accuracy` is on the tasks that this student was chosen by among others, which "
            "flatters it; `fresh_accuracy` is on as many tasks that nothing was chosen by."
        )
    if int8 := metrics.get("int8"):
        said += (
            " The weights here are rounded to int8; with them the accuracy on fresh tasks is "
            f"{show('accuracy', int8['fresh_accuracy'])}, and "
            f"`model.int8.safetensors` takes {int8['student_mib']:.3g} MiB. The table is of the "
            "weights as trained."
        )
    if metrics.get("test_accuracy") is None:
        said += (
            " `test_accuracy` was not measured: only trials on the front of the sweep are scored "
            "on test classes."
        )
    said += (
        " Times were measured on the machine of the sweep, one task at a time; `fewtune adapt` "
        "measures them on yours. `metrics.json` has every metric, and accuracy, time and cost of "
        "every pattern and number of steps that was scored."
    )
    return "\n".join(rows) + "\n\n" + said


def _use(spec: StudentSpec) -> str:
    number = f"{spec.ways} classes" if spec.head == "linear" else "2 or more classes"
    return f"""Put a few images of each of your {number} into a folder of its name:

```
support/cat/1.jpg      support/dog/1.jpg      query/a.jpg
support/cat/2.jpg                             query/b.jpg
```

Then, with BUNDLE being this directory:

```sh
fewtune adapt BUNDLE --support support --query query
```

It prints how long adapting took and what each query image is. Sort the query images into class
folders as well and it also says how many are right. `--json` gives one JSON document instead.

In Python:

```python
from search.adapt import adapt

report = adapt("BUNDLE", "support", "query")
print(report.adapt_ms, report.accuracy)
for prediction in report.predictions:
    print(prediction.file, prediction.label, prediction.confidence)
```

Train the same student again, from the same seed, with the same metrics (times aside, on the same
kind of machine and with the versions in `provenance.json`):

```sh
fewtune train BUNDLE/config.yaml
```"""


def _images(spec: StudentSpec) -> str:
    colour = "grey" if spec.channels == 1 else "colour (RGB)"
    mean = ", ".join(f"{value:.4f}" for value in spec.mean)
    std = ", ".join(f"{value:.4f}" for value in spec.std)
    resized = ""
    if spec.input_size != spec.size:
        resized = f"; then bilinear, antialiased, to {spec.input_size} x {spec.input_size}"
    return (
        f"`fewtune adapt` does all of this: turned as EXIF says, transparency on white, {colour}, "
        f"the largest centred square, bicubic and antialiased to {spec.size} x {spec.size} pixels, "
        f"values from 0 to 1, minus the mean ({mean}), over the standard deviation ({std})"
        f"{resized}. It knows images like those it was trained on best: the same kind of subject, "
        "background and contrast."
    )


TRACED = """\
A device that adapts again and again to as many images of as many classes has torch note the calls
once, and then goes without Python between them; other numbers of images or classes are refused, and
traced anew. Torch warns that `torch.jit` is on its way out (versions up to 2.13 have it) and that a
check of the inputs is not traced: the numbers are those of the program as it was loaded.

```python
torch.set_num_threads(1)  # so little work is not worth sharing
with torch.inference_mode():
    traced = torch.jit.freeze(torch.jit.trace(adaptation, (support, labels)).eval())
    adapted = traced(support, labels)  # others of the same shapes too
```"""


def _without_fewtune(spec: StudentSpec, programs: Sequence[str]) -> list[str]:
    """Write how to adapt and predict with torch, or numpy and ONNX Runtime, alone."""
    if not programs:
        return []
    ways = spec.ways if spec.head == "linear" else 2
    shape = f"{spec.channels}, {spec.size}, {spec.size}"
    parts = [
        "## Use it without fewtune",
        "The adaptation itself is a program: support images and labels in, adapted tensors out, "
        f"{_count(spec.inner_steps, 'step')} of pattern `{spec.pattern}` at rate "
        f"{spec.inner_rate:.3g}. The student takes query images and those tensors, and gives a "
        "probability for each class. Images are uint8, decoded, cropped and sized as below; the "
        "programs normalise them. Labels are one-hot, a row an image, a column a class."
        + (
            f" There are {ways} classes, with any number of images."
            if spec.head == "linear"
            else " Any number of images and classes will do."
        ),
        f"""With torch alone:

```python
import torch

adaptation = torch.export.load("BUNDLE/adaptation.pt2").module()
student = torch.export.load("BUNDLE/student.pt2").module()
support = torch.randint(0, 256, ({2 * ways}, {shape}), dtype=torch.uint8)  # your images
labels = torch.eye({ways}).repeat_interleave(2, 0)  # {ways} classes, 2 images of each
query = torch.randint(0, 256, (3, {shape}), dtype=torch.uint8)
with torch.inference_mode():
    adapted = adaptation(support, labels)
    probabilities = student(query, *adapted)  # [3, {ways}]
```""",
    ]
    if "1" not in spec.pattern[:-1]:
        parts.append(TRACED)
    if "student.onnx" in programs:
        parts.append(f"""With numpy and onnxruntime alone:

```python
import numpy as np
import onnxruntime

adaptation = onnxruntime.InferenceSession("BUNDLE/adaptation.onnx")
student = onnxruntime.InferenceSession("BUNDLE/student.onnx")
images = np.random.default_rng(0).integers(0, 256, ({2 * ways + 3}, {shape}), dtype=np.uint8)
support, query = images[:{2 * ways}], images[{2 * ways}:]  # your images
labels = np.eye({ways}, dtype=np.float32).repeat(2, 0)  # {ways} classes, 2 images of each
adapted = adaptation.run(None, {{"images": support, "labels": labels}})
names = [one.name for one in student.get_inputs()]
(probabilities,) = student.run(None, dict(zip(names, [query, *adapted])))  # [3, {ways}]
```""")
    return parts


def _origin(provenance: Mapping[str, Any], config: SweepConfig, programs: Sequence[str]) -> str:
    data, seed = provenance["data"], provenance["seeds"]["sweep"]
    lines = [
        f"- picked as {provenance['picked']['why']}",
        f"- data: {data['source']}, fingerprint `{str(data['fingerprint'])[:16]}`",
        f"- seed {seed}, {_count(config.budget.iterations, 'meta-iteration')}",
        "- versions, commit, seeds and the sha256 of every file: `provenance.json`",
    ]
    if config.data.source != "glyphs":
        lines.append(
            "- to train it again, the images of the source must be at hand: set `FEWTUNE_DATA` to "
            "their folder, or add `--set data.path=FOLDER`"
        )
    if config.resources.gpu:
        lines.append(
            "- it was trained on a GPU; without one add `--set resources.gpu=0`, and expect "
            "metrics that differ a little"
        )
    lines.append(
        "- `fewtune` refuses a bundle in which a file was changed, and unpickles nothing of it; "
        "`fewtune verify BUNDLE` evaluates the student again"
    )
    if programs:
        lines.append(
            "- torch reads `.pt2` files with pickle: open those only of whom you trust; "
            "`.safetensors` and `.onnx` hold numbers and a graph of operations"
        )
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _list(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
