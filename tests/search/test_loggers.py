"""Which loggers a sweep file may name, and that no secret is written, kept or shown."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from search import loggers, sweep
from search.config import SweepConfig, dump_sweep, load_sweep
from search.errors import UserError
from search.loggers import check_loggers, hidden

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef0123456789abcdef01234567"  # as long as one of Weights & Biases
TOKEN = "hunter2"


def written(folder: Path, text: str) -> Path:
    (folder / "sweep.yaml").write_text(f"method: maml\nloggers: {text}\n", "utf-8")
    return folder / "sweep.yaml"


def address(of: str) -> str:
    return f"{{mlflow: {{tracking_uri: '{of}'}}}}"


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("[wandb, mlflow]", {"wandb": {}, "mlflow": {}}),
        ("{wandb: {project: p, group: g}}", {"wandb": {"project": "p", "group": "g"}}),
        ("{mlflow: null}", {"mlflow": {}}),
        ("{mlflow: {tracking_uri: 'sqlite:////tmp/m.db', experiment_name: x}}",
         {"mlflow": {"tracking_uri": "sqlite:////tmp/m.db", "experiment_name": "x"}}),
        (address("http://me@host:5000"), {"mlflow": {"tracking_uri": "http://me@host:5000"}}),
        (address("file:///tmp/runs"), {"mlflow": {"tracking_uri": "file:///tmp/runs"}}),
        ("[]", {}),
        ("null", {}),
    ],
)  # fmt: skip
def test_one_line_names_them(tmp_path: Path, text: str, understood: Any) -> None:
    config = load_sweep(written(tmp_path, text), settings=False)
    assert config.loggers == understood
    (tmp_path / "again.yaml").write_text(dump_sweep(config), "utf-8")
    assert load_sweep(tmp_path / "again.yaml", settings=False).loggers == config.loggers


def test_nobody_follows_unless_the_file_says_so() -> None:
    assert SweepConfig(method="maml").loggers == {}
    assert load_sweep(None, ["loggers=[mlflow]"], settings=False).loggers == {"mlflow": {}}


SECRET = "An API key, token or password must not stand in a sweep file"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("[wandbb]", "loggers[0]", "Did you mean wandb?"),
        ("[tensorboard]", "loggers[0]", "There are mlflow, wandb."),
        (f"[wandb, {KEY}]", "loggers[1]", "There is no such logger"),
        ("{neptune: {}}", "loggers.neptune", "There are mlflow, wandb."),
        ("wandb", "loggers", "Expected a list, as in [wandb, mlflow]"),
        ("3", "loggers", "found 3."),
        ("[{wandb: {project: p}}]", "loggers[0]", "There is no such logger"),
        (f"{{wandb: {KEY}}}", "loggers.wandb", "Expected a mapping of options; found a word."),
        ("{wandb: {projct: p}}", "loggers.wandb.projct", "Did you mean project?"),
        ("{mlflow: {mode: p}}", "loggers.mlflow.mode", "There are tracking_uri, experiment_name."),
        ("{wandb: {project: 3}}", "loggers.wandb.project", "Expected a word; found 3."),
        (f"{{wandb: {{api_key: {TOKEN}}}}}", "loggers.wandb.api_key", f"{SECRET}"),
        (f"{{wandb: {{api_key_file: {TOKEN}}}}}", "loggers.wandb.api_key_file", "wandb login"),
        (f"{{wandb: {{project: {KEY}}}}}", "loggers.wandb.project", SECRET),
        (f"{{mlflow: {{tracking_token: {TOKEN}}}}}", "loggers.mlflow.tracking_token", SECRET),
        (address(f"https://me:{TOKEN}@host"), "loggers.mlflow.tracking_uri", SECRET),
        (address(f"https://{TOKEN}-token@host"), "loggers.mlflow.tracking_uri", SECRET),
        (address(f"https://host?token={TOKEN}"), "loggers.mlflow.tracking_uri", SECRET),
        (address(f"http://[{TOKEN}"), "loggers.mlflow.tracking_uri", "This is no address"),
        (address("host"), "loggers.mlflow.tracking_uri", "Expected an address"),
        (address("sqlite:///m.db"), "loggers.mlflow.tracking_uri", "give the whole path"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_that_shows_no_value(
    tmp_path: Path, text: str, place: str, said: str
) -> None:
    for file, change in ((written(tmp_path, text), []), (None, [f"loggers={text}"])):
        with pytest.raises(UserError) as error:
            load_sweep(file, change, settings=False)
        assert said in str(error.value)
        assert place in str(error.value)
        assert KEY not in str(error.value)
        assert TOKEN not in str(error.value)


def test_an_option_set_alone_is_told_how() -> None:
    with pytest.raises(UserError, match=r"as a whole, as in loggers=\{wandb: \{project: NAME\}\}"):
        load_sweep(None, ["loggers.wandb.project=mine"], settings=False)
    with pytest.raises(UserError) as error:
        load_sweep(None, [f"loggers.wandb.api_key={TOKEN}"], settings=False)
    assert TOKEN not in str(error.value)


def test_a_package_that_is_missing_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == "wandb" else name)
    check_loggers({"mlflow": {}})
    with pytest.raises(
        UserError, match=r'wandb \(loggers\).* Install it with .*fewtune\[loggers\]"'
    ):
        check_loggers({"wandb": {}, "mlflow": {}})
    config = SweepConfig(method="maml", loggers={"wandb": {}})
    with pytest.raises(UserError, match="does not have"):
        sweep.run_sweep(config, name="never", storage=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_without_loggers_imports_none() -> None:
    """Neither do the run directory, the configuration, and what feeds a logger."""
    asked = "import sys, search.session; print({'wandb', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_may_be_secret_is_left_out_of_a_message() -> None:
    told = hidden(
        f"401 for {TOKEN} at http://me:pw@host and {KEY}", {"MLFLOW_TRACKING_TOKEN": TOKEN}
    )
    assert told == "401 for *** at http://***@host and ***"
    assert hidden("exit 1", {"API_KEY": "1"}) == "exit 1"  # too short to be one
