"""Programs as files: torch and ONNX Runtime say what the engine says, without any of fewtune."""

import math
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from typing_extensions import override

from search import _onnx, exported
from search.bundle import read_bundle
from search.errors import FailedError
from search.export import Extras, export
from search.exported import check_onnx, difference, example, save_int8, write_programs
from search.fresh import fresh_score
from search.preflight import load_data
from search.results import load_results
from search.rundir import RunDir
from search.verify import verify
from tests import bundles
from tests.trainables._core.test_programs import COLOUR, CORNERS
from trainables._core.programs import Adaptation, Prediction

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn those who write exporters
FILES = ["adaptation.pt2", "adaptation.onnx", "student.pt2", "student.onnx"]


def loaded(folder, name):
    return torch.export.load(folder / f"{name}.pt2").module()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("corner", CORNERS)
def test_every_student_leaves_as_programs(corner, int8, tmp_path):
    """Written, read back and run on tasks of other sizes than they were traced with."""
    if int8 and corner not in ("every layer", "linear head"):
        pytest.skip("rounding does not depend on this")
    one = bundles.student(**CORNERS[corner])
    assert write_programs(tmp_path, one, 5, 1, int8=int8) == FILES
    known = exported.rounded(one) if int8 else one
    for ways, shots in ((5, 3), (5, 1)) if one.spec.head == "linear" else ((2, 7), (7, 1)):
        task = example(known, ways, shots)
        adapted = loaded(tmp_path, "adaptation")(task.support, task.labels)
        assert difference(adapted, task.adapted) < 1e-4
        by_onnx = _onnx.run(tmp_path / "adaptation.onnx", (task.support, task.labels))
        assert difference(by_onnx, task.adapted) < 1e-4
        for said in (
            loaded(tmp_path, "student")(task.query, *adapted),
            *_onnx.run(tmp_path / "student.onnx", (task.query, *by_onnx)),
        ):
            assert difference([said], [task.probabilities]) < 1e-4
        if one.spec.normalisation == "inductive":  # an image alone is an image among others
            alone = loaded(tmp_path, "student")(task.query[:1], *adapted)
            assert difference([alone], [task.probabilities[:1]]) < 1e-4
            (alone,) = _onnx.run(tmp_path / "student.onnx", (task.query[:1], *by_onnx))
            assert difference([alone], [task.probabilities[:1]]) < 1e-4


@pytest.mark.slow
def test_bytes_make_programs_smaller(tmp_path):
    one = bundles.student(width=64, pattern="001")  # most of each file is weights, not the graph
    for folder, int8 in ((tmp_path / "float", False), (tmp_path / "int8", True)):
        folder.mkdir()
        write_programs(folder, one, 5, 1, int8=int8)
    sizes = [[(tmp_path / f / name).stat().st_size for name in FILES] for f in ("float", "int8")]
    assert all(small < 0.8 * large for large, small in zip(*sizes, strict=True))
    assert (
        save_int8(tmp_path, one)["student_mib"]
        < 0.3 * sum(p.nbytes for p in one.params.values()) / 2**20
    )


# ------------------------------------------------------------------ refused


@pytest.fixture
def without_tracing(monkeypatch):
    """The modules themselves in place of exported programs: what surrounds them is quick."""

    class Program:
        def __init__(self, module):
            self._module = module

        def module(self):
            return self._module

    monkeypatch.setattr(torch.export, "export", lambda module, *_, **__: Program(module))
    monkeypatch.setattr(torch.export, "save", lambda program, file: file.write_bytes(b"x"))
    monkeypatch.setattr(_onnx, "write", lambda program, file, *_: file.write_bytes(b"x"))


def altered(monkeypatch, change):
    """Has each run of an adaptation say what ``change`` makes of its number and its tensors."""
    monkeypatch.setattr(_onnx, "missing", lambda: ["onnx"])
    runs = []

    class Altered(Adaptation):
        @override
        def forward(self, *given):
            runs.append(1)
            return change(len(runs), super().forward(*given))

    monkeypatch.setattr(exported, "Adaptation", Altered)
    return runs


