"""What is around the measured: turns, ratios, the choice of a pattern, counted operations."""

import argparse

import pytest
import torch

pytest.importorskip("higher", reason="the extra `bench` is not installed")
pytest.importorskip("torchopt", reason="the extra `bench` is not installed")

from benchmarks import adaptation, meta_training, models, roofline
from benchmarks.timing import Contender, best_form, in_turns, ratio
from trainables._core import evaluate
from trainables._core.cost import adapt_macs
from trainables._core.episodes import Sampler
from trainables._core.evaluate import Setting
from trainables._core.networks import conv4
from trainables._core.patterns import candidates, choose, full
from trainables._data import load
from trainables._learner import TaskShape


@pytest.fixture(scope="module")
def data():
    return load("glyphs", size=16)


def test_contenders_take_turns_with_their_own_threads():
    seen = []
    log = lambda name: lambda: seen.append((name, torch.get_num_threads()))  # noqa: E731
    before = torch.get_num_threads()
    times = in_turns([Contender("a", log("a"), 1), Contender("b", log("b"), 2)], rounds=3)
    assert "".join(name for name, _ in seen) == "baabbaab"  # the first two warm up
    assert set(seen) == {("a", 1), ("b", 2)}
    assert torch.get_num_threads() == before
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_the_median_of_the_rounds_own():
    times = {"slow": [2.0, 30.0, 4.0], "fast": [1.0, 10.0, 4.0]}
    found = ratio(times, "slow", "fast")
    assert (found.low, found.value, found.high) == (1.5, 2.0, 2.5)
    assert ratio({"a": [3.0], "b": [2.0]}, "a", "b").value == 1.5


def test_the_best_form_goes_on_under_the_contenders_name(monkeypatch):
    found = {"x": [3.0, 1.0], "y": [2.0, 2.0]}
    monkeypatch.setattr("benchmarks.timing.in_turns", lambda *_, **__: found)
    forms = [Contender("y", lambda: 0, 1), Contender("x", lambda: 0, 2)]
    best, name = best_form(forms, name="a peer")
    assert (best.name, best.threads, name) == ("a peer", 2, "x")


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_the_tables_and_dearer_patterns_stay_unmeasured(data, monkeypatch, seed):
    """Random accuracies, so that the choice lies anywhere."""
    network = conv4((1, 16, 16), width=4, head="shared")
    meta = network.init(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        (p, t): torch.rand(20, generator=generator).mul(0.02).add(0.5)
        for p in candidates(5)
        for t in (5, 10)
    }
    asked = []

    def score(_network, _meta, _tasks, _setting, wanted):
        asked.extend(wanted)
        return {(p, t): drawn[p, t] for p in wanted for t in wanted[p]}

    monkeypatch.setattr(evaluate, "score", score)
    monkeypatch.setattr(adaptation, "EPSILON", 0.0)
    setting = Setting(10, 0.1, 5, 0, inductive=True)
    scores = adaptation.Scores(network, meta, lambda: iter(()), setting)
    times = {p: [1.0] * 11 for p in candidates(5)}
    for steps in (5, 10):
        at = {key: values for key, values in drawn.items() if key[1] == steps}
        mib, guess = dict.fromkeys(times, 1.0), lambda *_: 1.0
        table = evaluate.table(network, at, times, mib, guess, setting, 5)
        assert scores.choice(steps) == choose(table, 0.0)[0].pattern
    assert len(asked) == len(set(asked))


def test_a_student_is_trained_once_and_then_read(data, tmp_path, monkeypatch):
    recipe = models.Recipe("glyphs", 4, "shared", iterations=2, meta_batch=2)
    network, first = models.student(recipe, data, tmp_path)
    monkeypatch.setattr(models, "_trained", None)
    _, again = models.student(recipe, data, tmp_path)
    assert first.keys() == again.keys() == network.init(torch.Generator()).keys()
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert recipe.name != models.Recipe("glyphs", 4, "shared", iterations=3, meta_batch=2).name


@pytest.fixture
def single(monkeypatch):
    """No form with two threads: on a busy machine they wait for each other."""
    monkeypatch.setattr("benchmarks.peers.THREADS", (1,))
    monkeypatch.setattr(meta_training, "OUR_THREADS", (1,))


