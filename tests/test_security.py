"""What the code must never do, held against all of it."""

import ast
from pathlib import Path
from typing import Any

import pytest

from search._cluster import connected

ROOT = Path(__file__).parent.parent
FILES = [
    f for package in ("search", "trainables", "spaces") for f in (ROOT / package).rglob("*.py")
]
UNPICKLING = {"load", "loads", "Unpickler", "read_pickle"}
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "cPickle"}


def calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node, ast.unparse(node.func)


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def wrong(file):
    """Calls of a file that could run what a file or a study holds."""
    for node, name in calls(file):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        bad = (
            (name == "torch.load" and given.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False")
            or (name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"))
            or name.rpartition(".")[2] == "read_pickle"
        )
        if bad:
            yield f"{file.name}:{node.lineno} {name}"


def test_no_pickle_is_read_from_a_bundle_a_checkpoint_or_a_study():
    assert len(FILES) > 100
    assert [found for file in FILES for found in wrong(file)] == []
    assert [file.name for file in FILES if MODULES & set(imported(file))] == []
    loads = [name for file in FILES for _, name in calls(file) if name == "torch.load"]
    assert len(loads) == 1  # the check has something to look at


@pytest.mark.parametrize(
    "line",
    ["torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x, allow_pickle=True)",
     "yaml.load(x)", "pd.read_pickle(x)"],
)  # fmt: skip
def test_the_check_finds_what_it_is_for(line, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(line)
    assert len(list(wrong(file))) == 1


def test_nobody_turns_authentication_off():
    for file in [*FILES, *(ROOT / "deploy").iterdir(), ROOT / "cluster.yaml", ROOT / "Makefile"]:
        text = file.read_text(encoding="utf-8").replace("RAY_AUTH_MODE=token", "")
        assert "AUTH_MODE=" not in text, file
        assert "mode: disabled" not in text, file


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_ray_started_here_asks_for_its_token():
    import ray
    from ray import _raylet

    raylet: Any = _raylet
    if ray.is_initialized():
        pytest.skip("another test's Ray is there")
    with connected():
        assert raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
