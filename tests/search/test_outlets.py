"""How the command ends: which code, which sentence, and what reaches standard output."""

import json
import math
import sys

import click
import pytest

from search.errors import FailedError, UserError
from search.outlets import end, tidy_stdout, write_json
from spaces._domains import SpaceError


def ended(error, *, debug=False):
    def command():
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as caught:
        end(command, debug=debug)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (None, 0, ""),
        (UserError("It is wrong."), 2, "Error: It is wrong.\n"),
        (SpaceError("It is inverted."), 2, "Error: It is inverted.\n"),
        (click.BadParameter("No."), 2, "Error: Invalid value: No.\n"),
        (click.ClickException("Not here."), 2, "Error: Not here.\n"),
        (FailedError("It diverged."), 1, "Error: It diverged.\n"),
        (KeyboardInterrupt(), 1, "Stopped.\n"),
        (click.exceptions.Abort(), 1, "Stopped."),
        (RuntimeError("a\n b."), 1, "Unexpected RuntimeError: a b. Run it again as `fewtune --de"),
        (MemoryError(), 1, "Unexpected MemoryError: it gave no reason."),
        (SystemExit(7), 7, ""),
        (SystemExit("words"), 1, ""),
    ],
)
def test_each_end_has_its_code_and_its_sentence(error, code, says, capsys):
    assert ended(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err


def test_debug_shows_where(capsys):
    assert ended(RuntimeError("here"), debug=True) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "Unexpected RuntimeError: here.\n" in err


def test_errors_of_data_and_settings_blame_the_input(capsys):
    from trainables._data import DataError
    from trainables._learner import ConfigError

    assert ended(DataError("No such folder.")) == 2
    assert ended(ConfigError("No such setting.")) == 2
    assert capsys.readouterr().err == "Error: No such folder.\nError: No such setting.\n"


def test_a_command_may_return_its_code():
    with pytest.raises(SystemExit) as caught:
        end(lambda: 2, debug=False)
    assert caught.value.code == 2


def test_json_holds_no_number_that_json_does_not_know(capsys):
    write_json({"a": math.nan, "b": [math.inf, 1.5], "c": ("ü", None), 3: {"d": -math.inf}})
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": [None, 1.5], "c": ["ü", None], "3": {"d": None}}


def test_what_the_work_prints_goes_to_standard_error(capsys):
    with tidy_stdout():
        sys.stdout.write("chatter\n")
    assert capsys.readouterr() == ("", "chatter\n")