def test_adaptation_gives_every_row(data, monkeypatch, single):
    args = argparse.Namespace(validation_tasks=4, test_tasks=4, rounds=2, repeats=1)
    monkeypatch.setattr(adaptation, "STEPS", {1: 10.0, 2: 20.0})
    cases, rows = {}, []
    for head in adaptation.HEADS:
        network = conv4((1, 16, 16), width=4, head=head)
        meta = network.init(torch.Generator().manual_seed(0))
        monkeypatch.setattr(adaptation, "student", lambda *_, n=network, m=meta: (n, m))
        recipe = models.Recipe("glyphs", 4, head, iterations=0)
        cases[head], drops = adaptation.case(args, data, recipe)
        rows += drops
    tasks = list(Sampler(data.test, data, TaskShape(5, 1, 1), "cpu").fixed(0, 2, 1))
    rows += adaptation.timed(args, cases, 2, tasks)
    assert {row.id: row.floor for row in rows} == {
        "glyphs_4_shared_T1_full_accuracy": 0.3,
        "glyphs_4_shared_T1_drop": 0.01,
        "glyphs_4_shared_T2_full_accuracy": 0.3,
        "glyphs_4_shared_T2_drop": 0.01,
        "glyphs_4_prototype_T1_full_accuracy": 0.3,
        "glyphs_4_prototype_T1_drop": 0.01,
        "glyphs_4_prototype_T2_full_accuracy": 0.3,
        "glyphs_4_prototype_T2_drop": 0.01,
        "glyphs_4_shared_T2_speedup": 20.0,
        "glyphs_4_prototype_T2_speedup": 20.0,
        "glyphs_4_shared_T2_full_against_higher": 1.5,
        "glyphs_4_shared_T2_full_against_higher_one_thread": 1.5,
        "glyphs_4_shared_T2_full_against_by_hand": 1.5,
        "glyphs_4_shared_T2_full_against_by_hand_one_thread": 1.5,
    }


def test_meta_training_gives_every_row(data, single, monkeypatch):
    monkeypatch.setattr(meta_training, "SHAPE", TaskShape(5, 1, 2))
    args = argparse.Namespace(
        width=4,
        steps=1,
        meta_batch=2,
        tsmd_batch=2,
        teacher_width=4,
        teacher_order="second",
        rounds=1,
        device="cpu",
    )
    rows = meta_training.maml(args, data, "transductive") + meta_training.tsmd(args, data)
    assert {row.id: row.floor for row in rows if row.unit == "x"} == {
        "maml_transductive_against_higher": 2.0,
        "maml_transductive_against_by_hand": 2.0,
        "maml_transductive_against_TorchOpt": 2.0,
        "tsmd_against_by_hand": 1.5,
    }
    assert [row.id for row in rows if row.unit == "tasks/s"] == [
        "maml_transductive_ours",
        "maml_transductive_higher",
        "maml_transductive_by_hand",
        "maml_transductive_TorchOpt",
        "tsmd_ours",
        "tsmd_by_hand",
    ]


@pytest.mark.parametrize("pattern", ["00001", "00011"])
def test_a_device_does_the_operations_that_are_counted(pattern):
    args = argparse.Namespace(size=16, width=4, steps=3, device="cpu")
    network = conv4((1, 16, 16), width=4, head="shared")
    work = roofline.Work("adaptation", roofline.adaptation(args, pattern), 1)
    macs = adapt_macs(network, pattern, steps=3, ways=5, images=5)
    assert roofline.operations(work) == 2 * macs


def test_operations_are_counted_and_profiled():
    args = argparse.Namespace(size=16, width=4, steps=3, device="cpu", rounds=2, repeats=1)
    work = roofline.Work("adaptation_full", roofline.adaptation(args, full(5)), 1)
    network = conv4((1, 16, 16), width=4, head="shared")
    macs = adapt_macs(network, full(5), steps=3, ways=5, images=5)
    assert roofline.operations(work) == 2 * macs
    assert [row.id for row in roofline.rows_of(args, work)] == [
        "adaptation_full_of_limit",
        "adaptation_full_in_products",
    ]
    profile = roofline.profiled(work, "cpu")
    assert len(profile) == roofline.TOP
    assert sum(float(entry["share"]) for entry in profile) <= 1.001
