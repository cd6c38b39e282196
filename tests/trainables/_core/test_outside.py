"""A method's files travel as text and are imported from memory."""

import pickle
import traceback
from dataclasses import replace

import pytest

from tests import own
from trainables._core.outside import Code, arrived, carried
from trainables._learner import RunSettings, TaskShape
from trainables._trial import TrialSettings
from trainables.maml import Maml

CODE = Code("mine", (
    ("base.py", "class Base:\n    tells = 'base'\n\ndef fail():\n    raise ValueError('here')\n"),
    ("trainable.py", "from .base import Base\n\nclass Mine(Base):\n    pass\n"),
))  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh():
    own.forget()
    yield
    own.forget()


def test_a_file_is_imported_with_those_beside_it():
    mine = CODE.module("trainable").Mine
    assert mine.tells == "base"
    assert CODE.module("trainable").Mine is mine
    with pytest.raises(ModuleNotFoundError):
        CODE.module("space")


def test_its_lines_are_in_a_traceback():
    with pytest.raises(ValueError, match="here") as told:
        CODE.module("base").fail()
    said = "".join(traceback.format_exception(told.value))
    assert 'File "mine/base.py", line 5' in said
    assert "raise ValueError('here')" in said


def test_other_files_are_another_package():
    other = replace(CODE, files=(*CODE.files[:1], ("trainable.py", "class Mine:\n    pass\n")))
    assert other.digest != CODE.digest
    assert other.module("trainable").Mine is not CODE.module("trainable").Mine
    assert Code("mine", (("a.py", "bc"),)).digest != Code("mine", (("a.pyb", "c"),)).digest


def test_a_class_travels_with_its_files_to_a_process_that_lacks_them():
    settings = TrialSettings(CODE.module("trainable").Mine, TaskShape(3, 1, 2), RunSettings(4, 1))
    identity = settings.identity({}, "data")
    sent = pickle.dumps(settings)
    own.forget()
    there = pickle.loads(sent)  # noqa: S301 - as Ray does
    assert (there.learner.__name__, there.learner.tells) == ("Mine", "base")
    assert (there.shape, there.run) == (settings.shape, settings.run)
    assert there.identity({}, "data") == identity


def test_a_class_of_ours_travels_by_its_name():
    assert carried(Maml) is Maml
    assert arrived(Maml) is Maml
