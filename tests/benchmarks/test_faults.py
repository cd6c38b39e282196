"""Repeats of faults are counted once each, whenever they were taken."""

import json
from dataclasses import asdict

from benchmarks.faults import Repeat, Tally, kept


def test_the_newest_of_a_repeat_counts_and_an_earlier_miss_is_told():
    tally = Tally("cut", 3)
    tally.repeats += [Repeat("cut", 0, 10.0, "aaa"), Repeat("cut", 1, 20.0, "aaa", "it was lost")]
    assert tally.row().value == 0.5
    assert "1 of 2 held; 3 are asked for; 15 s each; repeat 1: it was lost" in tally.row().detail
    assert tally.held == {0}
    tally.repeats += [Repeat("cut", 1, 30.0, "bbb"), Repeat("cut", 2, 50.0, "bbb")]
    row = tally.row()
    assert row.holds()
    assert tally.held == {0, 1, 2}
    assert row.value == 1
    assert row.detail == (
        "3 of 3 held; 3 are asked for; 30 s each; 1 at aaa, 2 at bbb; "
        "repeat 1 at aaa, taken again: it was lost"
    )


def test_repeats_are_read_back(tmp_path):
    file = tmp_path / "faults.json"
    assert kept(file) == []
    repeats = [
        Repeat("driver_killed", 0, 10.0, "aaa"),
        Repeat("driver_killed", 1, 20.0, "aaa", "it was lost"),
    ]
    others = [Repeat("driver_killed", 0, 10.0, "aaa", seed=1), Repeat("gone", 0, 1.0, "aaa")]
    file.write_text(json.dumps({"repeats": [asdict(one) for one in [*repeats, *others]]}))
    assert kept(file) == repeats
    assert kept(file, seed=1) == others[:1]


def test_a_miss_that_counts_is_told_before_those_that_were_taken_again():
    tally = Tally("cut", 9)
    for number in range(4):
        tally.repeats.append(Repeat("cut", number, 1.0, "aaa", "lost"))
        tally.repeats.append(Repeat("cut", number, 1.0, "bbb", "found" if number == 3 else ""))
    assert "; repeat 3: found; repeat 0 at aaa, taken again: lost" in tally.row().detail
