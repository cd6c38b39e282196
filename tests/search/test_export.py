"""Picking a trial, and what is written of it."""

import json
import re
import shlex

import pytest
import yaml
from click.testing import CliRunner

from search.bundle import read_bundle
from search.cli import cli
from search.config import load_sweep
from search.errors import UserError
from search.export import export, export_all
from search.fresh import for_export, fresh_score
from search.picks import choose, knee_distances
from search.preflight import load_data
from search.results import load_results
from search.rundir import RunDir
from search.train import configuration, train
from tests import bundles, fakes
from tests.clock import timeless

# accuracy, student_params, adapt_ms: 0 to 3 are the front, 3 its best; 4 is beaten by 1
POINTS = [(0.50, 1000, 1.0), (0.80, 3000, 2.0), (0.85, 9000, 6.0), (0.90, 20000, 9.0),
          (0.70, 4000, 3.0)]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return bundles.run(tmp_path / "run", POINTS)


@pytest.fixture(autouse=True)
def without_programs(monkeypatch):
    """No programs: test_exported.py has them, and they take their seconds."""
    monkeypatch.setattr("search.export.write_programs", lambda *_, **__: [])


def picked(run, word, minima=None, **maxima):
    found = choose(load_results(run), word, maxima, minima or {})
    return found.trial["id"], None if found.next_best is None else found.next_best["id"]


# ------------------------------------------------------------------ picking


@pytest.mark.parametrize(
    ("word", "trials"),
    [("best", (3, 2)), ("fastest", (0, 1)), ("smallest", (0, 1)), ("knee", (1, 2)), ("4", (4, 1)),
     ("1", (1, None))],
)  # fmt: skip
def test_words_and_what_is_next_best(run, word, trials):
    assert picked(run, word) == trials


def test_a_maximum_leaves_the_rest_to_choose_from(run):
    assert picked(run, "best", adapt_ms=6.0) == (2, 1)
    assert picked(run, "best", adapt_ms=5.99) == (1, 0)
    assert picked(run, "best", adapt_ms=5, student_params=2000) == (0, None)


def test_a_minimum_leaves_the_rest_to_choose_from(run):
    assert picked(run, "smallest", {"accuracy": 0.8}) == (1, 2)
    assert picked(run, "fastest", {"accuracy": 0.8}, student_params=9000) == (1, 2)
    with pytest.raises(UserError, match=r"keeps `accuracy >= 0\.95`; the closest: trial 3 \(accur"):
        picked(run, "best", {"accuracy": 0.95})
    with pytest.raises(UserError, match=r"`adapt_ms >= 3` and `adapt_ms <= 2` cannot both hold"):
        picked(run, "best", {"adapt_ms": 3}, adapt_ms=2)


def test_the_whole_front_becomes_a_bundle_each(run, tmp_path):
    reports = export_all(run, {"adapt_ms": 6}, tmp_path / "all", minima={"accuracy": 0.5})
    assert [report.trial for report in reports] == [2, 1, 0]
    for report in reports:
        assert report.out == tmp_path / "all" / f"trial-{report.trial}"
        origin = read_bundle(report.out).provenance
        assert origin["trial"] == report.trial
        assert origin["picked"] == {
            "why": "one of 3 trials on the front with adapt_ms <= 6 and accuracy >= 0.5",
            "max": {"adapt_ms": 6}, "min": {"accuracy": 0.5},
        }  # fmt: skip
    with pytest.raises(UserError, match="new or empty directory"):
        export_all(run, {}, tmp_path / "all")


def test_the_command_says_a_sentence_for_each_bundle(run, tmp_path):
    words = ["export", str(run), "-o", str(tmp_path / "all"), "--min", "accuracy=80%", "--pick"]
    done = CliRunner().invoke(cli, [*words, "all-front"], catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"Wrote trial {n}" for n in (3, 2, 1)]
    words[3] = str(tmp_path / "json")
    done = CliRunner().invoke(cli, [*words, "smallest", "--json"], catch_exceptions=False)
    (told,) = json.loads(done.stdout)["bundles"]
    assert (told["trial"], told["next_best"], told["out"]) == (1, 2, words[3])
    assert told["sentence"].startswith("Wrote trial 1 (")
    words[3] = str(tmp_path / "one")
    done = CliRunner().invoke(cli, [*words, "fastest"], catch_exceptions=False)
    assert "the fastest to adapt of 3 trials on the front with accuracy >= 0.8; " in done.stdout


