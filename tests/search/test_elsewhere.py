from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray

from search import _client, admitted, elsewhere
from search._client import Errand, Heard
from search.cli import cli
from search.config import load_sweep
from search.errors import UserError
from search.interrupts import Interrupt
from tests import own

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEAD = "ray://head:10001"


class Sent:
    """Takes the place of the head."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.told: list[tuple[str, list[str], str | None]] = []

    def __call__(self, address: str, words: Sequence[str], file: str | None = None) -> int:
        self.told.append((address, list(words), file))
        return self.code


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    there = Sent(3)
    monkeypatch.setattr(_client, "run_there", there)
    return there


def command(*words: str) -> object:
    return cli.main(words, prog_name="fewtune", standalone_mode=False)


def test_a_sweep_is_sent_as_what_its_file_and_its_words_say(sent: Sent, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: maml\ndata: {source: glyphs, path: /on/the/head}\n", "utf-8")
    words = ["--set", "data.ways=3", "--trials", "7", "--name", "far", "--storage", "s3://b/runs"]
    from_there = ["--from", "runs/on-the-head", "--rename", "a=b"]
    assert command("sweep", str(file), *words, *from_there, "--address", HEAD) == 3
    ((address, told, text),) = sent.told
    assert address == HEAD
    assert told == ["sweep", "--name", "far", "--storage", "s3://b/runs", *from_there]
    assert text is not None
    again = tmp_path / "again.yaml"
    again.write_text(text, "utf-8")
    config = load_sweep(again)
    assert (config.data.ways, config.budget.trials, str(config.data.path)) == (3, 7, "/on/the/head")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resume", "runs/far", "--max-disk", "2GB"], ["resume", "runs/far", "--max-disk", "2GB"]),
        (["extend", "s3://b/far", "--trials", "4"], ["extend", "s3://b/far", "--trials", "4"]),
        (["doctor", "--json"], ["doctor", "--json"]),
    ],
)
def test_runs_are_the_heads_and_not_looked_for_here(
    words: list[str], told: list[str], sent: Sent
) -> None:
    assert command(*words[:1], "--address", HEAD, *words[1:]) == 3
    assert command(*words, "--address", HEAD) == 3  # wherever the option stands
    assert [one[1] for one in sent.told] == [told, told]


def test_what_is_wrong_with_the_file_is_said_here(sent: Sent, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: mamml\n", "utf-8")
    with pytest.raises(UserError, match=r"mine.yaml: line 1"):
        command("sweep", str(file), "--address", HEAD)
    assert not sent.told


@pytest.mark.parametrize("address", ["ray://head", "ray://", "ray://me:pw@head:1", "ray://h:1/x"])
def test_an_address_that_is_none(address: str, sent: Sent) -> None:
    with pytest.raises(UserError, match=r"ray://HOST:PORT.*found --address ray://") as said:
        elsewhere.send(address, ["resume", "runs/far"])
    assert "pw" not in str(said.value)
    assert not sent.told


@pytest.mark.parametrize(
    "words",
    [
        ["resume", "s3://me:hunter2@bucket/far"],
        ["resume", "s3://bucket/far?secret_key=hunter2"],
        ["doctor", "--storage", "s3://me:hunter2@bucket/runs"],
    ],
)
def test_a_key_does_not_travel(words: list[str], sent: Sent) -> None:
    with pytest.raises(UserError, match="A key must not stand in a storage address") as said:
        command(*words, "--address", HEAD)
    assert "hunter2" not in str(said.value)
    assert not sent.told


def test_paths_are_the_heads(sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative ones start from where its Ray was started, in a file as on the command line."""
    file = tmp_path / "here" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("method: maml\ndata: {source: folder, path: photos}\n", "utf-8")
    monkeypatch.chdir(file.parent)
    command("sweep", str(file), "--set", "data.split=lists", "--address", HEAD)
    command("sweep", "--address", HEAD)
    texts = [text for _, _, text in sent.told if text is not None]
    assert len(texts) == 2
    assert str(tmp_path) not in "".join(texts)
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    errand = Errand(["train"], texts[0], None)
    written = Path(errand._place.name) / _client.FILE
    config = load_sweep(written, settings=False)
    heard(errand)
    assert str(config.data.path) == str(there / "photos")
    assert str(config.data.split) == str(there / "lists")
    assert config.storage == str(there / "runs")


