"""What looks executable in the documents is: sweep files load, commands run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest

from search.cli import cli
from search.config import load_sweep
from tests import bundles

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    if line.startswith("fewtune ")
]
# what a machine without archives and with little time adds to every sweep; the last --set wins
SMALL = """--trials 2 --set data.source=glyphs --set data.queries=5 --set budget.iterations=4
    --set space.student.width=8 --set space.student.depth=2 --set space.inner_steps=1
    --set space.teacher.width=8 --set space.meta_batch=2 --set constraints=[]
    --set evaluation.validation_tasks=4 --set evaluation.test_tasks=4"""


def test_something_was_found():
    assert len(COMMANDS) >= 4
    assert sum(kind == "yaml" for kind, _ in BLOCKS) >= 1


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "yaml"])
def test_sweep_files_load(text, tmp_path):
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    config = load_sweep(tmp_path / "sweep.yaml")
    assert config.method == "meta_distillation"
    assert config.resolved_space()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    _, name, *words = shlex.split(line)
    command = cli.commands[name]
    parser = command.make_parser(click.Context(command))
    _, left, _ = parser.parse_args(list(words))  # an unknown flag raises
    needed = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    assert len(left) == 0
    assert len(words) >= len(needed)
    if name == "sweep":
        load_sweep(None, [word for flag, word in pairwise(words) if flag == "--set"])


@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_the_commands_do_what_they_say_one_after_the_other(tmp_path):
    """The README's shell blocks as they stand, by a shell, on embedded data."""
    command = tmp_path / "bin" / "fewtune"
    command.parent.mkdir()
    command.write_text(f"""#!/bin/sh
[ "$1" = sweep ] && set -- "$@" {" ".join(SMALL.split())}
[ "$1" = export ] && set -- "$@" --no-programs
exec {shlex.quote(sys.executable)} -m search.cli "$@"
""")
    command.chmod(0o755)
    bundles.folders(tmp_path / "photos" / "known")
    (bundles.folders(tmp_path / "drawn", ("disc",), seed=7) / "disc").rename(
        tmp_path / "photos" / "new"
    )
    home = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-eu", "-c", "".join(text for kind, text in BLOCKS if kind == "bash")],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **home},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my-student" / "model.safetensors").is_file()
    for words in ("runs/letters", "* on the front", "Wrote trial", "Classified 2 images"):
        assert words in done.stdout


def test_the_table_of_commands_names_them_all():
    named = set(re.findall(r"`fewtune (\w+)", README))
    assert set(cli.commands) <= named


@pytest.mark.parametrize("name", re.findall(r"\]\(([\w/.]+)\)", README))
def test_what_is_linked_is_there(name):
    assert (ROOT / name).exists()


def test_every_method_has_a_row():
    from search.registry import METHODS

    for method in METHODS:
        assert f"| `{method}` | " in README


def test_the_lines_of_python_call_what_there_is(tmp_path, monkeypatch):
    """The block as it stands, between a finished run and pictures that are there."""
    from search import api

    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    run = bundles.run(tmp_path / "run", [(0.5, 1000, 1.0), (0.8, 3000, 2.0)])
    monkeypatch.setattr(api, "sweep", lambda file, changes: api.results(run))
    monkeypatch.setattr("search.export.write_programs", lambda *_, **__: [])
    for name in ("cat", "dog", "new"):
        bundles.draw("disc" if name == "dog" else "bar", 0).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["adapted"].classes == ("cat", "dog")
    assert found["adapted"].predict(["new.jpg"])[0].label == "cat"