def test_the_sentence_has_the_fresh_score_of_the_next_best_too(tmp_path):
    run = bundles.run(tmp_path / "run", POINTS[:2])
    place = RunDir.open(run)
    for number, accuracy in ((0, 0.48), (1, 0.79)):
        known = place.results()[number]
        known["metrics"]["fresh_accuracy"] = accuracy
        place.write_result(known)
    sentence = export(run, "best", {}, tmp_path / "out").sentence
    assert sentence.endswith("on fresh tasks its accuracy is 79.0 %, that of trial 0 48.0 %.")


def test_a_bound_on_another_metric_brings_beaten_trials_back(tmp_path):
    run = bundles.run(tmp_path / "run", [])
    for number, (steps, point) in enumerate([(9, POINTS[1]), (1, POINTS[4])]):
        known = {**bundles.metrics(*point), "inner_steps": steps}
        bundles.add(RunDir.open(run), number, metrics=known)
    assert picked(run, "best") == (0, None)
    assert picked(run, "best", inner_steps=3) == (1, None)


def test_infeasible_trials_are_not_picked_but_can_be_asked_for(tmp_path):
    run = bundles.run(
        tmp_path / "run", POINTS, sweep={"constraints": ["student_params <= 9000"]}
    )  # fmt: skip
    assert picked(run, "best") == (2, 1)
    report = export(run, 3, {}, tmp_path / "out")
    assert "breaks the constraint `student_params <= 9000`" in report.why
    assert report.trial == 3


def test_trials_without_a_student_are_refused(run):
    place = RunDir.open(run)
    bundles.add(place, 5, state="FAIL", failure={"kind": "diverged", "reason": "loss is nan."})
    bundles.add(place, 6, state="PRUNED", stopped="stopped early at meta-iteration 2")
    bundles.add(place, 7, state="RUNNING")
    for number, said in ((5, r"failed \(diverged: loss is nan\)\. Complete are 0, 1, 2, 3 and 4"),
                         (6, "stopped early at meta-iteration 2"), (7, "has not finished"),
                         (8, "There is no trial 8 in")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            picked(run, str(number))


@pytest.mark.parametrize(
    ("word", "maxima", "said"),
    [
        ("kne", {}, r"the number of a trial; found 'kne'\. Did you mean knee\?"),
        ("best", {"adapt_sm": 3}, r"adapt_sm is unknown\. Did you mean adapt_ms\?"),
        ("best", {"pattern": 3}, "pattern is a word, not a number"),
        ("best", {"test_accuracy": 1}, "choosing by it would spoil it"),
        ("best", {"student_params": -1}, "can never hold"),
        ("best", {"adapt_ms": float("nan")}, "must end in a finite number"),
        ("knee", {"adapt_ms": 0.5}, r"No feasible trial keeps `adapt_ms <= 0\.5`; the closest: t"),
        ("knee", {"adapt_ms": 0.5}, r": trial 0 \(adapt_ms 1\), trial 1 \(adapt_ms 2\) and trial"),
        ("knee", {"teacher_accuracy": 0.9}, "none reports teacher_accuracy"),
        ("3", {"adapt_ms": 6}, r"Trial 3 does not keep `adapt_ms <= 6` \(adapt_ms 9\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_picked(run, word, maxima, said):
    with pytest.raises(UserError, match=said):
        picked(run, word, **maxima)


def test_a_run_without_feasible_or_complete_trials(tmp_path):
    strict = {"constraints": ["student_params <= 500", "adapt_ms <= 2"]}
    run = bundles.run(tmp_path / "strict", POINTS, sweep=strict)
    said = (
        r"No complete trial keeps `student_params <= 500` and `adapt_ms <= 2`; the closest: trial 0"
    )
    with pytest.raises(UserError, match=said):
        picked(run, "best")
    assert picked(run, "2") == (2, None)
    with pytest.raises(UserError, match=r"No trial of .* is complete"):
        picked(bundles.run(tmp_path / "none", []), "best")
    with pytest.raises(UserError, match="No trial is complete yet"):
        picked(tmp_path / "none", "0")


def test_a_pick_by_a_metric_that_nobody_reports(tmp_path):
    run = bundles.run(tmp_path / "run", [], sweep={"objectives": {"accuracy": "max"}})
    known = {k: v for k, v in bundles.metrics(0.5, 10, 1.0).items() if k != "adapt_ms"}
    bundles.add(RunDir.open(run), 0, metrics=known)
    assert picked(run, "knee") == (0, None)
    with pytest.raises(UserError, match="goes by adapt_ms, which no trial of this run reports"):
        picked(run, "fastest")


# ------------------------------------------------------------------ the knee


def test_the_knee_of_two_objectives_is_farthest_from_the_line():
    found = knee_distances([(0.0, 100.0), (1.0, 20.0), (5.0, 10.0), (10.0, 0.0)])
    # scaled: (0, 1), (0.1, 0.2), (0.5, 0.1), (1, 0); the line is x + y = 1
    assert found == pytest.approx([0.0, 0.7 / 2**0.5, 0.4 / 2**0.5, 0.0], abs=1e-6)


def test_the_knee_of_three_objectives_is_farthest_from_the_plane():
    corners = [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)]
    found = knee_distances([*corners, (0.5, 0.5, 0.5), (0.4, 0.9, 0.4)])
    # the plane is x + y + z = 2
    expected = [0, 0, 0, 0.5 / 3**0.5, 0.3 / 3**0.5]
    assert found == pytest.approx(expected, abs=1e-6)


def test_objectives_with_one_best_point_share_a_weight():
    # the smallest is the fastest: the second and third axis say the same
    two = knee_distances([(0.0, 1.0), (0.3, 0.2), (1.0, 0.0)])
    three = knee_distances([(0.0, 1.0, 1.0), (0.3, 0.2, 0.2), (1.0, 0.0, 0.0)])
    order = [sorted(range(3), key=found.__getitem__) for found in (two, three)]
    assert order[0][-1] == order[1][-1] == 1
    assert three[0] == pytest.approx(0, abs=1e-6)
    assert three[2] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(1.0, 2.0), (1.0, 2.0)], [(1.0,)],
                                    [(0.0, 1.0), (1.0, 0.0)]])  # fmt: skip
