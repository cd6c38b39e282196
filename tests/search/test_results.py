from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.axes import Axes
from rich.console import Console

from search.config import SweepConfig, dump_sweep
from search.errors import UserError
from search.figures import front_png
from search.metrics import METRICS
from search.results import RunResults, box_of, load_results, share_of_box
from search.rundir import RunDir

if TYPE_CHECKING:
    from pathlib import Path


def trial(number: int, state: str = "COMPLETE", **metrics: Any) -> dict[str, Any]:
    failure = {"kind": "diverged", "reason": "the loss became nan"} if state == "FAIL" else None
    return {
        "id": number, "state": state, "config": {"student.width": 8 + number}, "metrics": metrics,
        "failure": failure, "cost_s": 10.0, "stopped": "", "notes": [], "reports": [],
        "started": "", "ended": "",
    }  # fmt: skip


def point(accuracy: float, params: int, ms: float, drop: float = 0.0) -> dict[str, Any]:
    return {
        "accuracy": accuracy, "student_params": params, "adapt_ms": ms, "quality_drop": drop,
        "pattern": "0011",
    }  # fmt: skip


TRIALS = [
    trial(0, **point(0.90, 9000, 4.0)),
    trial(1, **point(0.85, 3000, 2.0)),
    trial(2, **point(0.80, 5000, 3.0)),  # dominated by 1
    trial(3, **point(0.95, 9000, 4.0, drop=0.5)),  # breaks the constraint
    trial(4, "FAIL"),
    trial(5, "PRUNED", accuracy=0.99),
    trial(6, "RUNNING"),
    trial(7, **point(0.70, 1000, 1.0)),
]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def build(trials: list[dict[str, Any]], **changes: Any) -> RunResults:
        from search.constraints import Constraint

        plain = {"method": "maml", "constraints": (Constraint.parse("quality_drop <= 0.02"),)}
        run = RunDir.create(tmp_path / "mine")
        run.sweep_file.write_text(dump_sweep(SweepConfig(**{**plain, **changes})), "utf-8")
        run.write_info(name="mine")
        for one in trials:
            run.write_result(one)
        return load_results(run.path)

    return build


def test_the_front_is_feasible_complete_and_not_dominated(make: Any) -> None:
    results = make(TRIALS)
    assert [t["id"] for t in results.feasible()] == [0, 1, 2, 7]
    assert [t["id"] for t in results.front()] == [0, 1, 7]


def test_the_document_has_the_contracts_keys_and_every_metric(make: Any) -> None:
    document = json.loads(json.dumps(make(TRIALS).to_json(), allow_nan=False))
    assert list(document) == [
        "run", "method", "objectives", "constraints", "hypervolume", "spending", "trials", "front",
        "paired",
    ]  # fmt: skip
    assert document["constraints"] == ["quality_drop <= 0.02"]
    assert document["front"] == [0, 1, 7]
    assert 0 < document["hypervolume"] < 1
    for one in document["trials"]:
        assert METRICS.keys() <= one["metrics"].keys()
    assert document["trials"][4]["failure"]["kind"] == "diverged"
    assert document["trials"][4]["metrics"]["accuracy"] is None


def test_a_run_without_trials_has_no_hypervolume(make: Any) -> None:
    document = make([]).to_json()
    assert (document["hypervolume"], document["front"], document["trials"]) == (None, [], [])


@pytest.mark.parametrize(
    "objectives", [{"accuracy": "max"}, {"accuracy": "max", "adapt_ms": "min"}]
)
def test_one_trial_alone_fills_some_of_its_box(make: Any, objectives: Any) -> None:
    assert make(TRIALS[:1], objectives=objectives).hypervolume() > 0


def test_the_box_is_kept_so_that_hypervolumes_compare(make: Any) -> None:
    results = make(TRIALS)
    box, before = results.box(), results.hypervolume()
    results.run.write_info(hypervolume_box=box)
    results.run.write_result(trial(8, **point(0.2, 500_000, 90.0)))
    again = load_results(results.run.path)
    assert again.box() == box
    assert again.hypervolume() == pytest.approx(before)
    results.run.write_result(trial(9, **point(0.95, 900, 0.9)))
    assert load_results(results.run.path).hypervolume() > before


def test_the_box_reaches_from_the_worst_to_the_best_possible() -> None:
    box = box_of(
        [point(0.5, 1000, 1.0), point(0.9, 3000, 2.0)], {"accuracy": "max", "adapt_ms": "min"}
    )
    assert box == {
        "reference": {"accuracy": pytest.approx(0.46), "adapt_ms": pytest.approx(2.1)},
        "ideal": {"accuracy": 1.0, "adapt_ms": 0.0},
    }
    speed = box_of([{"adapt_speedup": 2.0}, {"adapt_speedup": 4.0}], {"adapt_speedup": "max"})
    assert speed is not None
    assert speed["ideal"] == {"adapt_speedup": 4.0}
    assert box_of([], {"accuracy": "max"}) is None


