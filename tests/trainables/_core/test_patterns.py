"""The choice among patterns, held to the published table of what adapting less costs."""

from dataclasses import replace

import pytest

from trainables._core.ending import allowed
from trainables._core.patterns import Score, candidates, choose

# ANIL paper (Raghu et al. 2020), table 1: mini-ImageNet, layers frozen at test only
ANIL = {
    1: {"11111": 44.5, "01111": 44.8, "00111": 44.8, "00011": 44.7, "00001": 44.7},
    5: {"11111": 61.7, "01111": 61.7, "00111": 61.4, "00011": 60.2, "00001": 60.2},
}


def rows(accuracies, step=5):
    by_depth = {p: 10 * p.count("1") for p in accuracies}
    return [
        Score(p, step, a / 100, 0.01, by_depth[p] / 10, 1.0, by_depth[p], adapt_mib=1.0, tasks=300)
        for p, a in accuracies.items()
    ]


@pytest.mark.parametrize(
    ("shots", "epsilon", "expected"),
    [(1, 0.005, "00001"), (5, 0.005, "00111"), (1, 0.02, "00001"), (5, 0.02, "00001")],
)
def test_the_anil_table_chooses_what_its_authors_say(shots, epsilon, expected):
    chosen, reference = choose(rows(ANIL[shots]), epsilon)
    assert chosen.pattern == expected
    assert reference.pattern == "11111"


def test_a_loss_of_exactly_epsilon_is_allowed():
    table = rows({"11": 0.9 * 100, "01": 0.8 * 100})
    assert choose(table, 0.1)[0].pattern == "01"
    assert choose(table, 0.0999)[0].pattern == "11"


def test_fewer_steps_are_a_choice_too():
    table = rows({"11": 90, "01": 85}) + rows({"11": 89.5, "01": 80}, step=1)
    table = [replace(r, adapt_macs=r.adapt_macs * r.step) for r in table]
    chosen, reference = choose(table, 0.01)
    assert (chosen.pattern, chosen.step) == ("11", 1)
    assert reference.step == 5


def test_ties_go_to_the_more_accurate():
    table = [
        Score("11", 1, 0.9, 0, 2, 2, 20, adapt_mib=1.0, tasks=5),
        Score("01", 1, 0.9, 0, 1, 1, 10, adapt_mib=1.0, tasks=5),
        Score("10", 1, 0.91, 0, 1, 1, 10, adapt_mib=1.0, tasks=5),
    ]
    assert choose(table, 0.05)[0].pattern == "10"


def test_what_a_race_dropped_is_no_candidate():
    table = rows({"11": 90, "01": 95})
    assert choose([table[0], replace(table[1], tasks=25)], 0.01)[0].pattern == "11"


def test_the_clock_can_be_anything_that_orders():
    table = rows({"11": 90, "01": 90})
    assert choose(table, 0.1, cost=lambda r: -r.adapt_macs)[0].pattern == "11"


def test_without_the_reference_there_is_no_choice():
    with pytest.raises(
        ValueError, match="must hold the one that accuracy lost is measured against"
    ):
        choose(rows({"01": 90}), 0.1)
    with pytest.raises(ValueError, match="holds nothing"):
        choose([], 0.1)


def test_there_are_31_patterns_of_a_conv4():
    assert len(candidates(5)) == len(set(candidates(5))) == 31
    with pytest.raises(ValueError, match="one of all, suffixes"):
        candidates(5, "some")


def test_what_meta_training_never_adapted_stays():
    assert allowed("00001", "all") == ["00001"]
    assert allowed("110", "suffixes") == ["110"]
    assert len(allowed("11110", "all")) == 15
