"""What the driver writes for TensorBoard, read back through TensorBoard's own server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import torch

from search._tensorboard import BoardWriter, _result, best_scalars, by_step
from search.board import command, serve
from search.episode import _drawn
from search.errors import UserError
from search.gallery import _png
from search.metrics import METRICS
from search.recorder import Record
from search.rundir import RunDir
from search.stills import table_figure
from spaces._domains import Choice, Domain, Fixed, Float, Int, When

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPACE: dict[str, Domain] = {
    "student.width": Int(8, 64, log=True, why="small"),
    "teacher.kind": Choice(("none", "resnet12"), why="with and without"),
    "teacher.width": Int(16, 64, why="large", when=When("teacher.kind", ("resnet12",))),
    "views": Choice((0, 1, 3), why="numbers without an order"),
    "anil": Choice((True, False), why="a switch"),
    "order": Fixed("first", why="cheap"),
    "rate": Float(0.01, 1.0, log=True, why="rates"),
}
CONFIGS: list[dict[str, Any]] = [
    {"student.width": 8, "teacher.kind": "none", "views": 0, "anil": True, "order": "first",
     "rate": 0.1},
    {"student.width": 16, "teacher.kind": "resnet12", "teacher.width": 32, "views": 3,
     "anil": False, "order": "first", "rate": 0.2},
]  # fmt: skip


def write(run: RunDir) -> None:
    """Two sessions: the second goes on with the second trial, as after a kill."""
    board = BoardWriter(run.tensorboard, SPACE, ["accuracy", "adapt_ms"])
    board.text("sweep", "```yaml\nmethod: maml\n```")
    records = [Record(i, config) for i, config in enumerate(CONFIGS)]
    for record in records:
        board.started(record)
        row = {"iteration": 5, "loss": 1.0, "accuracy": 0.5, "notes": [], "pattern": "01"}
        board.reported(record, row)
    finish(board, records[0])
    board.close()
    # TensorBoard reads event files in the order of their names, which hold a second and a count
    # without leading zeros: a second session never begins within a second of the first
    time.sleep(1.1)
    board = BoardWriter(run.tensorboard, SPACE, ["accuracy", "adapt_ms"])
    board.started(records[1])
    finish(board, records[1])
    board.started(FAILED)
    board.finished(FAILED)
    board.picture("front", PNG, 2, (1, 1))
    board.close()


def finish(board: BoardWriter, record: Record) -> None:
    board.table(record.id, PNG, (1, 1))
    board.scalar("hypervolume/by_trials", 0.1 * record.id, record.id + 1)
    row = {"iteration": 10, "accuracy": 0.8 + record.id / 10, "adapt_ms": 2.0, "finished": True,
           "pattern": "01", "table": TABLE}  # fmt: skip
    board.reported(record, row)
    record.state, record.metrics = "COMPLETE", {**row, "pattern": "0011"}
    record.reports = [{"loss": 0.5, "accuracy": 0.95}, {"loss": 0.7, "accuracy": 0.6}]
    board.finished(record)
    time.sleep(1.1)  # TensorBoard reads a trial's files in the order of their names, by seconds
    board.concluded(record.id, {"test_accuracy": 0.7, "fresh_accuracy": None}, (PNG, (1, 1)))


TABLE = json.dumps([
    {"pattern": "01", "step": 1, "accuracy": 0.6},
    {"pattern": "01", "step": 2, "accuracy": None},
    {"pattern": "11", "step": 1, "accuracy": 0.5},
    {"pattern": "11", "step": 3, "accuracy": 0.75},
    {"pattern": "10", "step": 3, "accuracy": 0.4},
])  # fmt: skip
FAILED: Any = Record(
    2, CONFIGS[0], "FAIL", {"accuracy": 0.3}, {"kind": "diverged", "reason": "the loss became nan"},
    reports=[{"accuracy": 0.4, "loss": 1.5, "gradient_norm": 3.0}, {"accuracy": 0.3, "loss": 2.0}],
    started="2026-01-02T03:04:05+00:00",
)  # fmt: skip


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of TensorBoard's server on a written run, on a free port."""
    run = RunDir.create(tmp_path_factory.mktemp("runs") / "mine")
    run.write_info(name="mine")
    write(run)
    words = command(run.path, port=0)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    said = process.stderr
    assert said is not None
    try:
        address = ""
        for line in said:
            if found := re.search(r"http://(\S+?):(\d+)/", line):
                address = f"http://127.0.0.1:{found[2]}"
                break
        assert address, "the server said no address"
        wait_until_loaded(address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)
        said.close()


