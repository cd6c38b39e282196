"""Thresholds asked of a run whose trials left their scores."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from rich.console import Console

from search.cli import main
from search.config import SweepConfig, dump_sweep
from search.contents import contents
from search.errors import UserError
from search.results import load_results
from search.rundir import RunDir, read_json, write_json
from search.stills import thresholds
from search.threshold import answers, print_answers, read_thresholds
from tests.trainables.test_contract import SHAPE, data, make  # noqa: F401  the fixture
from trainables._learner import RunSettings

if TYPE_CHECKING:
    from pathlib import Path

OWN: dict[str, Any] = {"student.width": 4, "student.depth": 2, "meta_batch": 2, "inner_steps": 2,
                       "student.head": "shared", "test.steps": 3}  # fmt: skip


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> RunDir:  # noqa: F811
    torch.set_num_threads(1)
    settings = RunSettings(3, seed=0, validation_tasks=24, quick_tasks=3)
    learner = make("maml", data, settings, **OWN)
    for _ in range(3):
        learner.step()
    outcome = learner.finish()
    run = RunDir.create(tmp_path_factory.mktemp("runs") / "asked")
    shape = {"ways": SHAPE.ways, "shots": SHAPE.shots, "queries": SHAPE.queries}
    config = SweepConfig(method="maml", data=shape, objectives={"accuracy": "max"})  # type: ignore[arg-type]
    run.sweep_file.write_text(dump_sweep(config), encoding="utf-8")
    run.write_info(name="asked", trials=1, sessions=[])
    (run.trial(0) / "student").mkdir(parents=True)
    outcome.student.save(run.trial(0) / "student")
    assert outcome.scores is not None
    outcome.scores.save(run.trial(0))
    write_json(run.trial(0) / "table.json", outcome.table)
    result = {"id": 0, "state": "COMPLETE", "config": OWN, "metrics": outcome.metrics,
              "failure": None, "cost_s": 1.0, "stopped": "", "notes": [], "reports": [],
              "started": "", "ended": "", "of": None}  # fmt: skip
    run.write_result(result)
    return run


def test_every_threshold_is_answered_for_every_model(run: RunDir) -> None:
    document = answers(load_results(run.path), [0.0, 0.01, 1.0])
    assert [t["epsilon"] for t in document["thresholds"]] == [0.0, 0.01, 1.0]
    rows = [t["models"][0] for t in document["thresholds"]]
    assert all(row["trial"] == 0 for row in rows)
    metrics = load_results(run.path).trials[0]["metrics"]
    own = rows[1]  # the default epsilon
    assert own["exact"]
    for name in ("pattern", "inner_steps", "accuracy", "quality_drop", "adapt_macs", "adapt_ms"):
        assert own[name] == metrics[name], name
    macs = [row["adapt_macs"] for row in rows if row["exact"]]
    assert macs == sorted(macs, reverse=True)


def test_the_table_says_what_exact_means(run: RunDir) -> None:
    out = io.StringIO()
    document = answers(load_results(run.path), [0.01])
    print_answers(document, Console(file=out, width=160))
    assert "exact: as a trial with this epsilon would choose" in out.getvalue()
    document["thresholds"][0]["models"][0]["exact"] = False
    print_answers(document, Console(file=out, width=160))
    assert "1 answer not exact" in out.getvalue()


def test_models_that_differ_in_epsilon_alone_are_one(run: RunDir) -> None:
    found = load_results(run.path)
    again = {**found.trials[0], "id": 0, "config": {**OWN, "epsilon": 0.04}}
    found.trials.append(again)
    assert len(answers(found, [0.01])["thresholds"][0]["models"]) == 1


def test_a_run_without_tables_says_so(run: RunDir, tmp_path: Path) -> None:
    found = load_results(run.path)
    other = RunDir(tmp_path)
    with pytest.raises(UserError, match="left a table that can be asked"):
        answers(type(found)(other, found.config, found.info, found.trials), [0.01])
    with pytest.raises(UserError, match="no feasible complete trial"):
        answers(type(found)(run, found.config, found.info, []), [0.01])


@pytest.mark.parametrize("text", ["", "a", "0.01;0.02", "-0.1", "2", "nan"])
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--epsilon takes losses of accuracy from 0 to 1"):
        read_thresholds(text)


def test_the_command_refuses_a_wrong_threshold_in_a_sentence(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["results", str(run.path), "--epsilon", "1.5"])
    assert ended.value.code == 2
    assert "found `1.5`" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["results", str(run.path), "--epsilon", "0.01,2%", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert [t["epsilon"] for t in told["thresholds"]] == [0.01, 0.02]


def test_a_report_asks_every_threshold_and_keeps_each_choice_once(run: RunDir) -> None:
    found = contents(load_results(run.path), "RUN")["thresholds"]
    (model,) = found["models"]
    assert len(model["at"]) == len(found["epsilons"]) == 41
    assert max(model["at"]) == len(model["choices"]) - 1
    table = read_json(run.trial(0) / "table.json")
    (full,) = [r for r in table if r["pattern"] == "111" and r["step"] == OWN["test.steps"]]
    for choice in model["choices"]:
        assert choice["adapt_ms_full"] == pytest.approx(full["adapt_ms"], rel=1e-5)
    assert [c["adapt_macs"] for c in model["choices"] if c["exact"]] == sorted(
        (c["adapt_macs"] for c in model["choices"] if c["exact"]), reverse=True
    )
    figure = thresholds(found)
    assert figure is not None
    assert figure.axes[0].get_xlabel() == "milliseconds saved"
