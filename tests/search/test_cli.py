"""The command as a user meets it: words, exit codes, one JSON document on standard output."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from search.cli import cli, main
from search.registry import METHODS

COMMANDS = (
    "sweep", "resume", "extend", "fetch", "results", "report", "board", "export", "adapt", "verify",
    "train", "methods", "space", "data", "doctor", "launch",
)  # fmt: skip
HEAVY = {"torch", "ray", "optuna", "numpy", "pydantic", "rich", "yaml", "tensorboard"}


def fewtune(*words, **more):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", *words],
        capture_output=True, text=True, timeout=100, check=False, **more,
    )  # fmt: skip


@pytest.fixture
def fake(monkeypatch):
    """Put a module in place of one that the command imports when it runs."""

    def put(name, **members):
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def invoke(*words):
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


# ------------------------------------------------------------------ help and purity


@pytest.mark.parametrize("words", [["--help"], *([c, "--help"] for c in ("sweep", "results"))])
def test_help_imports_no_framework(words):
    code = f"""
import sys
from search.cli import main
try:
    main({words!r})
except SystemExit as ended:
    print("imported:", sorted({HEAVY!r} & set(sys.modules)), ended.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "imported: [] 0"
    assert done.stdout.startswith("Usage: fewtune")


def test_help_lists_the_words_in_the_order_of_use():
    lines = invoke("--help").output.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    "words", [["methods"], ["space", "maml"], ["data", "list"], ["data", "check", "glyphs"]]
)
def test_json_is_the_only_thing_on_standard_output(words, tmp_path):
    done = fewtune(*words, "--json", env={**os.environ, "FEWTUNE_CACHE": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_version():
    done = fewtune("--version")
    assert (done.returncode, done.stdout.split()[0].strip(",")) == (0, "fewtune")
    assert invoke("--version").stdout == done.stdout


def test_version_of_a_source_tree_that_is_not_installed(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert invoke("--version").stdout == "fewtune, not installed: run from its source tree\n"


@pytest.mark.parametrize("words", [["methods"], ["data", "list"], ["data", "check", "glyphs"]])
def test_json_in_this_process_too(words, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path))
    assert json.loads(invoke(*words, "--json").stdout)


# ------------------------------------------------------------------ exit codes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["swep"], "No such command 'swep'. Did you mean 'sweep'?"),
        (["sweep", "none.yaml"], "File 'none.yaml' does not exist."),
        (["sweep", "--trials", "0"], "0 is not in the range x>=1."),
        (["sweep", "--set", "seed"], "--set seed: Write key=value"),
        (["sweep", "--set", "data.source=glyhps"], "Did you mean glyphs?"),
        (["sweep", "--name", "a/b"], "A name has up to 100 letters"),
        (["sweep", "--set", "data.queries=999"], "needs 1000 images in each class"),
        (["results", "nowhere"], "Directory 'nowhere' does not exist."),
        (["export", ".", "--pick", "worst", "-o", "x"], "found 'worst'. There are best, knee, fa"),
        (["export", ".", "--max", "adapt_m=1", "-o", "x"], "Did you mean adapt_ms?"),
        (["export", "."], "Missing option '-o' / '--out'."),
        (["adapt", "."], "Missing option '--support'."),
        (["space", "mmal"], "There is no method 'mmal'. Did you mean maml?"),
        (["data", "check", "omniglto"], "There is no data source 'omniglto'"),
        (["train"], "Missing argument 'FILE.yaml'."),
    ],
)
def test_wrong_input_ends_with_2_and_a_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 2, err
    assert says in err
    assert out == ""
    assert "Traceback" not in err