def test_the_share_never_exceeds_the_box() -> None:
    box = {
        "reference": {"accuracy": 0.5, "adapt_speedup": 1.0},
        "ideal": {"accuracy": 1.0, "adapt_speedup": 2.0},  # the best seen when the box was made
    }
    objectives: Any = {"accuracy": "max", "adapt_speedup": "max"}
    assert share_of_box([(-0.9, -40.0)], objectives, box) == pytest.approx(0.8)
    assert share_of_box([(-1.0, -40.0), (-0.9, -50.0)], objectives, box) == 1.0


def test_a_box_without_room_holds_nothing() -> None:
    flat = {"reference": {"accuracy": 1.0}, "ideal": {"accuracy": 1.0}}
    assert share_of_box([(-1.0,)], {"accuracy": "max"}, flat) == 0.0


def test_the_ideal_point_fills_the_box() -> None:
    box = {
        "reference": {"accuracy": 0.5, "adapt_ms": 4.0},
        "ideal": {"accuracy": 1.0, "adapt_ms": 0.0},
    }
    objectives: Any = {"accuracy": "max", "adapt_ms": "min"}
    assert share_of_box([(-1.0, 0.0)], objectives, box) == pytest.approx(1.0)
    assert share_of_box([(-0.75, 2.0)], objectives, box) == pytest.approx(0.25)
    assert share_of_box([], objectives, box) == 0.0


