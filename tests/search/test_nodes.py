"""Ray's nodes are asked one by one."""

from typing import Any

import pytest
import ray

from search import _nodes
from search._nodes import Node, as_a_trial, free, on_every_node
from search.preflight import Nodes, check_nodes

ONE, TWO = "1" * 56, "2" * 56  # as Ray names its nodes


def answer_of(node: Node, reference: Any, wait_s: float) -> Any:
    return _nodes._answer(node, reference, wait_s)


def where(_):
    return ray.get_runtime_context().get_node_id()


def broken(asked):
    raise asked


def sleepy(_):
    import time

    time.sleep(60)


def test_an_answer_that_does_not_come_says_why(monkeypatch):
    def get(reference, timeout):
        raise reference

    monkeypatch.setattr(ray, "get", get)
    here = Node("a", "a", {})
    late = answer_of(here, ray.exceptions.GetTimeoutError("x"), 1)
    assert late.silence == "it did not answer in time"
    lost = answer_of(here, ray.exceptions.RayActorError(), 1)
    assert lost.said is None
    assert lost.silence
    missing = answer_of(here, ModuleNotFoundError("No module named 'search'"), 1)
    assert "fewtune cannot be imported there (No module named 'search')" in missing.silence


def test_nodes_are_those_that_live(monkeypatch):
    seen = [
        {"NodeManagerHostname": "h", "NodeManagerAddress": "1.2.3.4", "NodeID": "x",
         "Resources": {"CPU": 2.0}, "Alive": alive} for alive in (True, False)
    ]  # fmt: skip
    monkeypatch.setattr(ray, "nodes", lambda: seen)
    assert _nodes.nodes() == [Node("h (1.2.3.4)", "x", {"CPU": 2.0})]
    two = [{**seen[0], "NodeID": name} for name in (ONE, TWO)]
    monkeypatch.setattr(ray, "nodes", lambda: two)
    assert [n.name for n in _nodes.nodes()] == ["h (1.2.3.4) 111111", "h (1.2.3.4) 222222"]
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    assert free() == {"CPU": 1.0}


def test_each_question_is_bound_to_its_node(monkeypatch):
    sent = []

    class Task:
        def options(self, scheduling_strategy):
            sent.append((scheduling_strategy.node_id, scheduling_strategy.soft))
            return self

        def remote(self, *asked):
            return asked

    monkeypatch.setattr(ray, "remote", lambda **held: lambda function: Task())
    monkeypatch.setattr(ray, "get", lambda reference, timeout: reference)
    answers = on_every_node(where, 7, among=[Node("a", ONE, {}), Node("b", TWO, {})])
    assert [a.said for a in answers] == [(7,), (7,)]
    assert sent == [(ONE, False), (TWO, False)]
    assert as_a_trial(where, 1, cpu=1, gpu=0, patience_s=1).said == (1,)
    gone = []
    monkeypatch.setattr(ray, "cancel", lambda reference, force: gone.append(force))

    def late(reference, timeout):
        raise ray.exceptions.GetTimeoutError

    monkeypatch.setattr(ray, "get", late)
    assert as_a_trial(where, 1, cpu=1, gpu=0, patience_s=1).said is None
    assert gone == [True]


def fail_with(monkeypatch, failures):
    """Have some nodes fail when they are asked, by their ids; the others answer well."""

    class Task:
        def options(self, scheduling_strategy):
            self.node = scheduling_strategy.node_id
            return self

        def remote(self, asked):
            return self.node

    def get(reference, timeout):
        if reference in failures:
            raise failures[reference]
        return "well"

    monkeypatch.setattr(ray, "remote", lambda **held: lambda function: Task())
    monkeypatch.setattr(ray, "get", get)


def test_a_node_that_goes_down_while_it_is_asked_is_lost_and_one_that_is_slow_is_not(monkeypatch):
    here, gone, slow = (Node(name, name * 56, {}) for name in "123")
    unknown = ray.exceptions.TaskUnschedulableError("its node does not exist any more")
    fail_with(monkeypatch, {gone.id: unknown, slow.id: ray.exceptions.GetTimeoutError()})
    monkeypatch.setattr(_nodes, "nodes", lambda: [here, slow])
    answers = on_every_node(where, 7, among=[here, gone, slow])
    assert [one.said for one in answers] == ["well", None, None]
    assert [one.lost for one in answers] == [False, True, False]


def test_a_node_that_dies_while_it_answers_is_lost_and_gone_when_trials_are_planned(monkeypatch):
    here, dying = Node("1", ONE, {}), Node("2", TWO, {})
    looks = []

    def nodes():
        """Ray takes a while to know what it has just said itself."""
        looks.append(1)
        return [here, dying] if len(looks) < 3 else [here]

    died = ray.exceptions.NodeDiedError("the node it was running on is dead")
    fail_with(monkeypatch, {TWO: died})
    monkeypatch.setattr(_nodes, "nodes", nodes)
    monkeypatch.setattr(_nodes, "LOOK_S", 0.0)
    answers = on_every_node(where, 7, among=[here, dying])
    assert [one.lost for one in answers] == [False, True]
    assert len(looks) == 3
    monkeypatch.setattr(_nodes, "NOTICED_S", 0.0)
    looks.clear()
    assert [one.lost for one in on_every_node(where, 7, among=[here, dying])] == [False, True]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_here")
def test_a_real_node_answers_and_a_sweep_may_begin(tmp_path):
    (answer,) = on_every_node(where, None)
    assert answer.said == answer.node.id
    (failed,) = on_every_node(broken, ValueError("no\nmore"))
    assert failed.silence == "no"
    (slow,) = on_every_node(sleepy, None, patience_s=3)
    assert slow.silence == "it did not answer in time"
    assert check_nodes(tmp_path) == Nodes([])
