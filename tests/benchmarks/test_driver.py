"""The driver's benchmark: what a tenth is, and what its rows say of it."""

from benchmarks.driver import Sweep, rows_of


def test_a_sweep_ends_as_many_trials_as_it_is_asked_and_replaces_each(tmp_path):
    sweep = Sweep(tmp_path, workers=3)
    for ended in (2, 7):
        spent = sweep.driver.seconds
        assert sweep.end(ended - len(ended_of(sweep))) == sweep.driver.seconds - spent > 0
        assert len(ended_of(sweep)) == ended
        assert len(sweep.clock) == 3


def ended_of(sweep):
    return [r for r in sweep.driver.recorder.records.values() if r.state != "RUNNING"]


def test_rows_hold_the_last_trials_against_the_first_and_what_is_kept_of_both():
    step, memory, ask = rows_of([3.0, 5.0], [1.0, 3.0], [10.0, 15.0], 10, [20.0, 30.0, 40.0])
    assert (step.value, memory.value, ask.value) == (2.0, 1.5, 30.0)
    assert "10 trials each, in 2 turns: 800.0 ms and 400.0 ms a trial" in step.detail
