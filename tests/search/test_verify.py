"""A bundle is believed where its files and its accuracies are found again, and nowhere else."""

import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console

from search import verify as module
from search.cli import cli
from search.errors import UserError
from search.export import Extras, export
from search.exported import rounded
from search.fresh import fresh_score
from search.preflight import load_data
from search.results import load_results
from search.rundir import RunDir
from search.verify import verify
from tests import bundles
from trainables._core.ending import TEST_SEED, VALIDATION_SEED, student_accuracies
from trainables._core.episodes import Sampler, TaskShape

SWEEP = {"evaluation": {"validation_tasks": 12, "quick_tasks": 2, "test_tasks": 6},
         "data": {"queries": 5}, "seed": 3}  # fmt: skip


def truth(config, data, student, split, seed, tasks):
    sampler = Sampler(split, data, TaskShape(5, 1, 5), "cpu")
    return float(student_accuracies(student, sampler, config.seed + seed, tasks).double().mean())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run whose trial tells the accuracies that its student has."""
    run = bundles.run(tmp_path_factory.mktemp("runs") / "run", [], sweep=SWEEP)
    config = load_results(run).config
    data = load_data(config)
    student = bundles.student(size=data.size, input_size=data.size)
    numbers = bundles.metrics(
        truth(config, data, student, data.validation, VALIDATION_SEED, 12), 10, 1.0,
        test_accuracy=truth(config, data, student, data.test, TEST_SEED, 6),
    )  # fmt: skip
    home = RunDir.open(run)
    bundles.add(home, 0, metrics=numbers)
    (home.trial(0) / "student").mkdir()
    student.save(home.trial(0) / "student")
    home.write_info(data={"fingerprint": data.fingerprint})
    return run


def exported(place, out, **extras):
    export(place, 0, {}, out, extras=Extras(programs=False, **extras))
    return out


@pytest.fixture
def home(place, tmp_path):
    return exported(place, tmp_path / "home")


def test_what_a_bundle_says_is_found_again(home):
    report = verify(home)
    assert report.holds
    assert [c.name for c in report.checks] == ["accuracy", "fresh_accuracy", "test_accuracy"]
    assert all(c.said == pytest.approx(c.found, abs=1e-9) for c in report.checks)
    assert (report.files, report.programs) == (5, ())
    text = io.StringIO()
    report.print(Console(file=text, width=120))
    assert "5 files are as they were exported." in text.getvalue()
    assert "found, the same." in text.getvalue()


def test_an_accuracy_that_is_not_found_again_is_named(home):
    file = home / "metrics.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "accuracy": known["accuracy"] + 0.05}))
    bundles.reseal(home)
    report = verify(home)
    assert [c.name for c in report.checks if not c.holds] == ["accuracy"]
    done = CliRunner().invoke(cli, ["verify", str(home)], standalone_mode=False)
    assert done.return_value == 1
    assert "NOT the same" in done.output
    done = CliRunner().invoke(cli, ["verify", str(home), "--json"], standalone_mode=False)
    assert json.loads(done.stdout)["holds"] is False


def test_a_tampered_file_is_refused_by_name(home):
    weights = home / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"model\.safetensors is not as it was exported"):
        verify(home)


def test_other_data_is_refused(home):
    with pytest.raises(UserError, match=r"made on data with fingerprint .*--set data\.path=FOLDER"):
        verify(home, ["data.seed=7"])


def test_rounded_weights_are_held_to_their_own_accuracy(place, tmp_path):
    home = exported(place, tmp_path / "small", int8=True)
    report = verify(home)
    assert report.holds
    assert [c.name for c in report.checks] == ["int8 fresh_accuracy"]
    config = load_results(place).config
    student = bundles.student(size=28, input_size=28)
    known = fresh_score(config, rounded(student), load_data(config))
    assert report.checks[0].said == known["fresh_accuracy"]
    assert (home / "model.int8.safetensors").is_file()
    assert "rounded to int8" in (home / "README.md").read_text()


def test_rounded_weights_are_not_exported_unmeasured(place, tmp_path):
    RunDir.open(place)
    info = json.loads((place / "run.json").read_text())
    other = tmp_path / "other"
    import shutil

    shutil.copytree(place, other)
    (other / "run.json").write_text(json.dumps({**info, "data": {"fingerprint": "f" * 64}}))
    with pytest.raises(UserError, match="int8 weights are scored before they are exported"):
        exported(other, tmp_path / "out", int8=True)


def test_programs_are_run_beside_the_engine(home, monkeypatch):
    monkeypatch.setattr(module, "check_onnx", lambda *_: ["student.onnx"])
    assert verify(home).programs == ("student.onnx",)
    assert verify(home).to_json()["programs"] == ["student.onnx"]
