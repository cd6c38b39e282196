"""What `adapt` leaves behind on request: the adapted student, and a sheet of its predictions."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.adapt import adapt
from search.errors import UserError
from search.sheet import GAP, LINE, TILE
from tests import bundles
from trainables._core.programs import outputs_of


def test_the_adapted_student_is_saved_by_name(home, support, tmp_path):
    adapt(home, support, save=tmp_path / "mine")
    with np.load(tmp_path / "mine" / "adapted.npz") as found:
        assert tuple(found.files) == outputs_of(bundles.student().spec)
        assert found["head.W"].shape == (3, 64)
        assert all(found[name].dtype == np.float32 for name in found.files)
    known = json.loads((tmp_path / "mine" / "classes.json").read_text())
    assert known == {"classes": ["bar", "cross", "disc"]}
    assert "onnxruntime" not in (tmp_path / "mine" / "README.md").read_text()


def test_it_comes_with_the_programs_of_the_bundle(tmp_path, support):
    home = bundles.bundle(tmp_path / "bundle", programs=("student.onnx", "student.pt2"))
    adapt(home, support, save=tmp_path / "mine")
    assert (tmp_path / "mine" / "student.onnx").read_bytes() == b"student.onnx"
    assert "onnxruntime" in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_readme_of_an_adapted_student_runs(tmp_path, support, monkeypatch):
    import re

    from search.bundle import read_bundle, seal
    from search.exported import write_programs

    home = bundles.bundle(tmp_path / "bundle")
    write_programs(home, read_bundle(home).student, 5, 1)
    seal(home, {"run": "by hand"})
    adapt(home, support, save=tmp_path / "mine")
    text = (tmp_path / "mine" / "README.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path / "mine")
    told = []
    for program in programs:
        found: dict[str, Any] = {}
        exec(compile(program, "README.md", "exec"), found)
        told.append(np.asarray(found["probabilities"]))
        assert told[-1].shape == (3, 3)
        assert np.allclose(told[-1].sum(1), 1, atol=1e-5)
    by_torch, by_onnx = told
    assert np.allclose(by_torch, by_onnx, atol=1e-5)


def test_places_are_checked_before_anything_is_computed(home, support, query, tmp_path):
    for words, said in (
        ({"save": home}, r"already holds a bundle\. Give another --save DIR"),
        ({"sheet": tmp_path / "sheet.jpg"}, r"is a PNG; found --sheet .*sheet\.jpg"),
        ({"sheet": tmp_path / "no" / "sheet.png"}, "lies in no folder"),
    ):
        with pytest.raises(UserError, match=said):
            adapt(home, support, query, **words)
    with pytest.raises(UserError, match="add --query DIR"):
        adapt(home, support, sheet=tmp_path / "sheet.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_every_image_least_certain_first(tmp_path, support, query, channels):
    more: dict[str, Any] = (
        {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3} if channels == 3 else {}
    )
    home = bundles.bundle(tmp_path / "bundle", **more)
    report = adapt(home, support, query, sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * (TILE + GAP) + GAP, 2 * (TILE + GAP + 3 * LINE) + GAP)
        first = sheet.crop((GAP, GAP, GAP + TILE, GAP + TILE)).convert("L")
        words = sheet.crop((GAP, GAP + TILE, GAP + TILE, GAP + TILE + 3 * LINE)).convert("L")
    least = min(report.predictions, key=lambda p: p.confidence)
    with Image.open(query / least.file) as drawn:
        small = np.asarray(drawn.convert("L").resize((TILE, TILE)), dtype=float)
    assert np.abs(np.asarray(first, dtype=float) - small).mean() < 30
    assert np.asarray(words).min() < 128  # something is written below it


def test_images_without_labels_have_a_sheet_too(tmp_path, home, support, query):
    adapt(home, support, query / "bar", sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * (TILE + GAP) + GAP, TILE + GAP + 2 * LINE + GAP)