def test_a_front_without_a_bulge_has_no_distances(points):
    assert knee_distances(points) == pytest.approx([0.0] * len(points), abs=1e-6)


def test_no_plane_rewards_a_worse_value():
    # scaled: (1/3, 1/4, 2/3), (1, 0, 0), (1/3, 1/2, 0), (0, 1, 1); the plane through the last
    # three falls with the third objective, so all weigh the same: x + y + z = 1
    found = knee_distances([(1, 1, 3), (3, 0, 1), (1, 2, 1), (0, 4, 4)])
    assert found == pytest.approx([d / 3**0.5 for d in (-0.25, 0, 1 / 6, -1)], abs=1e-6)


def test_scales_and_constant_objectives_do_not_matter():
    points = [(0.0, 100.0), (1.0, 20.0), (5.0, 10.0), (10.0, 0.0)]
    scaled = [(1e6 * x, 7.0, 3.0 + y / 1e3) for x, y in points]
    assert knee_distances(scaled) == pytest.approx(knee_distances(points), abs=1e-6)


# ------------------------------------------------------------------ what is written


def test_the_sentence_says_what_why_and_what_is_next(run, tmp_path):
    report = export(run, "knee", {"adapt_ms": 6.5}, tmp_path / "out")
    assert (report.trial, report.next_best) == (1, 2)
    assert report.sentence == (
        f"Wrote trial 1 (accuracy 80.0 %, student_params 3,000, adapt_ms 2) to {tmp_path / 'out'}: "
        "the knee of 3 trials on the front with adapt_ms <= 6.5; next best is trial 2 (accuracy "
        "85.0 %, student_params 9,000, adapt_ms 6); accuracies are inductive, on validation tasks; "
        "not scored on fresh tasks, as "
        "the data is not what the run was made on."
    )


