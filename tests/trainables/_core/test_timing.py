"""The steady round counts; noise is said, and too much of it refused. No clock is read here."""

import pytest

from trainables._core.timing import NOISY, USELESS, repeated, timed

QUIET = [[1.0, 10.0], [1.1, 10.1], [1.0, 10.2], [0.9, 9.9], [1.0, 10.0], [1.0, 9.8], [1.0, 10.0]]
WILD = [[1.0, x] for x in (10.0, 50.0, 12.0, 40.0, 11.0, 60.0, 9.0)]
DRIFTING = [[1.0, x] for x in (10.0, 10.0, 10.0, 10.0, 14.0, 14.0, 14.0)]


def test_median_p95_and_spread_are_those_of_the_laps():
    found = timed(QUIET)
    assert found.ms == (1.0, 10.0)
    assert found.p95 == pytest.approx((1.07, 10.17))
    assert found.spread == pytest.approx((10.05 - 9.95) / 10)
    assert found.drift == pytest.approx(1 - 9.9333 / 10.1, abs=0.01)
    assert found.verdict == "steady"


def test_a_single_slow_lap_is_no_noise():
    assert timed([*QUIET[:-1], [1.0, 90.0]]).verdict == "steady"


def test_a_drift_is_noise():
    found = timed(DRIFTING)
    assert found.drift == pytest.approx(0.4)
    assert found.noise > NOISY
    assert found.verdict == "noisy"


def test_noisy_rounds_are_repeated_until_one_is_steady():
    rounds = iter([WILD, DRIFTING, QUIET, WILD])
    found = repeated(lambda: next(rounds))
    assert (found.rounds, found.ms[-1], found.verdict) == (3, 10.0, "steady")
    assert next(rounds) is WILD


def test_where_none_is_steady_the_least_noisy_is_kept_and_called_noisy():
    rounds = iter([WILD, DRIFTING, WILD, WILD])
    found = repeated(lambda: next(rounds))
    assert (found.rounds, found.verdict) == (4, "noisy")
    assert found.drift == pytest.approx(0.4)


def test_laps_that_differ_by_as_much_as_they_last_are_rejected():
    found = repeated(lambda: WILD)
    assert found.noise > USELESS
    assert found.verdict == "rejected"


def test_a_time_taken_beside_others_is_never_called_steady():
    assert repeated(lambda: QUIET, alone=False).verdict == "noisy"


def test_at_least_one_round_is_run():
    with pytest.raises(ValueError, match="found 0"):
        repeated(lambda: QUIET, rounds=0)