def test_a_real_process_ends_with_2_and_every_mistake_of_the_file(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("method: maml\nspace: {student.widht: 8}\nconstraints: [student_parms <= 4]\n")
    done = fewtune("sweep", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    first, space_error, constraint_error = done.stderr.splitlines()
    assert first == f"Error: {file} has 2 errors:"
    assert space_error.startswith("  line 2, space.student.widht: The method has no parameter")
    assert space_error.endswith("Did you mean student.width?")
    assert constraint_error.startswith("  line 3, constraints[0]: `student_parms <= 4` names no")
    assert constraint_error.endswith("Did you mean student_params?")


def test_what_the_data_cannot_fill_is_said_before_ray_is_imported(tmp_path):
    code = """
import sys
from search.cli import main
try:
    main(["sweep", "--set", "data.queries=999"])
except SystemExit as ended:
    print(ended.code, "ray" in sys.modules)
"""
    home = {**os.environ, "FEWTUNE_CACHE": str(tmp_path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=home)
    assert "needs 1000 images in each class" in done.stderr
    assert done.stdout == "2 False\n"


def test_an_unexpected_error_ends_with_1_and_debug_shows_where(tmp_path):
    code = """
import search.config
from search.cli import main
def load_sweep(*_args, **_more):
    raise RuntimeError("the disk\\nis tired")
search.config.load_sweep = load_sweep
main()
"""
    words = [sys.executable, "-c", code]
    plain = subprocess.run([*words, "sweep"], capture_output=True, text=True, timeout=60)
    assert plain.returncode == 1
    assert plain.stderr == (
        "Unexpected RuntimeError: the disk is tired. "
        "Run it again as `fewtune --debug ...` to see where.\n"
    )
    debug = subprocess.run([*words, "--debug", "sweep"], capture_output=True, text=True, timeout=60)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith("Unexpected RuntimeError: the disk is tired.\n")


def test_ctrl_c_ends_with_1_and_a_sentence(tmp_path):
    code = """
import sys, time
import search.config
from search.cli import main
def load_sweep(*_args, **_more):
    print("here", flush=True)
    time.sleep(60)
search.config.load_sweep = load_sweep
main(["sweep"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.strip() == "Stopped."


def test_a_reader_that_leaves_early_is_no_crash():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", "methods", "--json"],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


# ------------------------------------------------------------------ what reaches the search


def test_sweep_hands_over_the_file_with_its_overrides(fake, tmp_path, monkeypatch):
    seen: dict[str, Any] = {}

    def run_sweep(config, **more):
        seen.update(config=config, **more)
        return tmp_path / "run"

    fake("search.sweep", run_sweep=run_sweep)
    file = tmp_path / "s.yaml"
    file.write_text("method: maml\nbudget: {trials: 3}\n")
    result = invoke(
        "sweep", file, "--set", "seed=7", "--trials", 5, "--name", "n", "--storage", tmp_path,
        "--address", "auto",
    )  # fmt: skip
    assert result.exception is None
    assert (seen["config"].seed, seen["config"].budget.trials) == (7, 5)
    assert (seen["name"], seen["storage"], seen["address"]) == ("n", str(tmp_path), "auto")
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert f"fewtune results {tmp_path / 'run'}" in result.stderr


def test_sweep_without_a_file_is_the_quickstart(fake, tmp_path):
    seen = []

    def run_sweep(config, **_more):
        seen.append(config)
        return tmp_path

    fake("search.sweep", run_sweep=run_sweep)
    assert invoke("sweep").exception is None
    assert seen[0].data.source == "glyphs"


def test_resume_and_extend(fake, tmp_path):
    seen: list[object] = []

    def resume(run, address, max_disk):
        seen.append(("resume", run, address, max_disk))
        return run

    def extend(run, trials, address):
        seen.append(("extend", run, trials, address))
        return run

    fake("search.sweep", resume=resume, extend=extend)
    assert invoke("resume", tmp_path).stdout == f"{tmp_path}\n"
    assert invoke("extend", tmp_path, "--trials", 4, "--address", "auto").exception is None
    assert invoke("resume", tmp_path, "--max-disk", "20GB").exception is None
    assert seen == [
        ("resume", tmp_path, None, None),
        ("extend", tmp_path, 4, "auto"),
        ("resume", tmp_path, None, "20GB"),
    ]


def chatty(value):
    """Return a stand-in that also prints, as libraries do."""

    def work(*_words, **_more):
        sys.stdout.write("loading...\n")
        return value

    return work


def test_results(fake, tmp_path):
    shown = []
    run = SimpleNamespace(
        to_json=lambda: {"trials": [{"metrics": {"accuracy": float("nan")}}]},
        print=lambda console, *, front_only: shown.append(front_only),
    )
    fake("search.results", load_results=chatty(run))
    result = invoke("results", tmp_path, "--json")
    assert json.loads(result.stdout) == {"trials": [{"metrics": {"accuracy": None}}]}
    invoke("results", tmp_path, "--front")
    assert shown == [True]


def test_board(fake, tmp_path):
    seen = []
    fake("search.board", serve=lambda *words: seen.append(words))
    invoke("board", tmp_path)
    invoke("board", tmp_path, "--host", "0.0.0.0", "--port", 7000)
    assert seen == [(tmp_path, "127.0.0.1", 6006), (tmp_path, "0.0.0.0", 7000)]


def test_the_help_of_export_names_every_word_of_a_pick():
    from search.picks import ALL_FRONT, WORDS

    assert "|".join([*WORDS, "TRIAL", ALL_FRONT]) in invoke("export", "--help").output


def test_export(fake, tmp_path):
    seen = []

    def export(*words, minima, extras):
        seen.append((*words, minima, extras))
        report = {"trial": 3, "out": "bundle"}
        return SimpleNamespace(sentence="Trial 3 is the knee.", to_json=lambda: report)

    every = {"export": export, "export_all": lambda *words, minima, extras: []}
    fake("search.export", Extras=lambda **words: words, **every)
    out = tmp_path / "bundle"
    result = invoke(
        "export", tmp_path, "--pick", "12", "--max", "adapt_ms=2.5", "--max", "quality_drop=1%",
        "-o", out,
    )  # fmt: skip
    assert result.stdout == "Trial 3 is the knee.\n"
    invoke("export", tmp_path, "-o", out, "--min", "accuracy=90%", "--int8", "--no-programs")
    usual = {"programs": True, "int8": False}
    assert seen == [
        (tmp_path, "12", {"adapt_ms": 2.5, "quality_drop": 0.01}, out, {}, usual),
        (tmp_path, "knee", {}, out, {"accuracy": 0.9}, {"programs": False, "int8": True}),
    ]
    document = json.loads(invoke("export", tmp_path, "-o", out, "--json").stdout)
    assert document == {"bundles": [{"trial": 3, "out": "bundle"}]}
    every_one = invoke("export", tmp_path, "--pick", "all-front", "-o", out, "--json").stdout
    assert json.loads(every_one) == {"bundles": []}


def test_adapt(fake, tmp_path):
    shown: list[object] = []
    report = SimpleNamespace(to_json=lambda: {"classes": ["a"]}, print=shown.append)
    fake("search.adapt", adapt=chatty(report))
    result = invoke("adapt", tmp_path, "--support", tmp_path, "--json")
    assert json.loads(result.stdout) == {"classes": ["a"]}
    invoke("adapt", tmp_path, "--support", tmp_path, "--query", tmp_path)
    assert len(shown) == 1


def test_verify(fake, tmp_path):
    shown: list[object] = []
    report = SimpleNamespace(to_json=lambda: {"holds": True}, print=shown.append, holds=True)
    fake("search.verify", verify=chatty(report))
    assert json.loads(invoke("verify", tmp_path, "--json").stdout) == {"holds": True}
    invoke("verify", tmp_path)
    assert len(shown) == 1


def test_train(fake, tmp_path):
    fake("search.train", train=chatty({"accuracy": 0.91, "teacher_accuracy": None}))
    file = tmp_path / "s.yaml"
    file.write_text("method: maml\n")
    result = invoke("train", file, "--json")
    assert json.loads(result.stdout) == {"accuracy": 0.91, "teacher_accuracy": None}
    shown = invoke("train", file).stdout
    assert "0.91" in shown
    assert "on meta-validation tasks" in shown


# ------------------------------------------------------------------ what there is


def test_methods_and_sources_as_tables():
    shown = invoke("methods").stdout
    assert all(name in shown for name in METHODS)
    assert "glyphs" in invoke("data", "list").stdout


def test_space_says_domain_default_stage_condition_and_reason():
    document = json.loads(invoke("space", "maml", "--json").stdout)
    (epsilon,) = [row for row in document["searched"] if row["parameter"] == "epsilon"]
    assert epsilon["domain"] == {"float": [0.0, 0.05]}
    assert epsilon["stage"] == "adaptation"
    assert epsilon["condition"] is None
    assert "more than 5 points" in epsilon["why"]
    assert isinstance(epsilon["default"], float)
    assert "order" in {row["parameter"] for row in document["settable"]}
    shown = invoke("space", "maml").stdout
    assert "student.width" in shown
    assert "int [8, 64] log" in shown
    assert "64 filters are the paper's Omniglot network" in shown


def test_data_check_and_prepare(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path / "cache"))
    shown = invoke("data", "check", "glyphs", "--size", 20, "--shots", 5).stdout
    assert "20 x 20, grey" in shown
    assert shown.endswith("5-way 5-shot with 15 queries: fits\n")
    result = invoke("data", "prepare", "glyphs", "--path", tmp_path, "--json")
    found = json.loads(result.stdout)
    assert found["source"] == "glyphs"
    assert Path(found["path"]).is_relative_to(tmp_path)
    assert "glyphs is ready in" in invoke("data", "prepare", "glyphs", "--path", tmp_path).stdout
