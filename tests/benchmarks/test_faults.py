"""Repeats of faults are counted once each, whenever they were taken."""

import json
from dataclasses import asdict

from benchmarks.faults import Repeat, Tally, kept


def test_the_newest_of_a_repeat_counts_and_an_earlier_miss_is_told():
    tally = Tally("cut", 3)
    tally.repeats += [Repeat("cut", 0, 10.0, "aaa"), Repeat("cut", 1, 20.0, "aaa", "it was lost")]
    assert tally.row().value == 0.5
    assert "1 of 2 held; 3 are asked for; 15 s each; repeat 1: it was lost" in tally.row().detail
    tally.repeats += [Repeat("cut", 1, 30.0, "bbb"), Repeat("cut", 2, 50.0, "bbb")]
    row = tally.row()
    assert row.holds()
    assert row.value == 1
    assert row.detail == (
        "3 of 3 held; 3 are asked for; 30 s each; 1 at aaa, 2 at bbb; "
        "repeat 1 at aaa, taken again: it was lost"
    )


def test_repeats_are_read_back(tmp_path):
    file = tmp_path / "faults.json"
    assert kept(file) == []
    repeats = [Repeat("cut", 0, 10.0, "aaa"), Repeat("cut", 1, 20.0, "aaa", "it was lost")]
    file.write_text(json.dumps({"repeats": [asdict(one) for one in repeats]}))
    assert kept(file) == repeats