def printed(results: RunResults, **how: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    results.print(console, **how)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_people_see_every_trial_and_why_one_failed(make: Any) -> None:
    text = printed(make(TRIALS))
    assert "FAIL: diverged" in text
    assert "85.0 %" in text
    assert "1*" in text
    assert (
        "7 of 8 trials: 5 complete, 1 stopped early, 1 failed (1 diverged), 1 interrupted" in text
    )
    assert "* on the front: 3 of 4 feasible trials; hypervolume 0." in text


def on_a_terminal(results: RunResults, width: int, **how: Any) -> list[str]:
    out = io.StringIO()
    results.print(
        Console(file=out, width=width, force_terminal=True, color_system=None, highlight=False),
        **how,
    )
    return out.getvalue().splitlines()


@pytest.mark.parametrize("front_only", [False, True])
def test_a_narrow_terminal_loses_whole_columns_and_names_them(make: Any, front_only: bool) -> None:
    more: dict[str, Any] = {"accuracy_ci95": 0.012, "inner_steps": 5, "adapt_macs": 1234567}
    more["test_accuracy"] = 0.8
    lines = on_a_terminal(
        make([trial(n, **point(0.9, 9000 - n, 4.0), **more) for n in range(3)]), 80,
        front_only=front_only,
    )  # fmt: skip
    table = [line for line in lines if "│" in line or "┃" in line]
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(lines)
    heads = lines[0].replace("┃", " ").split()
    left_out = lines[-1].removeprefix("left out for want of width: ").split(";")[0].split(", ")
    assert {"trial", "accuracy", "student_params", "adapt_ms", "pattern"} <= set(heads)
    assert ("state" in heads) == (not front_only)
    assert "state" not in left_out
    assert {*heads, *left_out} - {"state"} == {"trial", *point(0, 0, 0), *more}
    assert lines[-1].endswith("; `--json` has all")
    for cell in ("90.0 %", "8,998", "0011"):
        assert cell in "".join(table)


def test_what_is_needed_is_never_cut_and_what_fits_is_all_there(make: Any) -> None:
    results = make([trial(0, **point(0.9, 9000, 4.0), adapt_macs=1234567)])
    assert on_a_terminal(results, 30)[0].split("┃")[-1].strip() == "pattern"
    wide = on_a_terminal(results, 160)
    heads = wide[0].replace("┃", " ").split()
    assert heads[heads.index("adapt_ms") + 1] == "adapt_macs"
    assert "left out" not in "".join(wide)


def test_an_estimate_of_few_tasks_is_marked(make: Any) -> None:
    text = printed(make(TRIALS))
    assert "~99.0 %" in text
    assert text.count("~") == 2
    assert "~ a quick estimate on " in text


def test_a_run_that_nobody_drives_says_how_to_go_on(make: Any) -> None:
    results = make([TRIALS[0], TRIALS[6]])
    results.run.write_info(trials=8)
    stopped = printed(load_results(results.run.path))
    assert "interrupted" in next(line for line in stopped.splitlines() if " 6 " in line)
    assert "1 of 8 trials: 1 complete, 1 interrupted" in stopped
    assert f"`fewtune resume {results.run.path}`" in stopped
    assert "~" not in stopped
    document = load_results(results.run.path).to_json()
    assert [t["state"] for t in document["trials"]] == ["COMPLETE", "INTERRUPTED"]
    with results.run.driving():
        document = load_results(results.run.path).to_json()
        assert [t["state"] for t in document["trials"]] == ["COMPLETE", "RUNNING"]
        driven = printed(load_results(results.run.path))
    assert "1 of 8 trials: 1 complete, 1 not finished" in driven
    assert "RUNNING" in driven
    assert "resume" not in driven


def test_it_is_said_how_query_images_were_normalised(make: Any) -> None:
    results = make(TRIALS[:1])
    text = printed(results)
    assert "accuracies are inductive" in text
    assert "normalisation" not in text
    results.run.write_result(trial(1, normalisation="transductive", **point(0.8, 3000, 2.0)))
    mixed = printed(load_results(results.run.path))
    assert "accuracies are inductive and transductive as the column normalisation says" in mixed
    row = next(line for line in mixed.splitlines() if "1*" in line)
    assert row.rstrip().endswith("transductive")


@pytest.mark.parametrize(
    ("modes", "label"),
    [
        (("inductive", "inductive"), "accuracy (inductive)"),
        (("transductive", "transductive"), "accuracy (transductive)"),
        (("inductive", "transductive"), "accuracy (inductive and transductive)"),
    ],
)
def test_the_axis_of_the_picture_says_it_too(
    make: Any, modes: Any, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []
    marks: list[str] = []
    monkeypatch.setattr(Axes, "set_ylabel", lambda _, text, **_k: labels.append(text))
    monkeypatch.setattr(Axes, "annotate", lambda _, text, *_a, **_k: marks.append(text))
    front_png(make([
        trial(n, normalisation=mode, **point(0.9 - n / 10, 9000, 4.0 - n))
        for n, mode in enumerate(modes)
    ]))  # fmt: skip
    assert labels == ["adapt_ms (ms)", label]  # the colour's first
    assert ("1 transductive" in marks) == (len(set(modes)) > 1)


def test_the_front_alone_can_be_shown(make: Any) -> None:
    text = printed(make(TRIALS), front_only=True)
    assert "80.0 %" not in text
    assert "90.0 %" in text


def test_the_stored_size_stands_beside_the_front_or_where_the_sweep_asks_for_it(make: Any) -> None:
    trials = [trial(0, **point(0.9, 9000, 4.0), student_mib=9000 * 4 / 2**20)]
    results = make(trials)
    assert "student_mib" not in printed(results)
    assert "0.0343" in printed(results, front_only=True)
    asked = results.config.model_copy(update={"objectives": {"student_mib": "min"}})
    assert "0.0343" in printed(replace(results, config=asked))


def test_where_nothing_is_feasible_the_constraint_to_blame_is_named(make: Any) -> None:
    text = printed(make([TRIALS[3]]))
    assert "No complete trial keeps every constraint; `quality_drop <= 0.02` is broken" in text


def test_reading_results_needs_neither_torch_nor_ray(make: Any) -> None:
    path = make(TRIALS).run.path
    code = (
        "import sys; from search.results import load_results\n"
        f"load_results({str(path)!r}).to_json()\n"
        "print(sorted({'torch', 'ray', 'optuna', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_no_run_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="A run is a directory"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    "objectives",
    [
        {"accuracy": "max", "student_params": "min", "adapt_ms": "min"},
        {"accuracy": "max", "adapt_ms": "min"},
        {"accuracy": "max"},
    ],
)
def test_the_front_is_drawn(make: Any, objectives: Any) -> None:
    png = front_png(make(TRIALS, objectives=objectives))
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000


def test_a_front_of_one_trial_is_drawn(make: Any) -> None:
    assert front_png(make(TRIALS[:1])).startswith(b"\x89PNG")


def test_a_refused_configuration_is_shown_and_counts_for_nothing(make: Any) -> None:
    refused = {**trial(8, "REFUSED", student_params=99000.0), "cost_s": 0.0}
    results = make([*TRIALS, refused])
    text = printed(results)
    assert "refused" in text
    assert "1 configuration refused before training, at no cost" in text
    assert [t["id"] for t in results.front()] == [t["id"] for t in make_front(results)]
    assert results.to_json()["spending"]["refused"] == 1
    assert f"{len(TRIALS) - 1} of" in text or f"{len(TRIALS) - 1} trials" in text
    assert "cost: 0.0222 CPU-hours; hypervolume" in text


def make_front(results: RunResults) -> list[dict[str, Any]]:
    return replace(results, trials=[t for t in results.trials if t["state"] != "REFUSED"]).front()