def wait_until_loaded(address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(get(address, "data/runs")) == 4 and all(
            len(curve(address, f"trial-0000{n}")) == 2
            and curve(address, f"trial-0000{n}", "best/test_accuracy")
            for n in (0, 1)
        ):
            return
        time.sleep(0.3)
    pytest.fail("TensorBoard did not load the run")


def curve(address: str, run: str, tag: str = "accuracy") -> Any:
    """What the server has read of a trial's accuracy by now."""
    try:
        return get(address, "data/plugin/scalars/scalars", run=run, tag=tag)
    except urllib.error.HTTPError:
        return []


def get(address: str, path: str, **query: str) -> Any:
    url = f"{address}/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def post(address: str, path: str, body: object) -> Any:
    request = urllib.request.Request(
        f"{address}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
def test_hparams_shows_every_column_conditional_ones_too(server: str) -> None:
    shown = post(server, "data/plugin/hparams/experiment", {"experimentName": "0"})
    assert {info["name"] for info in shown["hparamInfos"]} == {*SPACE, "outcome"}
    metrics = [info["displayName"] for info in shown["metricInfos"]]
    assert metrics[:2] == ["accuracy", "adapt_ms"]
    assert {info["name"]["tag"] for info in shown["metricInfos"]} == {f"best/{m}" for m in metrics}
    assert {"fresh_accuracy", "test_accuracy", "loss"} <= set(metrics)
    assert {name for name, m in METRICS.items() if m.usable} <= set(metrics)


@pytest.mark.slow
def test_hparams_lists_each_trial_with_its_best_values_and_why_it_failed(server: str) -> None:
    columns: list[dict[str, Any]] = [{"hparam": name} for name in (*SPACE, "outcome")]
    columns += [{"metric": {"group": "", "tag": f"best/{n}"}}
                for n in ("accuracy", "loss", "test_accuracy")]  # fmt: skip
    body = {
        "experimentName": "0",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"],
        "colParams": columns,
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = post(server, "data/plugin/hparams/session_groups", body)["sessionGroups"]
    found = {group["sessions"][0]["name"]: group for group in groups}
    assert set(found) == {"trial-00000", "trial-00001", "trial-00002"}
    second, failed = found["trial-00001"], found["trial-00002"]
    assert second["hparams"] == {**CONFIGS[1], "outcome": "complete"}
    assert failed["hparams"]["outcome"] == "fail: diverged: the loss became nan"
    width = found["trial-00000"]["hparams"].get("teacher.width")
    assert not width
    said = {name: {v["name"]["tag"]: v["value"] for v in group["metricValues"]}
            for name, group in found.items()}  # fmt: skip
    assert said["trial-00001"] == pytest.approx(
        {"best/accuracy": 0.9, "best/adapt_ms": 2.0, "best/loss": 0.5, "best/test_accuracy": 0.7}
    )
    assert said["trial-00002"] == pytest.approx({"best/accuracy": 0.4, "best/loss": 1.5})
    assert failed["sessions"][0]["status"] == "STATUS_FAILURE"
    assert failed["sessions"][0]["startTimeSecs"] == 1767323045


@pytest.mark.slow
def test_scalars_have_our_names_one_run_for_each_trial(server: str) -> None:
    tags = get(server, "data/plugin/scalars/tags")
    assert {"loss", "accuracy"} <= set(tags["trial-00000"])
    points = get(server, "data/plugin/scalars/scalars", run="trial-00001", tag="accuracy")
    assert [step for _, step, _ in points] == [5, 10]
    assert [value for _, _, value in points] == pytest.approx([0.5, 0.9])
    assert "pattern" not in tags["trial-00000"]


@pytest.mark.slow
def test_the_front_and_the_texts_are_there(server: str) -> None:
    images = get(server, "data/plugin/images/tags")
    assert list(images["."]) == ["front"]
    assert set(images["trial-00001"]) == {"patterns", "episode"}
    texts = get(server, "data/plugin/text/tags")
    assert "sweep" in texts["."]
    drawn = get(server, "data/plugin/text/text", run="trial-00001", tag="configuration")
    assert "resnet12" in drawn[0]["text"]
    result = get(server, "data/plugin/text/text", run="trial-00000", tag="result")
    assert "COMPLETE" in result[0]["text"]
    assert "0011" in result[0]["text"]


@pytest.mark.slow
def test_the_first_screen_has_the_search_and_then_its_trials(server: str) -> None:
    layout = get(server, "data/plugin/custom_scalars/layout")
    charts = {c["title"]: [chart["title"] for chart in c["chart"]] for c in layout["category"]}
    assert charts["the search"] == ["hypervolume/by_trials", "hypervolume/by_trial_seconds"]
    assert charts["trials"][:3] == ["loss", "accuracy", "adapt_ms"]
    assert {"outer_rate", "process_mib", "tasks_per_s"} <= set(charts["trials"])
    steps = curve(server, "trial-00001", "by_inner_step/all_layers")
    assert [(step, value) for _, step, value in steps] == [(1, 0.5), (3, 0.75)]
    (one,) = curve(server, "trial-00001", "by_inner_step/chosen")
    assert one[1:] == [1, pytest.approx(0.6)]
    lines = get(server, "data/plugin/custom_scalars/scalars", tag="^accuracy$", run="trial-00001")
    assert [step for _, step, _ in lines["tag_to_events"]["accuracy"]] == [5, 10]
    points = get(server, "data/plugin/scalars/scalars", run=".", tag="hypervolume/by_trials")
    assert [step for _, step, _ in points] == [1, 2]


def test_a_trial_of_a_thousand_iterations_takes_less_than_a_mebibyte(tmp_path: Path) -> None:
    """Even if it reports after every one of them."""
    board = BoardWriter(tmp_path / "tensorboard", SPACE, ["accuracy"])
    record = Record(0, CONFIGS[1])
    board.started(record)
    names = [*METRICS, "loss", "train_accuracy", "tasks_per_s", "iterations_per_s"]
    for iteration in range(1000):
        row = dict.fromkeys(names[:16], 1.0 / (iteration + 1))
        board.reported(record, {"iteration": iteration, **row})
    figure = table_figure(
        0, [[f"{n:05b}", t, 0.5, 1.0, 9] for n in range(32) for t in range(1, 11)]
    )
    assert figure is not None
    board.table(0, *_png(figure))
    finish(board, record)
    support, query = (torch.randint(0, 256, (10, n, 3, 84, 84)).byte() for n in (5, 8))
    board.concluded(0, {}, _drawn(support, query, torch.full((10, 8, 10), 0.1)))
    board.close()
    files = (tmp_path / "tensorboard" / "trial-00000").iterdir()
    assert 100_000 < sum(file.stat().st_size for file in files) < 2**20


def test_a_run_without_events_has_nothing_to_show(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "new")
    run.write_info(name="new")
    with pytest.raises(UserError, match="has nothing for TensorBoard yet"):
        command(run.path)
    with pytest.raises(UserError, match="A run is a directory"):
        command(tmp_path)


def test_the_server_listens_on_loopback_unless_asked(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "mine")
    run.write_info(name="mine")
    write(run)
    words = command(run.path)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert command(run.path, "0.0.0.0", 7)[-3] == "7"


def test_a_server_that_cannot_start_is_the_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir.create(tmp_path / "mine")
    run.write_info(name="mine")
    write(run)

    fails = [sys.executable, "-c", "raise SystemExit(1)"]
    monkeypatch.setattr("search.board.command", lambda *_: fails)
    with pytest.raises(UserError, match="another --port"):
        serve(run.path, port=80)
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        serve(run.path)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_the_command(stop: signal.Signals) -> None:
    server = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = f"""
import signal, sys
import search.board
signal.signal(signal.SIGINT, signal.default_int_handler)
search.board.command = lambda *_: [sys.executable, "-c", {server!r}]
search.board.serve("run")
print("ended")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        time.sleep(0.3)  # until it waits
        process.send_signal(stop)  # to the command alone
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "ended\n")
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_the_last_word_of_a_failed_trial_says_why() -> None:
    failure = {"kind": "diverged", "reason": "the loss became nan"}
    record = Record(3, {}, "FAIL", {"accuracy": 0.5}, failure, 2.0)
    assert _result(record).splitlines() == [
        "**FAIL** after 2.0 s - diverged: the loss became nan", "",
        "| metric | value |", "|---|---|", "| accuracy | 50.0 % |",
    ]  # fmt: skip


def test_what_hparams_shows_of_a_trial_is_its_best() -> None:
    def shown(record: Record) -> dict[str, float]:
        return {one.tag: one.simple_value for one in best_scalars(record)}

    assert shown(FAILED) == pytest.approx({"best/accuracy": 0.4, "best/loss": 1.5})
    curve = [{"accuracy": 0.9, "loss": 1.0}, {"accuracy": 0.5, "loss": 2.0}]
    metrics = {"accuracy": 0.6, "adapt_ms": 2.0, "process_mib": 900.0}
    whole = Record(0, {}, "COMPLETE", metrics, reports=curve)
    assert shown(whole) == pytest.approx(
        {"best/accuracy": 0.6, "best/adapt_ms": 2.0, "best/loss": 1.0}
    )


def test_accuracy_by_inner_step_is_of_what_was_scored() -> None:
    found = by_step({"pattern": "01", "table": TABLE})
    assert found == {1: {"chosen": 0.6, "all_layers": 0.5}, 3: {"all_layers": 0.75}}
    assert by_step({"pattern": "01"}) == {}
