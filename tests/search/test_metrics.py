"""The table of metrics is complete and says what may steer a search."""

import pytest

from search.metrics import EARLY, METRICS, USABLE, refusal, unsteady

CONTRACT = [
    "accuracy", "accuracy_ci95", "accuracy_full", "quality_drop", "pattern", "inner_steps",
    "adapt_ms", "adapt_speedup", "adapt_macs", "adapt_mib", "prediction_error", "student_params",
    "student_mib", "student_macs",
    "teacher_accuracy", "test_accuracy", "test_accuracy_ci95", "train_seconds",
]  # fmt: skip
WORDS = ["pattern", "normalisation", "adapt_timing", "timed_on"]
LATE = {"test_accuracy", "test_accuracy_ci95", "fresh_accuracy", "fresh_accuracy_ci95"}
ABOUT_NUMBERS = {"prediction_error", "adapt_ms_spread", "lease_s"}


def test_the_names_of_the_contract_are_there_in_their_order():
    assert [name for name in METRICS if name in CONTRACT] == CONTRACT


def test_what_touches_test_classes_or_is_a_word_cannot_steer():
    assert {*LATE, *ABOUT_NUMBERS, *WORDS} == set(METRICS) - set(USABLE)
    assert "after the search" in refusal("fresh_accuracy")
    assert "Use adapt_ms" in refusal("adapt_ms_spread")
    assert "Use accuracy, measured on validation classes" in refusal("test_accuracy")
    assert "Use adapt_ms" in refusal("prediction_error")
    assert all(refusal(name) == "" for name in USABLE)


def test_every_metric_says_what_it_means_and_what_is_better():
    assert all(metric.meaning for metric in METRICS.values())
    assert [name for name, metric in METRICS.items() if metric.better is None] == WORDS
    assert EARLY == ("student_params", "student_mib", "student_macs")


def test_what_a_drop_is_held_against_is_named():
    assert "meta-training" in METRICS["accuracy_full"].meaning
    assert "every layer" not in METRICS["accuracy_full"].meaning
    assert "full" not in METRICS["adapt_speedup"].meaning


@pytest.mark.parametrize(
    ("timing", "wanted", "said"),
    [("rejected", ["accuracy", "adapt_ms"], "adapt_ms could not be measured"),
     ("rejected", ["accuracy", "adapt_macs"], ""), ("noisy", ["adapt_ms"], ""),
     ("steady", ["adapt_ms"], ""), (None, ["adapt_ms"], "")],
)  # fmt: skip
def test_a_rejected_time_ends_a_trial_only_where_somebody_wants_it(timing, wanted, said):
    found = unsteady({"adapt_timing": timing}, wanted)
    assert found.startswith(said) if said else not found