def test_a_program_that_says_something_else_is_refused(without_tracing, monkeypatch, tmp_path):
    monkeypatch.setattr(_onnx, "missing", lambda: ["onnx"])
    one = bundles.student()
    assert write_programs(tmp_path, one, 5, 1) == ["adaptation.pt2", "student.pt2"]
    other = Adaptation
    monkeypatch.setattr(
        exported, "Adaptation", lambda s, *a, **k: other(bundles.student(inner_rate=0.2), *a, **k)
    )
    with pytest.raises(FailedError, match=r"adaptation\.pt2 differs from the engine by .*0\.0001 "):
        write_programs(tmp_path, one, 5, 1)


def test_an_onnx_program_that_says_something_else_is_refused(
    without_tracing, monkeypatch, tmp_path
):
    monkeypatch.setattr(_onnx, "missing", list)
    one, scale = bundles.student(), 1.0

    def run(file, given):
        module = (Adaptation(one, 5) if file.stem == "adaptation"
                  else Prediction(one))  # fmt: skip
        told = module(*given)
        return [scale * x for x in ((told,) if isinstance(told, torch.Tensor) else told)]

    monkeypatch.setattr(_onnx, "run", run)
    assert write_programs(tmp_path, one, 5, 1) == FILES
    assert check_onnx(tmp_path, one, 5, 1) == ["adaptation.onnx", "student.onnx"]
    scale = 1.1
    with pytest.raises(FailedError, match=r"adaptation\.onnx differs from the engine"):
        check_onnx(tmp_path, one, 5, 1)


