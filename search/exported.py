"""Programs of a bundle: the student's adaptation and its predictions, for devices without fewtune.

::

    adaptation.pt2 .onnx   support images, labels -> the adapted tensors
    student.pt2    .onnx   query images, the adapted tensors -> probabilities

``.pt2`` needs torch, ``.onnx`` an ONNX runtime. Each is held against the engine when it is written,
on tasks of two sizes. Two ways of adding up differ in the last bit, and once in a while a number
lies so near a ReLU's corner that this bit decides, and the step after it differs visibly; where a
task does, four more of its size are drawn and have to agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import save_file
from torch.nn import functional

from search import _onnx
from search.errors import FailedError
from trainables._core.programs import (
    Adaptation,
    Prediction,
    adapted_tensors,
    outputs_of,
    quantised,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch.export import ExportedProgram

    from trainables._core.student import Student, StudentSpec

Made = TypeVar("Made")
INT8_WEIGHTS = "model.int8.safetensors"
ADAPTATION, PREDICTION = "adaptation", "student"
TOLERANCE = 1e-4  # between a program and the engine
MORE = 8  # further tasks of its size where one differs; most of them must not
IMAGES, LABELS, PROBABILITIES = "images", "labels", "probabilities"


@dataclass(frozen=True)
class Example:
    """One task and what the engine makes of it.

    Attributes:
        support: uint8 ``[M, C, size, size]``.
        labels: One-hot, ``[M, N]``.
        query: uint8 ``[Q, C, size, size]``.
        adapted: What adaptation yields, by the engine.
        probabilities: ``[Q, N]``, by the engine.
        others: Tasks of the same size, made when they are asked for.
    """

    support: torch.Tensor
    labels: torch.Tensor
    query: torch.Tensor
    adapted: tuple[torch.Tensor, ...]
    probabilities: torch.Tensor
    others: Callable[[], Iterator[Example]]


def rounded(student: Student) -> Student:
    """Return the student with its kernels as int8 can hold them."""
    params = dict(student.params)
    for name, value in params.items():
        if value.dim() > 1:
            small, scale = quantised(value)
            params[name] = small.float() * scale
    return replace(student, params=params)


def save_int8(folder: Path, student: Student) -> dict[str, float]:
    """Write the weights as bytes: ``NAME`` int8, ``NAME.scale`` float32; the rest as it is.

    Returns:
        ``student_mib`` of the file's tensors.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, value in student.params.items():
        if value.dim() > 1:
            tensors[name], tensors[f"{name}.scale"] = quantised(value)
        else:
            tensors[name] = value
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / INT8_WEIGHTS)
    return {"student_mib": sum(value.nbytes for value in tensors.values()) / 2**20}


def write_programs(
    folder: Path, student: Student, ways: int, shots: int, *, int8: bool = False
) -> list[str]:
    """Write the programs of a student into a bundle, each checked against the engine.

    Args:
        folder: The bundle.
        student: The student.
        ways: Classes of the tasks it was searched for; other numbers work too.
        shots: Images of each.
        int8: Kernels are kept as bytes, and the engine is asked with kernels so rounded.

    Returns:
        The names of the files.

    Raises:
        FailedError: One cannot be made, or its numbers differ from the engine's.
    """
    spec, known = student.spec, rounded(student) if int8 else student
    examples = [example(known, ways, shots), example(known, _other(spec, ways), shots + 1)]
    images = ways * shots * (1 + spec.views)
    written = []
    for name in (ADAPTATION, PREDICTION):
        trace = partial(_traced, name, student, examples[0], images, int8=int8)
        file = folder / f"{name}.pt2"
        program = _made(file.name, trace)
        torch.export.save(program, file)
        module = program.module()
        _hold(file.name, name, partial(_called, module), examples)
        written.append(file.name)
        if not _onnx.missing():
            file = folder / f"{name}.onnx"
            plain = partial(trace, plain=True) if name == ADAPTATION else partial(_same, program)
            _made(file.name, partial(_write_onnx, file, name, spec, plain))
            _hold(file.name, name, partial(_onnx.run, file), examples)
            written.append(file.name)
    return written


