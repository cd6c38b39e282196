"""A measurement has the node alone, waits for its turn and gets it, also from a dead holder."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise

import pytest

from tests.processes import until
from trainables._core.lease import COURTESY_S, Lease, LeaseError, node

WORKER = """
import sys, time
from pathlib import Path
from trainables._core.lease import Lease
word, folder, name, seconds = sys.argv[1:]
mine, log = Lease(Path(folder)), Path(folder, name).open("w", buffering=1)
while True:
    with getattr(mine, word)():
        began = time.monotonic()
        time.sleep(float(seconds))
        log.write(f"{began} {time.monotonic()}\\n")
"""


@pytest.fixture
def start(tmp_path):
    """Processes that hold the lease again and again, and write down when."""
    running = []

    def run(word, name, seconds=0.01):
        words = [sys.executable, "-c", WORKER, word, str(tmp_path), name, str(seconds)]
        running.append(subprocess.Popen(words))
        until(lambda: spans(tmp_path, name))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


def spans(folder, name):
    file = folder / name
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(map(float, line.split())) for line in lines if line.count(" ") == 1]


def test_nobody_works_while_one_measures_and_the_measurer_gets_its_turn(start, tmp_path):
    for name in ("a", "b", "c"):
        start("shared", name)
    mine, held = Lease(tmp_path), []
    for _ in range(5):
        with mine.exclusive() as alone:
            began = time.monotonic()
            time.sleep(0.1)
            assert alone
            held.append((began, time.monotonic()))
    seen = {name: len(spans(tmp_path, name)) for name in "abc"}
    until(lambda: all(len(spans(tmp_path, name)) > seen[name] for name in "abc"))  # it goes on
    for name in "abc":
        for began, ended in spans(tmp_path, name):
            assert not any(began < stop and ended > since for since, stop in held)
    together = [x for name in "abc" for x in spans(tmp_path, name)]
    assert any(first[1] > second[0] for first, second in pairwise(sorted(together)))  # shared
    assert mine.waited_s > 0


def test_measurers_take_turns(start, tmp_path):
    for name in ("a", "b"):
        start("exclusive", name)
    until(lambda: all(len(spans(tmp_path, name)) > 5 for name in "ab"))
    taken = sorted(x for name in "ab" for x in spans(tmp_path, name))
    assert all(first[1] <= second[0] for first, second in pairwise(taken))


def test_no_measurer_goes_on_while_another_waits(start, tmp_path):
    start("exclusive", "a", 0.05)
    mine = Lease(tmp_path)
    for _ in range(10):
        before = len(spans(tmp_path, "a"))
        with mine.exclusive():
            assert len(spans(tmp_path, "a")) - before <= 8  # without its courtesy: dozens
        time.sleep(0.01)


def test_courtesy_is_no_waiting_for_others(tmp_path):
    mine = Lease(tmp_path)
    began = time.monotonic()
    for _ in range(5):
        with mine.exclusive():
            pass
    assert time.monotonic() - began > 4 * COURTESY_S * 0.9
    assert mine.waited_s < COURTESY_S


@pytest.mark.parametrize("word", ["shared", "exclusive"])
def test_a_killed_holder_holds_nothing(start, tmp_path, word):
    holder = start(word, "a", 0.2)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Lease(tmp_path, patience_s=5.0).exclusive() as alone:
        assert alone


@pytest.mark.parametrize(("word", "mine"), [("shared", "exclusive"), ("exclusive", "shared")])
def test_a_holder_that_was_stopped_is_not_waited_for_without_end(start, tmp_path, word, mine):
    holder = start(word, "a", 0.05)
    for _ in range(200):  # stopped while it holds the lease, not between two times
        holder.send_signal(signal.SIGSTOP)
        with Lease(tmp_path, patience_s=0.3).exclusive() as alone:
            pass
        if not alone:
            break
        holder.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    waiting = Lease(tmp_path, patience_s=0.2)
    with getattr(waiting, mine)() as had:
        assert not had
    assert waiting.waited_s > 0.2


def test_inside_its_own_lease_a_process_does_not_wait_for_itself(tmp_path):
    mine = Lease(tmp_path)
    with mine.exclusive() as alone, mine.shared() as had, mine.exclusive() as still:
        assert alone
        assert had
        assert still
    with mine.shared(), mine.shared():
        pass
    with mine.shared(), pytest.raises(RuntimeError, match="before measuring"), mine.exclusive():
        pass
    with Lease(tmp_path, patience_s=0.0).exclusive() as alone:  # all of it was given back
        assert alone


def test_an_error_gives_it_back(tmp_path):
    with pytest.raises(ZeroDivisionError), Lease(tmp_path).exclusive():
        raise ZeroDivisionError
    with Lease(tmp_path, patience_s=0.0).exclusive() as alone:
        assert alone


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    asked = Lease(tmp_path / "file").shared()
    with pytest.raises(LeaseError, match=r"locks in .*file.* Make it writable, or set"), asked:
        pass


def test_a_node_has_one(monkeypatch, tmp_path):
    node.cache_clear()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    try:
        assert node() is node()
        assert node().folder == tmp_path / f"fewtune-{os.getuid()}" / "lease"
    finally:
        node.cache_clear()
