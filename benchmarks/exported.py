"""Adaptation by an exported program against the engine, one task at a time, one thread.

    python -m benchmarks.exported [--rounds 30] [--repeats 5]

Both start from a task's uint8 support images and end with a student ready to predict. Weights are
random: speed asks for shapes alone. Rows ``..._pt2`` are the program that torch runs, as a bundle's
README loads it, ``..._traced`` the same once torch has noted its calls, as the README says next
where the head alone is updated, ``..._onnx`` the one for ONNX Runtime. Floors, 1.2 times the
engine's time, are those of the fastest on a device with torch alone, ``..._torch``, and on one that
can have either, ``..._program``.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from benchmarks.record import Row, save
from benchmarks.timing import Contender, in_turns, milliseconds, ratio
from search import _onnx
from search.exported import ADAPTATION, example, write_programs
from trainables._core.networks import conv4
from trainables._core.student import Student, StudentSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.exported import Example

WAYS, SHOTS, STEPS = 5, 1, 5
MOST = 1.2  # times the engine's
SIZES = {"omniglot": (1, 28), "cifar-fs": (3, 32)}  # channels and px
HEADS: tuple[Literal["prototype", "shared"], ...] = ("prototype", "shared")
PATTERNS = (HEAD := "00001", "00011", "11111")


@dataclass(frozen=True)
class Case:
    """A student of random weights."""

    source: str
    width: int
    head: Literal["prototype", "shared"]
    pattern: str
    steps: int = STEPS

    @property
    def name(self) -> str:
        """Its settings, in order."""
        return f"{self.source}_{self.width}_{self.head}_{self.pattern}"

    def student(self) -> Student:
        """The student itself."""
        channels, size = SIZES[self.source]
        network = conv4((channels, size, size), width=self.width, head=self.head)
        spec = StudentSpec(
            width=self.width, depth=4, norm="batch", head=self.head, down="stride", ways=WAYS,
            channels=1 if channels == 1 else 3, size=size, input_size=size,
            mean=(0.5,) * channels, std=(0.3,) * channels, pattern=self.pattern,
            layers=network.layers, inner_steps=self.steps, inner_rate=0.1, views=0,
            normalisation="inductive",
        )  # fmt: skip
        return Student(spec, network.init(torch.Generator().manual_seed(0)))


def engine(student: Student, task: Example) -> Callable[[], object]:
    """One adaptation by the engine, as ``fewtune adapt`` times it."""
    ids = task.labels.argmax(1)

    def run() -> object:
        adapted = student.adapt(task.support, ids, WAYS)
        with torch.inference_mode():
            return adapted.statistics(-1)

    return run


def traced(module: torch.nn.Module, task: Example) -> Callable[[], object]:
    """The program whose calls torch has noted, as a bundle's README has it for the head alone."""
    given = (task.support, task.labels)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit's end, and of the program's own checks
        noted = torch.jit.freeze(torch.jit.trace(module, given).eval())

    def run() -> object:
        with torch.inference_mode():
            return noted(*given)

    return run


def rows_of(case: Case, folder: Path, args: argparse.Namespace) -> list[Row]:
    """One student's programs against the engine."""
    folder.mkdir()
    student = case.student()
    write_programs(folder, student, WAYS, SHOTS)
    task = example(student, WAYS, SHOTS)
    module = torch.export.load(folder / f"{ADAPTATION}.pt2").module()
    by_onnx = _onnx.session(folder / f"{ADAPTATION}.onnx")
    feed = {"images": task.support.numpy(), "labels": task.labels.numpy()}

    def in_torch() -> object:
        with torch.inference_mode():
            return module(task.support, task.labels)

    contenders = [
        Contender("engine", engine(student, task)),
        Contender("pt2", in_torch),
        Contender("onnx", lambda: by_onnx.run(None, feed)),
    ]
    if case.pattern == HEAD:  # what goes back through layers cannot be traced
        contenders.append(Contender("traced", traced(module, task)))
    times = in_turns(contenders, rounds=args.rounds, repeats=args.repeats)
    programs = [c.name for c in contenders[1:]]
    found = {name: ratio(times, name, "engine") for name in programs}
    details = {
        name: f"{milliseconds(times, name):.2f} ms against {milliseconds(times, 'engine'):.2f} ms, "
        f"{one.spread}"
        for name, one in found.items()
    }
    rows = []
    for kind, names in (("program", programs), ("torch", set(programs) - {"onnx"})):
        best = min(names, key=lambda name: found[name].value)
        value, detail = found[best].value, f"{best}, {details[best]}"
        rows.append(Row(f"{case.name}_{kind}", value, "x", "lower", MOST, "own engine", detail))
    for name in programs:
        row_id, value = f"{case.name}_{name}", found[name].value
        rows.append(Row(row_id, value, "x", "lower", None, "own engine", details[name]))
    return rows


def main() -> None:
    """Exports every student, times it, and saves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5, help="runs of a turn")
    parser.add_argument("--widths", default="32,64", help="filters, commas between")
    parser.add_argument("--name", default="exported")
    args = parser.parse_args()
    cases = [
        Case(source, int(width), head, pattern)
        for source in SIZES
        for width in args.widths.split(",")
        for head in HEADS
        for pattern in PATTERNS
        if head == "prototype" or pattern == "00001"
    ]
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        for case in cases:
            rows += rows_of(case, Path(place) / case.name, args)
    save(args.name, rows, settings=vars(args))


if __name__ == "__main__":
    main()