def _called(module: torch.nn.Module, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    found = module(*given)
    return (found,) if isinstance(found, torch.Tensor) else found


def _same(program: ExportedProgram) -> ExportedProgram:
    return program


def check_onnx(folder: Path, student: Student, ways: int, shots: int) -> list[str]:
    """Run the ONNX programs of a bundle beside the engine.

    Returns:
        Those that were run; none where no ONNX Runtime is installed.

    Raises:
        FailedError: Their numbers differ from the engine's.
    """
    if _onnx.missing():
        return []
    examples = [example(student, ways, shots), example(student, _other(student.spec, ways), shots)]
    found = []
    for name in (ADAPTATION, PREDICTION):
        file = folder / f"{name}.onnx"
        if file.is_file():
            _hold(file.name, name, partial(_onnx.run, file), examples)
            found.append(file.name)
    return found


def example(student: Student, ways: int, shots: int, draw: int = 0) -> Example:
    """Make up a task of soft blots, a kind a class, and adapt the student to it by the engine."""
    seed = draw * 1_000_000 + ways * 1000 + shots
    spec, generator = student.spec, torch.Generator().manual_seed(seed)
    kinds = _blots(ways, spec, generator)

    def images(each: int) -> torch.Tensor:
        mixed = 0.7 * kinds.repeat_interleave(each, 0) + 0.3 * _blots(ways * each, spec, generator)
        return (255 * mixed).round().to(torch.uint8)

    support, query = images(shots), images(2)
    ids = torch.arange(ways).repeat_interleave(shots)
    adapted = student.adapt(support, ids, ways)
    told = adapted_tensors(spec, adapted)
    return Example(
        support, functional.one_hot(ids, ways).float(), query, told,
        student.predict(adapted, query),
        lambda: (example(student, ways, shots, draw) for draw in range(1, 1 + MORE)),
    )  # fmt: skip


def _blots(count: int, spec: StudentSpec, generator: torch.Generator) -> torch.Tensor:
    coarse = torch.rand(count, spec.channels, 4, 4, generator=generator)
    return functional.interpolate(coarse, (spec.size, spec.size), mode="bilinear")


def _other(spec: StudentSpec, ways: int) -> int:
    return spec.ways if spec.head == "linear" else ways + 1


def _traced(
    name: str, student: Student, known: Example, images: int, *, int8: bool, plain: bool = False
) -> ExportedProgram:
    some, asked = torch.export.Dim("some", min=2), torch.export.Dim("asked", min=1)
    ways = None if student.spec.head == "linear" else torch.export.Dim("ways", min=2)
    classes: dict[int, Any] = {} if ways is None else {1: ways}
    if name == ADAPTATION:
        module: torch.nn.Module = Adaptation(student, images, plain=plain, int8=int8)
        given: tuple[torch.Tensor, ...] = (known.support, known.labels)
        shapes: tuple[Any, ...] = ({0: some}, {0: some, **classes})
    else:
        module, given = Prediction(student, int8=int8), (known.query, *known.adapted)
        first: dict[int, Any] = {} if ways is None else {0: ways}
        free = tuple(first if n.startswith("head.") else {} for n in outputs_of(student.spec))
        shapes = ({0: asked}, free)
    with _onnx.quiet(), torch.no_grad():
        return torch.export.export(module, given, dynamic_shapes=shapes)


def _write_onnx(
    file: Path, name: str, spec: StudentSpec, trace: Callable[[], ExportedProgram]
) -> None:
    told = outputs_of(spec)
    inputs = (IMAGES, LABELS) if name == ADAPTATION else (IMAGES, *told)
    _onnx.write(trace(), file, inputs, told if name == ADAPTATION else (PROBABILITIES,))


def _made(name: str, make: Callable[[], Made]) -> Made:
    try:
        return make()
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise FailedError(
            f"{name} cannot be made of this student ({said}). Export it with --no-programs, which "
            "leaves the programs out of the bundle."
        ) from error


def _hold(
    file: str,
    name: str,
    run: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
    examples: Sequence[Example],
) -> None:
    """Hold a program against the engine.

    Raises:
        FailedError: It says something else.
    """

    def far(known: Example) -> float:
        if name == ADAPTATION:
            return difference(run((known.support, known.labels)), known.adapted)
        return difference(run((known.query, *known.adapted)), (known.probabilities,))

    for known in examples:
        off = far(known)
        if off <= TOLERANCE:
            continue
        wrong = (not far(other) <= TOLERANCE for other in known.others())
        if off == math.inf or sum(wrong) >= MORE / 2:
            raise FailedError(
                f"{file} differs from the engine by {off:.2g}, and at most {TOLERANCE:g} is "
                "allowed. Export it with --no-programs, which leaves the programs out of the "
                "bundle."
            )


def difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return the largest difference, of each tensor relative to its largest number above 1.

    Numbers that are none are infinitely far from any.
    """
    far = [
        float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
        for a, b in zip(found, expected, strict=True)
    ]
    return max(far) if all(map(math.isfinite, far)) else math.inf
