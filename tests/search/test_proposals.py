"""Points of a sweep file: configurations to try first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from search.config import dump_sweep, load_sweep
from search.errors import UserError
from search.proposals import completed
from tests import fakes

if TYPE_CHECKING:
    from pathlib import Path

    from spaces._domains import Value

DEFAULTS: dict[str, Value] = {
    "student.width": 64,
    "rate": 0.1,
    "teacher.kind": "none",
    "teacher.width": 32,
}


@pytest.fixture(autouse=True)
def _known(fake_method: object) -> None:
    """The method ``fake``."""


def load(tmp_path: Path, points: str, space: str = "{}"):
    file = tmp_path / "sweep.yaml"
    file.write_text(f"method: fake\nspace: {space}\npoints: {points}\n", "utf-8")
    return load_sweep(file)


def test_a_point_is_completed_by_the_defaults_and_typed_as_the_space():
    point = completed(fakes.SPACE, DEFAULTS, {"rate": 1})
    assert point == {
        "student.width": 32, "rate": 1.0, "teacher.kind": "none", "sick": "no", "pause_s": 0.0,
    }  # fmt: skip
    assert isinstance(point["rate"], float)
    assert completed(fakes.SPACE, DEFAULTS, {"teacher.kind": "wide"})["teacher.width"] == 32


def test_points_survive_being_written(tmp_path: Path):
    config = load(tmp_path, "[{student.width: 16}, {rate: 1, teacher.kind: wide}]")
    assert config.points == ({"student.width": 16}, {"rate": 1, "teacher.kind": "wide"})
    (tmp_path / "again.yaml").write_text(dump_sweep(config), "utf-8")
    assert load_sweep(tmp_path / "again.yaml").points == config.points


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("5", "line 3, points: Expected a list of points"),
        ("[5]", "line 3, points[0]: A point maps parameters to values"),
        ("[{}]", "points[0]: A point maps parameters to values"),
        ("[{rate: [0.1]}]", "points[0].rate: A point has one value for each parameter"),
        ("[{rat: 0.1}]", "points[0].rat: The method has no parameter rat. Did you mean rate?"),
        ("[{student.width: 16}, {student.width: 64}]",
         "points[1].student.width: Must lie in int [4, 32] log; found 64. Change it or widen"),
        ("[{student.width: 16.5}]", "Must lie in int [4, 32] log; found 16.5"),
        ("[{student.depth: 2}]", "student.depth is not searched by this sweep"),
        ("[{sick: nan}]", "sick is fixed: no; found nan. Leave it out."),
        ("[{teacher.width: 20}]",
         "teacher.width is read only where teacher.kind is wide; this point has none."),
    ],
)  # fmt: skip
def test_a_wrong_point_gets_one_sentence(tmp_path: Path, points: str, said: str):
    with pytest.raises(UserError) as error:
        load(tmp_path, points)
    assert said in str(error.value)


def test_all_wrong_points_are_told_at_once(tmp_path: Path):
    with pytest.raises(UserError, match="has 2 errors"):
        load(tmp_path, "[{student.width: 64}, {rate: 7}]")


def test_a_point_that_the_methods_settings_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # the method ``fake`` refuses nothing
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "method: meta_distillation\nspace: {baseline: fixed_teacher}\n"
        "points: [{distillation.loss: none, teacher.pretrain: 0.5}]\n",
        "utf-8",
    )
    with pytest.raises(UserError, match=r"points\[0\]: .*distillation.loss must be kl"):
        load_sweep(file)
