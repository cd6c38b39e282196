"""The single door to ONNX: torch's exporter and ONNX Runtime, both in the extra ``onnx``."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch.export import ExportedProgram

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing() -> list[str]:
    """Return what is not installed of the extra."""
    return [name for name in PACKAGES if find_spec(name) is None]


def write(
    program: ExportedProgram, file: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Write a program as one ONNX file, free dimensions free.

    Args:
        program: As ``torch.export`` gave it.
        file: Is written.
        inputs: Names, in order.
        outputs: Names, in order.
    """
    with quiet():
        # constants stay as they are: folded, bytes would become numbers of four times the size
        found = torch.onnx.export(
            program, (), dynamo=True, verbose=False, optimize=False,
            input_names=list(inputs), output_names=list(outputs),
        )  # fmt: skip
        if found is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        found.save(file, external_data=False)


def session(file: Path) -> Any:  # noqa: ANN401 - ONNX Runtime carries no types
    """Open an ONNX file on this machine's processor, one thread."""
    import onnxruntime  # noqa: PLC0415 - in an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run(file: Path, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Run an ONNX file once."""
    one = session(file)
    names = [put.name for put in one.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    return [torch.from_numpy(value) for value in one.run(None, feed)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the user what exporters say to those who write exporters."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