def test_a_bundle_is_whole_and_says_where_it_comes_from(run, tmp_path):
    export(run, "best", {}, tmp_path / "out")
    found = read_bundle(tmp_path / "out")
    assert found.student.spec == bundles.student().spec
    assert found.metrics["accuracy"] == 0.9
    assert found.metrics["test_accuracy"] is None
    assert found.metrics["normalisation"] == "inductive"
    assert found.metrics["table"] == [{"pattern": "011", "step": 2, "accuracy": 0.9}]
    origin = found.provenance
    assert (origin["run"], origin["trial"], origin["commit"]) == ("run", 3, "abc123")
    assert origin["seeds"] == {"sweep": 0, "data": 0}
    assert origin["data"]["fingerprint"] == "0" * 64
    assert set(origin["files"]) == {
        "README.md", "config.yaml", "metrics.json", "model.safetensors", "pattern.json",
    }  # fmt: skip


def test_the_readme_names_the_mode_and_the_numbers(run, tmp_path):
    place = RunDir.open(run)
    beside = {**place.results()[3], "id": 3}
    beside["metrics"]["accuracy_transductive"] = 0.95
    place.write_result(beside)
    export(run, "best", {}, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    for words in ("90.0 % ± 1.0", "**inductive**", "the other way (transductive): 95.0 %.",
                  "| `student_mib` | 0.0763 MiB |", "`test_accuracy` was not measured",
                  "conv2 and head learn, conv1 stays as trained", "16 x 16 pixels",
                  "any number of classes from 2 on", "seed 0, 3 meta-iterations"):  # fmt: skip
        assert words in text


def test_a_linear_and_transductive_student_is_described_as_such(tmp_path):
    odd = bundles.student(
        head="linear", normalisation="transductive", input_size=12, pattern="111", inner_steps=1
    )
    run = bundles.run(tmp_path / "run", POINTS, kept=odd, sweep={"resources": {"gpu": 0.5}})
    report = export(run, 0, {}, tmp_path / "out")
    assert "accuracies are transductive" in report.sentence
    text = (tmp_path / "out" / "README.md").read_text()
    for words in ("exactly 5 classes", "**transductive**", "antialiased, to 12 x 12", "in 1 step ",
                  "conv1, conv2 and head learn (", "--set resources.gpu=0"):  # fmt: skip
        assert words in text


def test_nothing_of_this_machine_is_in_it(tmp_path):
    split = tmp_path / "secret-place" / "split.json"
    split.parent.mkdir()
    split.write_text('{"train": ["a"], "val": ["b"], "test": ["c"]}')
    start = bundles.bundle(tmp_path / "secret-place" / "start")
    sweep = {
        "method": "lambda_adaptation", "storage": str(tmp_path / "secret-place"), "name": "n",
        "data": {"source": "folder", "path": str(split.parent), "split": str(split)},
    }  # fmt: skip
    config = {"checkpoint": str(start), "inner_steps": 2}
    run = bundles.run(tmp_path / "run", POINTS[:1], sweep=sweep, config=config)
    export(run, "best", {}, tmp_path / "out")
    read_bundle(tmp_path / "out")
    seen = 0
    for file in (tmp_path / "out").rglob("*"):
        if file.suffix in (".md", ".json", ".yaml"):
            seen += 1
            assert "secret-place" not in file.read_text()
            assert str(tmp_path) not in file.read_text()
    assert seen >= 6
    again = load_sweep(tmp_path / "out" / "config.yaml")
    assert again.data.split == tmp_path / "out" / "inputs" / "split" / "split.json"
    assert again.data.split is not None
    assert again.data.split.read_text() == split.read_text()
    copied = str(configuration(again)["checkpoint"])
    assert copied == str(tmp_path / "out" / "inputs" / "checkpoint")
    assert read_bundle(copied).student.spec == bundles.student().spec


def test_a_checkpoint_that_is_gone_is_named(tmp_path):
    sweep = {"method": "lambda_adaptation"}
    config = {"checkpoint": str(tmp_path / "gone")}
    run = bundles.run(tmp_path / "run", POINTS[:1], sweep=sweep, config=config)
    with pytest.raises(UserError, match=r"The sweep read .*gone, which cannot be copied"):
        export(run, "best", {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_student_is_named(run, tmp_path):
    (run / "trials" / "3" / "student" / "pattern.json").unlink()
    with pytest.raises(UserError, match=r"Trial 3 cannot be exported: .*pattern\.json is missing"):
        export(run, "best", {}, tmp_path / "out")
    with pytest.raises(UserError, match=r"Trial 3 cannot be exported"):
        export_all(run, {}, tmp_path / "out", minima={"accuracy": 0.6})
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken(run, tmp_path):
    export(run, "best", {}, tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match="already holds a bundle"):
        export(run, "knee", {}, tmp_path / "out")
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


# ------------------------------------------------------------------ repeating it


def test_every_setting_is_fixed(run, tmp_path):
    export(run, "best", {}, tmp_path / "out")
    text = (tmp_path / "out" / "config.yaml").read_text()
    assert text.startswith(
        "# Trial 3 of the sweep run. Train it again: fewtune train config.yaml\n"
    )
    plain = yaml.safe_load(text)
    assert plain["space"]["student.width"] == 4
    assert not any(isinstance(value, dict) for value in plain["space"].values())
    again = load_sweep(tmp_path / "out" / "config.yaml")
    assert again.seed == 0
    assert again.budget.iterations == 3


RATE = 0.123456789012345
SPACES = {
    "fake": {"student.width": 4, "rate": RATE},
    "maml": {"student.width": 4, "student.depth": 2, "inner_rate": RATE},
}


@pytest.mark.parametrize("method", ["fake", pytest.param("maml", marks=pytest.mark.slow)])
def test_the_bundle_trains_again_to_the_same_metrics(tmp_path, monkeypatch, method):
    """The whole README, run as it stands: train again, adapt by the command and by Python."""
    if method == "fake":
        fakes.install(monkeypatch)
    sweep = {
        "method": method,
        "space": SPACES[method],
        "data": {"queries": 3},
        "budget": {"trials": 1, "iterations": 2},
        "evaluation": {"validation_tasks": 4, "reports": 1},
        "seed": 5,
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(sweep))
    config = load_sweep(tmp_path / "own.yaml")
    first = train(config, out=tmp_path / "student")
    run = bundles.run(tmp_path / "run", [], sweep=sweep)
    place = RunDir.open(run)
    bundles.add(place, 0, metrics=first, config=configuration(config))
    (tmp_path / "student").rename(place.trial(0) / "student")
    export(run, "best", {}, tmp_path / "BUNDLE")

    monkeypatch.chdir(tmp_path)
    bundles.folders(tmp_path / "support")
    bundles.folders(tmp_path / "query", seed=1000)
    text = (tmp_path / "BUNDLE" / "README.md").read_text()
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
                for line in block.splitlines()]  # fmt: skip
    assert [shlex.split(line)[1] for line in commands] == ["adapt", "train"]
    outputs = []
    for line in commands:
        done = CliRunner().invoke(cli, [*shlex.split(line)[1:], "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        outputs.append(json.loads(done.stdout))
    assert outputs[0]["accuracy"] is not None
    again = outputs[1]
    assert set(again) == set(first)
    assert timeless(again) == timeless(first)
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})


# ------------------------------------------------------------------ fresh tasks


def test_what_is_exported_meets_fresh_tasks_and_both_numbers_are_kept(tmp_path):
    sweep = {"evaluation": {"validation_tasks": 4, "quick_tasks": 2}, "data": {"queries": 5}}
    run = bundles.run(tmp_path / "run", POINTS[:2], sweep=sweep)
    data = load_data(load_results(run).config)
    RunDir.open(run).write_info(data={"fingerprint": data.fingerprint})
    report = export(run, "best", {}, tmp_path / "out")
    kept = read_bundle(tmp_path / "out").metrics
    assert kept["accuracy"] == POINTS[1][0]
    student = read_bundle(tmp_path / "out").student
    again = fresh_score(load_results(run).config, student, data)
    assert {name: kept[name] for name in again} == again
    assert (
        f"on fresh tasks its accuracy is {100 * again['fresh_accuracy']:.1f} %" in report.sentence
    )
    assert "`fresh_accuracy`" in (tmp_path / "out" / "README.md").read_text()


def test_a_score_on_fresh_tasks_that_is_known_is_not_taken_again(tmp_path):
    run = bundles.run(tmp_path / "run", [])
    bundles.add(RunDir.open(run), 0, metrics=bundles.metrics(*POINTS[0], fresh_accuracy=0.4))
    results = load_results(run)
    found, said = for_export(results, results.trials[0], bundles.student())
    assert found["fresh_accuracy"] == 0.4
    assert said == "on fresh tasks its accuracy is 40.0 %"
