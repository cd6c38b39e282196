"""Adaptation compiled by AOTInductor, against the engine: what is gained, and after how many tasks.

    python -m benchmarks.compiled [--widths 32,64] [--steps 5,10]

The program of a bundle, compiled for this processor (which takes a C++ compiler), and the engine,
both from a task's uint8 images to a student ready to predict, one task at a time on one thread: the
head alone and every layer, Omniglot's shape, 5-way 1-shot, random weights. ``..._gain`` is how many
times faster the compiled program is, ``..._pays_after`` how many adaptations it takes until
compiling has paid, and ``..._speedup`` how many times faster the head alone is than every layer
when both are compiled: what is left of that ratio when calls cost nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package

from benchmarks.exported import SHOTS, WAYS, Case, engine
from benchmarks.record import Row, save
from benchmarks.timing import Contender, in_turns, milliseconds, ratio
from search.exported import ADAPTATION, example, write_programs

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD, EVERY = "00001", "11111"


@dataclass(frozen=True)
class Compiled:
    """A program, and the seconds it took to make it."""

    run: Callable[[], object]
    seconds: float


def compiled(case: Case, folder: Path) -> Compiled:
    """The adaptation of a student's task as machine code."""
    student = case.student()
    task = example(student, WAYS, SHOTS)
    place = folder / case.name
    place.mkdir()
    write_programs(place, student, WAYS, SHOTS)
    began = time.perf_counter()
    program = torch.export.load(place / f"{ADAPTATION}.pt2")
    with torch.no_grad():
        file = aoti_compile_and_package(program, package_path=str(place / "compiled.pt2"))
    seconds = time.perf_counter() - began
    model = aoti_load_package(file)
    return Compiled(lambda: model(task.support, task.labels), seconds)


def rows_of(width: int, steps: int, folder: Path, args: argparse.Namespace) -> list[Row]:
    """Head and every layer of one student, by engine and compiled, in turns."""
    contenders, seconds = [], {}
    for pattern in (HEAD, EVERY):
        case = Case("omniglot", width, "prototype", pattern, steps)
        student = case.student()
        fast = compiled(case, folder)
        seconds[pattern] = fast.seconds
        by_engine = engine(student, example(student, WAYS, SHOTS))
        contenders += [
            Contender(f"{pattern} engine", by_engine),
            Contender(f"{pattern} compiled", fast.run),
        ]
    times = in_turns(contenders, rounds=args.rounds, repeats=args.repeats)
    rows = []
    for pattern in (HEAD, EVERY):
        name, slow, quick = (
            f"{width}_T{steps}_{pattern}",
            f"{pattern} engine",
            f"{pattern} compiled",
        )
        gain = ratio(times, slow, quick)
        ms = milliseconds(times, slow), milliseconds(times, quick)
        detail = f"{ms[1]:.2f} ms against {ms[0]:.2f} ms, {gain.spread}"
        rows.append(Row(f"{name}_gain", gain.value, "x", "higher", None, "own engine", detail))
        if ms[1] < ms[0]:  # else it never pays
            after = seconds[pattern] / (ms[0] - ms[1]) * 1e3
            detail = f"compiled in {seconds[pattern]:.0f} s"
            rows.append(Row(f"{name}_pays_after", after, "adaptations", "lower", detail=detail))
    both = ratio(times, f"{EVERY} compiled", f"{HEAD} compiled")
    name = f"{width}_T{steps}_speedup"
    rows.append(Row(name, both.value, "x", "higher", detail=f"both compiled, {both.spread}"))
    return rows


def main() -> None:
    """Compiles, times, and saves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5, help="runs of a turn")
    parser.add_argument("--widths", default="32,64", help="filters, commas between")
    parser.add_argument("--steps", default="5,10", help="inner steps, commas between")
    parser.add_argument("--name", default="compiled")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        for width in (int(word) for word in args.widths.split(",")):
            for steps in (int(word) for word in args.steps.split(",")):
                folder = Path(place) / f"{width}-{steps}"
                folder.mkdir()
                rows += rows_of(width, steps, folder, args)
    save(args.name, rows, settings=vars(args))


if __name__ == "__main__":
    main()
