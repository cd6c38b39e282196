"""Chunks of a meta-batch: the same sums on any number of threads, and smaller when memory ends."""

import logging
import threading

import pytest
import torch

from tests.trainables._core.test_episodes import data_of
from trainables._core import rig as rig_module
from trainables._core.episodes import TaskShape
from trainables._core.outer import MetaOptimiser
from trainables._core.parallel import Chunks, out_of_memory, side_by_side
from trainables._core.rig import maml_update, student_rig, together
from trainables._core.settings import MethodConfig, StudentSettings


def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread():
    yield from threads(1)


@pytest.fixture
def two_threads():
    yield from threads(2)


def rig_of(size, tasks=6):
    config = MethodConfig(
        student=StudentSettings(width=4, depth=2), inner_steps=2, meta_batch=tasks
    )
    data = data_of([6] * 9, channels=1)
    rig = student_rig(config, data, TaskShape(3, 1, 2), seed=0, device="cpu")
    rig.chunks.size = size
    return rig


def updated(size):
    rig = rig_of(size)
    outer = MetaOptimiser(rig.meta, 1e-2, 10)
    said = maml_update(rig, outer, rig.episodes())[1]
    return said, {n: p.detach().clone() for n, p in rig.meta.items()}


def test_chunks_give_the_meta_gradient_of_the_whole():
    whole, theta = updated(6)
    for size in (1, 4):
        said, other = updated(size)
        assert said == pytest.approx(whole, rel=1e-4)
        for name, p in theta.items():
            torch.testing.assert_close(other[name], p, rtol=1e-4, atol=1e-5)


def test_threads_change_no_bit(two_threads):
    together_, theta = updated(2)
    torch.set_num_threads(1)
    alone, other = updated(2)
    assert together_ == alone
    assert all(torch.equal(p, other[n]) for n, p in theta.items())


def test_parts_run_side_by_side_and_come_back_in_order(two_threads):
    meet = threading.Barrier(2, timeout=20)  # broken unless two threads are inside at once

    def one(number):
        meet.wait()
        return number, torch.is_grad_enabled(), torch.get_num_threads()

    with torch.no_grad():
        assert side_by_side(one, [0, 1]) == [(0, False, 1), (1, False, 1)]
    assert torch.get_num_threads() == 2


def test_an_error_in_a_part_reaches_the_caller(two_threads):
    def one(number):
        raise ValueError(f"part {number}")

    with pytest.raises(ValueError, match="part 0"):
        side_by_side(one, [0, 1])


def test_chunks_halve_when_memory_ends_and_say_so(one_thread, caplog):
    rig = rig_of(6)
    episodes = rig.episodes()
    seen = []

    def hungry(part):
        seen.append(part.tasks)
        if part.tasks > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part.first

    chunks = Chunks(6)
    with caplog.at_level(logging.WARNING):
        assert chunks.over(hungry, episodes) == [0, 2, 4]
    assert chunks.size == 2
    assert seen == [6, 3, 2, 2, 2]
    assert "going on with 2 tasks at a time" in caplog.text


def test_a_single_task_that_does_not_fit_is_an_error():
    def hungry(part):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Chunks(2).over(hungry, rig_of(2).episodes())


def test_other_errors_are_not_taken_for_memory(one_thread):
    assert not out_of_memory(RuntimeError("shapes do not fit"))
    calls = []

    def wrong(part):
        calls.append(part)
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Chunks(4).over(wrong, rig_of(4).episodes())
    assert len(calls) == 1


def test_a_meta_batch_is_cut_by_cost_and_threads(two_threads, monkeypatch):
    rig = rig_of(6)
    shape = TaskShape(3, 1, 2)
    assert together(rig.network, shape, 6, "cuda") == 6
    assert together(rig.network, shape, 6, "cpu") == 3
    torch.set_num_threads(1)
    assert together(rig.network, shape, 6, "cpu") == 6
    assert together(rig.network, shape, 64, "cpu") == 8
    monkeypatch.setattr(rig_module, "MOST_TOGETHER", 5)
    for count in (1, 2):  # 5, 5, 5 and 1 would have one thread do twice what the other does
        torch.set_num_threads(count)
        assert together(rig.network, shape, 16, "cpu") == 4
    costly = student_rig(
        MethodConfig(student=StudentSettings(width=512)),
        data_of([6] * 9, channels=1),
        TaskShape(5, 1, 15),
        seed=0,
        device="cpu",
    )
    assert 1 <= together(costly.network, TaskShape(50, 1, 150), 64, "cpu") < 5
