"""What looks executable in the documents is: sweep files load, commands and flags exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from search.cli import cli
from search.config import load_sweep

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
