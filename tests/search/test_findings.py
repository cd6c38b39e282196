"""What the doctor makes of facts: fine, to be looked at, or in the way."""

from dataclasses import replace

import pytest

from search import findings
from search._nodes import Answer, Node
from search.config import ResourcesConfig
from search.findings import Step
from search.probe import Facts

SAME = {"python": "3.11.7", "torch": "2.13.0", "fewtune": "abc"}


def facts(versions=SAME, storage="", data="", free=50.0):
    return Facts(versions, storage, data, {"storage": free}, 0.0)


def node(name="a", cpu=4.0, gpu=0.0):
    return Node(name, name, {"CPU": cpu, "GPU": gpu})


def states(found):
    return [one.state for one in found]


def test_nodes_that_are_alike_and_reach_the_storage_are_fine():
    found = findings.of_answers([Answer(node("a"), facts()), Answer(node("b"), facts())], "/runs")
    assert states(found) == ["fine"] * 4
    assert "2 nodes answered" in found[0].said
    assert "read by all nodes" in found[2].said


def test_another_version_is_named_with_its_node():
    other = facts({**SAME, "torch": "2.12.0"})
    (found,) = findings.of_versions({"a": facts(), "b": facts(), "c": other})
    assert found.state == "stops"
    assert "torch is 2.13.0 on most nodes, and 2.12.0 on c" in found.said


def test_a_silent_node_stops_a_sweep():
    found = findings.of_answers([Answer(node("a"), None, "it did not answer in time")], "/runs")
    assert states(found) == ["stops"]
    assert "a: it did not answer in time" in found[0].said


def test_a_node_that_is_lost_while_it_is_asked_stops_nothing():
    lost: Answer[Facts] = Answer(node("b"), None, "it is not schedulable", lost=True)
    found = findings.of_answers([Answer(node("a"), facts()), lost], "/runs")
    assert states(found) == ["fine", "look", "fine", "fine", "fine"]
    assert found[1].said == "b was lost while it was asked."


def test_a_storage_that_one_node_lacks_is_told():
    (found,) = findings.of_storage({"a": facts(), "b": facts(storage="no such directory")}, "/runs")
    assert (found.state, found.said) == ("stops", "b cannot use /runs: no such directory.")


def test_where_the_nodes_lack_the_directory_all_must_reach_the_bucket():
    lacks = facts(storage="it is not the same directory")
    (found,) = findings.of_storage({"a": facts(), "b": lacks}, "/runs", "s3://bucket/runs")
    assert (found.state, found.said) == (
        "fine",
        "b lacks /runs, so trials save in s3://bucket/runs, which all nodes write and read.",
    )
    away = replace(facts(), bucket="access is denied")
    (found,) = findings.of_storage({"a": away, "b": lacks}, "/runs", "s3://bucket/runs")
    assert (found.state, found.said) == (
        "stops",
        "a cannot use s3://bucket/runs: access is denied.",
    )
    assert "All nodes need one of the two" in found.remedy
    assert "b lacks /runs" in found.remedy
    (found,) = findings.of_storage({"a": away, "b": facts()}, "/runs", "s3://bucket/runs")
    assert found.said == "/runs is written and read by all nodes."  # the driver alone copies it


@pytest.mark.parametrize(("free", "state"), [(50, "fine"), (3, "look"), (0.5, "stops")])
def test_disks_that_fill_up(free, state):
    assert states(findings.of_disk({"a": facts(free=free)})) == [state]


def test_data_travels_to_nodes_that_lack_it():
    assert states(findings.of_data({"a": facts()})) == ["fine"]
    (found,) = findings.of_data({"a": facts(), "b": facts(data="no files")})
    assert found.state == "look"
    assert "Not read on b (no files)" in found.said


def test_a_clock_is_off_only_beyond_what_asking_takes():
    assert states(findings.of_clocks({"a": (0.5, 0.1), "b": (5.0, 4.0)})) == ["fine"]
    (found,) = findings.of_clocks({"a": (-30.0, 0.1)})
    assert "a by -30.0 s" in found.said


@pytest.mark.parametrize(
    ("wanted", "free", "state", "said"),
    [
        ({"cpu": 2}, {"CPU": 8}, "fine", "4 at a time on 2 nodes"),
        ({"cpu": 2, "concurrent": 3}, {"CPU": 8}, "fine", "3 at a time"),
        ({"cpu": 2}, {"CPU": 1}, "look", "none: free are 1 CPU"),
        ({"cpu": 8}, {"CPU": 8}, "stops", "the largest 4 CPU and 0 GPU"),
        ({"gpu": 0.5}, {"CPU": 8}, "stops", "would wait for ever"),
        ({"gpu": 0.5, "scales": True}, {"CPU": 8}, "look", "wait for one that has"),
    ],
)
def test_why_a_trial_would_wait(wanted, free, state, said):
    (found,) = findings.of_room(ResourcesConfig(**wanted), [node("a"), node("b")], free)
    assert found.state == state
    assert said in found.said


def test_a_step_implies_the_share_of_a_gpu():
    step = Step("GPU", 1.0, peak_mib=3400, total_mib=40000 / 0.95)
    assert step.share == 0.1
    assert states(findings.of_step(step, ResourcesConfig(gpu=0.1))) == ["fine", "fine"]
    few = findings.of_step(step, ResourcesConfig(gpu=0.05))
    assert states(few) == ["fine", "stops"]
    assert "resources.gpu=0.10" in few[1].remedy
    assert states(findings.of_step(Step("cpu", 1.0, 600.0), ResourcesConfig())) == ["fine"]
    (failed,) = findings.of_step(Step("cpu", 1.0, 0, failure="out of memory"), ResourcesConfig())
    assert failed.state == "stops"
    assert Step("cpu", 1.0, 600.0).share == 0
