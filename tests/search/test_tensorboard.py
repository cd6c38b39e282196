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

from search._tensorboard import BoardWriter, _result
from search.board import command, serve
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
    board.picture("front", PNG, 2, (1, 1))
    board.close()


def finish(board: BoardWriter, record: Record) -> None:
    board.table(record.id, PNG, (1, 1))
    board.scalar("hypervolume/by_trials", 0.1 * record.id, record.id + 1)
    row = {"iteration": 10, "accuracy": 0.8 + record.id / 10, "adapt_ms": 2.0, "finished": True}
    board.reported(record, row)
    record.state, record.metrics = "COMPLETE", {"accuracy": 0.8, "pattern": "0011"}
    board.finished(record)


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
        if len(get(address, "data/runs")) == 3 and all(
            len(curve(address, f"trial-0000{n}")) == 2 for n in (0, 1)
        ):
            return
        time.sleep(0.3)
    pytest.fail("TensorBoard did not load the run")


def curve(address: str, run: str) -> Any:
    """What the server has read of a trial's accuracy by now."""
    try:
        return get(address, "data/plugin/scalars/scalars", run=run, tag="accuracy")
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
    assert {info["name"] for info in shown["hparamInfos"]} == set(SPACE)
    metrics = [info["name"]["tag"] for info in shown["metricInfos"]]
    assert metrics[:2] == ["accuracy", "adapt_ms"]
    assert {name for name, m in METRICS.items() if m.usable} <= set(metrics)


@pytest.mark.slow
def test_hparams_lists_both_trials_with_their_last_values(server: str) -> None:
    columns = [{"hparam": name} for name in SPACE]
    body = {
        "experimentName": "0",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING"],
        "colParams": [*columns, {"metric": {"group": "", "tag": "accuracy"}}],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = post(server, "data/plugin/hparams/session_groups", body)["sessionGroups"]
    found = {group["hparams"]["student.width"]: group for group in groups}
    assert set(found) == {8, 16}
    assert found[16]["hparams"] == CONFIGS[1]
    assert "teacher.width" not in found[8]["hparams"] or not found[8]["hparams"]["teacher.width"]
    values = {v["name"]["tag"]: v["value"] for v in found[16]["metricValues"]}
    assert values["accuracy"] == pytest.approx(0.9)


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
    assert list(images["trial-00001"]) == ["patterns"]
    texts = get(server, "data/plugin/text/tags")
    assert "sweep" in texts["."]
    result = get(server, "data/plugin/text/text", run="trial-00000", tag="result")
    assert "COMPLETE" in result[0]["text"]
    assert "0011" in result[0]["text"]


@pytest.mark.slow
def test_the_first_screen_has_the_search_and_then_its_trials(server: str) -> None:
    layout = get(server, "data/plugin/custom_scalars/layout")
    charts = {c["title"]: [chart["title"] for chart in c["chart"]] for c in layout["category"]}
    assert charts["the search"] == ["hypervolume/by_trials", "hypervolume/by_trial_seconds"]
    assert charts["trials"][:3] == ["loss", "accuracy", "adapt_ms"]
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
    board.close()
    (file,) = (tmp_path / "tensorboard" / "trial-00000").iterdir()
    assert 100_000 < file.stat().st_size < 2**20


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