def test_a_folder_of_this_machine_is_not_on_the_head(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitted, "_ADMITTED", {})
    file = tmp_path / "mine.yaml"
    file.write_text(f"method: {own.folder(tmp_path)}\n", "utf-8")
    try:
        with pytest.raises(UserError, match="is a folder of this machine"):
            command("sweep", str(file), "--address", HEAD)
    finally:
        own.forget()
    assert not sent.told


def heard(errand: Errand) -> Heard:
    """All that a command writes until it ends."""
    while True:
        found = errand.hear(0)
        if found.code is not None:
            return found


def test_an_errand_is_a_command_whose_lines_are_kept() -> None:
    errand = Errand(["methods", "--json"], None, None)
    lines, code = heard(errand)
    assert code == 0
    assert '"method": "maml"' in "".join(line for is_error, line in lines if not is_error)
    assert errand.hear(0) == (lines, 0), "asked again it says the same"
    assert errand.hear(len(lines) - 1) == (lines[-1:], 0)
    assert not Path(errand._place.name).exists()


def test_an_errand_has_the_sweep_file_and_says_what_is_wrong() -> None:
    lines, code = heard(Errand(["train", "--json"], "method: mamml\n", None))
    assert code == 2
    (said,) = [line for is_error, line in lines if is_error]
    assert "sweep.yaml: line 1" in said


def test_ctrl_c_while_a_command_starts_ends_it_as_here() -> None:
    errand = Errand(["sweep"], "method: maml\n", None)
    errand.interrupt()
    assert heard(errand) == ([(True, "Stopped.")], 1)


class Now:
    """What a client's call gives at once, and what ``ray.get`` makes of it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class Driver:
    """A command on a head: what is heard, question by question; a function is called first."""

    def __init__(self, *answers: Heard | Callable[[], None]) -> None:
        self.answers, self.known = list(answers), list[int]()
        self.interrupts = 0
        self.hear, self.interrupt = Now(self._hear), Now(self._interrupt)

    def _hear(self, known: int) -> Heard:
        self.known.append(known)
        answer = self.answers.pop(0)
        if isinstance(answer, Heard):
            return answer
        answer()
        return Heard([], None)

    def _interrupt(self) -> None:
        self.interrupts += 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(_client, "APART_S", 0)


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def followed(driver: Driver) -> int:
    with Interrupt(lambda _: None, (signal.SIGINT,)) as interrupt:
        return _client._follow(driver, interrupt)


@pytest.mark.usefixtures("at_once")
def test_lines_come_once_and_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    driver = Driver(Heard([(True, "a"), (False, "b")], None), Heard([(False, "c")], 3))
    assert followed(driver) == 3
    assert driver.known == [0, 2]
    assert capsys.readouterr() == ("b\nc\n", "a\n")


@pytest.mark.usefixtures("at_once")
def test_ctrl_c_is_passed_on_once_and_twice_and_no_line_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    once = Driver(press, Heard([(False, "saved")], 1))
    assert (followed(once), once.interrupts) == (1, 1)
    twice = Driver(press, Heard([(False, "a")], None), press, Heard([(False, "b")], 1))
    assert (followed(twice), twice.interrupts) == (1, 2)
    assert twice.known == [0, 0, 1, 1]
    assert capsys.readouterr().out == "saved\na\nb\n"
    thrice = Driver(press, press, press)
    with pytest.raises(KeyboardInterrupt):
        followed(thrice)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ray.exceptions.ActorDiedError(), r"process on the head of ray://head:10001 is gone"),
        (
            ConnectionError('<_Rendezvous of:\n\tdetails = "no route"'),
            r'lost \(details = "no route"',
        ),
        (ConnectionError(), r"lost \(ConnectionError\).*fewtune resume RUN --address ray://head"),
    ],
)
def test_what_went_wrong_with_the_head_in_one_line(error: Exception, said: str) -> None:
    told = _client._lost(HEAD, error)
    assert re.search(said, told)
    assert "\n" not in told