@pytest.mark.parametrize(
    ("off", "passes"), [(1, True), (exported.MORE // 2, True), (exported.MORE // 2 + 1, False)]
)
def test_a_task_may_fall_on_the_other_side_of_a_corner(
    without_tracing, monkeypatch, tmp_path, off, passes
):
    def cornered(run, told):
        return tuple(x + 1e-3 for x in told) if run <= off else told

    one, runs = bundles.student(), altered(monkeypatch, cornered)
    if passes:
        assert write_programs(tmp_path, one, 5, 1) == ["adaptation.pt2", "student.pt2"]
        assert len(runs) == 1 + exported.MORE + 1
    else:
        with pytest.raises(FailedError, match=r"differs from the engine by 0\.001,"):
            write_programs(tmp_path, one, 5, 1)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_one_number_that_is_none_is_refused_wherever_it_stands(
    without_tracing, monkeypatch, tmp_path, number
):
    """No corner explains it, so that other tasks are not asked."""

    def broken(run, told):
        return (*told[:-1], torch.full_like(told[-1], number)) if run == 1 else told

    one, runs = bundles.student(), altered(monkeypatch, broken)
    with pytest.raises(FailedError, match=r"adaptation\.pt2 differs from the engine by inf,"):
        write_programs(tmp_path, one, 5, 1)
    assert len(runs) == 1


def test_numbers_that_are_none_are_refused(without_tracing, monkeypatch, tmp_path):
    monkeypatch.setattr(_onnx, "missing", lambda: ["onnx"])
    one = bundles.student(inner_rate=1e30, pattern="111", inner_steps=4)
    with pytest.raises(FailedError, match="differs from the engine by"):
        write_programs(tmp_path, one, 5, 1)


def test_what_cannot_be_made_is_told_in_one_sentence(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no such\n  operator")

    monkeypatch.setattr(torch.export, "export", broken)
    with pytest.raises(FailedError, match=r"adaptation\.pt2 cannot be made .*\(no such operator\)"):
        write_programs(tmp_path, bundles.student(), 5, 1)


def test_without_the_extra_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr(_onnx, "missing", lambda: ["onnx"])
    assert check_onnx(tmp_path, bundles.student(), 5, 1) == []


@pytest.mark.slow
def test_onnx_is_written_and_run_as_torch_says(tmp_path):
    """The smallest program through the real exporter."""

    class Double(torch.nn.Module):
        @override
        def forward(self, images):
            return (images.float() * 2,)

    program = torch.export.export(Double(), (torch.ones(2, 3, dtype=torch.uint8),))
    _onnx.write(program, tmp_path / "x.onnx", ["images"], ["twice"])
    (found,) = _onnx.run(tmp_path / "x.onnx", (torch.full((2, 3), 4, dtype=torch.uint8),))
    assert torch.equal(found, torch.full((2, 3), 8.0))
    assert _onnx.missing() == []


# ------------------------------------------------------------------ without fewtune


ALONE = '''
    import runpy, sys

    class Without:
        """Finds what another finder finds, but for what is not on this device."""

        def __init__(self, finder):
            self._finder = finder

        def __getattr__(self, name):
            return getattr(self._finder, name)

        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {forbidden!r}:
                return None
            return self._finder.find_spec(name, path, target)

    sys.meta_path[:] = map(Without, sys.meta_path)
    for name in {forbidden!r}:
        try:
            __import__(name)
        except ImportError:
            continue
        raise SystemExit(name + " can be imported")
    found = runpy.run_path("program.py")
    import numpy
    said = dict.fromkeys(("support", "labels", "query", "probabilities"))
    for name in said:
        value = found[name]
        said[name] = value.detach().numpy() if hasattr(value, "detach") else value
    numpy.savez("told.npz", **said)
'''
OWN = ("search", "trainables", "spaces", "ray", "optuna", "pydantic", "safetensors", "PIL")
ONNX = ("onnx", "onnxscript", "onnxruntime")


def run_alone(folder, program, forbidden):
    """Run a program in an interpreter of its own in which nothing of ``forbidden`` is there."""
    (folder / "program.py").write_text(program)
    code = textwrap.dedent(ALONE.format(forbidden=forbidden))
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "told.npz") as told:
        return {name: torch.from_numpy(told[name]) for name in told.files}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("int8", [False, True])
def test_the_lines_of_the_readme_run_where_nothing_of_fewtune_is(tmp_path, int8):
    one = bundles.student(pattern="011" if int8 else "001", **COLOUR)
    sweep = {"evaluation": {"validation_tasks": 4, "quick_tasks": 2},
             "data": {"queries": 5, "size": bundles.SIZE, "channels": 3}}  # fmt: skip
    run = bundles.run(tmp_path / "run", [(0.9, 900, 1.0)], kept=one, sweep=sweep)
    data = load_data(load_results(run).config)
    RunDir.open(run).write_info(data={"fingerprint": data.fingerprint})
    home = tmp_path / "BUNDLE"
    export(run, 0, {}, home, extras=Extras(int8=int8))
    assert (home / "model.int8.safetensors").is_file() == int8
    text = (home / "README.md").read_text()
    by_torch, by_onnx = re.findall(r"alone:\n\n```python\n(.*?)```", text, re.DOTALL)
    noted = re.findall(r"as it was loaded\.\n\n```python\n(.*?)```", text, re.DOTALL)
    assert len(noted) == (one.spec.pattern == "001")  # the head alone
    others = "support = support.flip(2)\n"  # not those that were traced
    again = "with torch.inference_mode():\n    adapted = traced(support, labels)\n"
    again += "    probabilities = student(query, *adapted)\n"
    student = read_bundle(home).student
    for program, forbidden in (
        (by_torch, OWN + ONNX),
        *((by_torch + lines + others + again, OWN + ONNX) for lines in noted),
        (by_onnx, (*OWN, "torch", *ONNX[:2])),
    ):
        told = run_alone(tmp_path, program, forbidden)
        assert told["probabilities"].shape == (3, 2)
        adapted = student.adapt(told["support"], told["labels"].argmax(1), 2)
        expected = student.predict(adapted, told["query"])
        assert difference([told["probabilities"]], [expected]) < 1e-4
    if int8:
        kept = read_bundle(home).metrics["int8"]
        assert kept["fresh_accuracy"] == fresh_score(load_results(run).config, student, data)[
            "fresh_accuracy"
        ]  # fmt: skip
    assert verify(home).programs == ("adaptation.onnx", "student.onnx")
