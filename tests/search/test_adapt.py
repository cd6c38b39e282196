"""An exported student and folders of images: predictions, their scores, and what can be wrong."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from search.adapt import CHUNK, adapt
from search.errors import UserError
from tests import bundles
from trainables._data import DataError

SHAPES = bundles.SHAPES[:3]


def printed(report, width=120):
    text = io.StringIO()
    report.print(Console(file=text, width=width))
    return text.getvalue()


def by_file(report) -> dict[str, Any]:
    return {p.file: (p.label, pytest.approx(p.confidence, abs=1e-5)) for p in report.predictions}


# ------------------------------------------------------------------ what it says


def test_labelled_queries_are_scored(home, support, query):
    report = adapt(home, support, query)
    assert report.classes == SHAPES
    assert (report.pattern, report.inner_steps, report.normalisation) == ("011", 2, "inductive")
    assert report.adapt_ms > 0
    assert len(report.predictions) == 12
    right = [p.label == p.file.split("/")[0] for p in report.predictions]
    assert report.accuracy == sum(right) / 12
    assert report.accuracy > 0.6  # the network is random, but the shapes are easy; chance: 1/3
    assert all(1 / 3 <= p.confidence <= 1 for p in report.predictions)


def test_what_was_shown_is_recognised(home, support):
    assert adapt(home, support, support).accuracy == 1.0


def test_the_document(home, support, query):
    document = json.loads(json.dumps(adapt(home, support, query).to_json()))
    assert set(document) == {
        "classes", "pattern", "inner_steps", "adapt_ms", "normalisation", "accuracy", "predictions",
    }  # fmt: skip
    assert set(document["predictions"][0]) == {"file", "label", "confidence"}
    assert document["predictions"][0]["file"] == "bar/0.png"


def test_images_without_labels_are_classified(home, support, query, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for shape in SHAPES:
        shutil.copy(query / shape / "0.png", flat / f"{shape}.png")
    report = adapt(home, support, flat)
    assert report.accuracy is None
    labelled = {p.file: p for p in adapt(home, support, query).predictions}
    for one in report.predictions:
        same = labelled[f"{Path(one.file).stem}/0.png"]
        assert one.label == same.label
        assert one.confidence == pytest.approx(same.confidence, abs=1e-5)


def test_without_queries_it_adapts_and_is_timed(home, support):
    report = adapt(home, support)
    assert (report.accuracy, report.predictions) == (None, ())
    assert report.adapt_ms > 0
    assert "--query DIR classifies" in printed(report)


def test_it_is_deterministic(home, support, query):
    first, second = adapt(home, support, query), adapt(home, support, query)
    assert first.predictions == second.predictions
    assert first.accuracy == second.accuracy


def test_an_image_alone_gets_the_prediction_it_gets_among_others(home, support, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for n in range(CHUNK + 6):  # more than are predicted at once
        bundles.draw(bundles.SHAPES[n % 5], n).save(many / f"{n:03}.png")
    together = by_file(adapt(home, support, many))
    alone = tmp_path / "alone"
    for name in ("000.png", "003.png", f"{CHUNK + 5:03}.png"):
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        shutil.copy(many / name, alone)
        assert by_file(adapt(home, support, alone)) == {name: together[name]}


def test_a_transductive_student_is_named_so(tmp_path, support, query):
    home = bundles.bundle(tmp_path / "batch", normalisation="transductive")
    report = adapt(home, support, query)
    assert report.to_json()["normalisation"] == "transductive"
    assert "(transductive)" in printed(report)


def test_a_transductive_student_is_given_no_image_alone(tmp_path, support):
    alone = tmp_path / "alone"
    alone.mkdir()
    bundles.draw("bar", 7).save(alone / "one.png")
    home = bundles.bundle(tmp_path / "batch", normalisation="transductive")
    with pytest.raises(UserError, match=r"those of 1 image \(one.png\) mean nothing"):
        adapt(home, support, alone)
    home = bundles.bundle(tmp_path / "group", normalisation="transductive", norm="group")
    assert len(adapt(home, support, alone).predictions) == 1  # it has no such statistics


@pytest.mark.parametrize("head", ["prototype", "shared"])
def test_names_and_order_of_classes_do_not_matter(tmp_path, head):
    home = bundles.bundle(tmp_path / "bundle", head=head)
    support = bundles.folders(tmp_path / "support", bundles.SHAPES, images=1)
    query = bundles.folders(tmp_path / "query", bundles.SHAPES, images=5, seed=1000)
    before = adapt(home, support, query)
    renamed = {shape: f"{'zyxwv'[i]} {i}" for i, shape in enumerate(bundles.SHAPES)}
    for old, new in renamed.items():
        (support / old).rename(support / new)
        (query / old).rename(query / new)
    after = adapt(home, support, query)
    assert after.classes == tuple(sorted(renamed.values()))
    assert after.accuracy == before.accuracy
    expected = {p.file: (renamed[p.label], p.confidence) for p in before.predictions}
    for p in after.predictions:
        old = next(o for o, n in renamed.items() if p.file.startswith(f"{n}/"))
        label, confidence = expected[p.file.replace(renamed[old], old)]
        assert p.label == label
        assert p.confidence == pytest.approx(confidence, abs=1e-4)


def test_any_number_of_classes_and_images(home, tmp_path):
    support = bundles.folders(tmp_path / "support", bundles.SHAPES, images=1)
    bundles.folders(support, ("disc",), images=7)
    assert adapt(home, support).support == 11
    for shape in bundles.SHAPES[2:]:
        shutil.rmtree(support / shape)
    report = adapt(home, support, bundles.folders(tmp_path / "query", ("cross",)))
    assert report.classes == ("bar", "cross")
    assert report.accuracy is not None


def test_pictures_of_any_kind(tmp_path, support):
    home = bundles.bundle(tmp_path / "colour", channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    query = tmp_path / "photos"
    query.mkdir()
    image = bundles.draw("disc", 5, 90)
    image.save(query / "a.PNG")
    image.convert("RGB").resize((120, 80)).save(query / "b.jpeg")
    image.convert("RGBA").save(query / "c.WebP")
    image.save(query / "d.JPG", format="JPEG")
    report = adapt(home, support, query)
    assert [p.file for p in report.predictions] == ["a.PNG", "b.jpeg", "c.WebP", "d.JPG"]


def test_threads_are_given_back(home, support):
    before = torch.get_num_threads()
    adapt(home, support)
    assert torch.get_num_threads() == before


# ------------------------------------------------------------------ what is skipped


def test_unreadable_images_are_skipped_counted_and_named(home, support, query, capsys):
    (support / "bar" / "broken.png").write_bytes(b"no image")
    (support / "notes.txt").write_text("taken on Monday")
    (support / "top.png").write_bytes((support / "bar" / "0.png").read_bytes())
    (support / ".DS_Store").write_bytes(b"x")
    for n in range(5):
        (query / "disc" / f"photo{n}.heic").write_bytes(b"x")
    report = adapt(home, support, query)
    said = capsys.readouterr().err
    assert f"{support}: skipped 1: corrupt image (bar/broken.png)\n" in said
    assert "skipped 1: not an image (notes.txt)\n" in said
    assert "skipped 1: image outside a class folder (top.png)\n" in said
    assert "skipped 5: HEIC photo" in said
    assert "disc/photo2.heic, ...)" in said
    assert "DS_Store" not in said
    assert (report.support, len(report.predictions)) == (6, 12)


def test_a_link_out_of_the_folder_is_not_followed(home, support, query, tmp_path, capsys):
    secret = tmp_path / "secret.png"
    bundles.draw("bar", 1).save(secret)
    (query / "bar" / "link.png").symlink_to(secret)
    assert len(adapt(home, support, query).predictions) == 12
    assert "symbolic link leaving the tree (bar/link.png)" in capsys.readouterr().err


def test_a_name_that_is_no_text_can_be_printed(home, support, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    (flat / name).write_bytes((support / "bar" / "0.png").read_bytes())
    report = adapt(home, support, flat)
    json.dumps(report.to_json(), ensure_ascii=False).encode()
    assert report.predictions[0].file == "caf�.png"


# ------------------------------------------------------------------ what is refused


def test_one_class_is_too_few(home, tmp_path):
    one = bundles.folders(tmp_path / "one", ("bar",))
    with pytest.raises(UserError, match=r"needs at least 2; .*one has 1 \(bar\)"):
        adapt(home, one)


def test_a_linear_head_has_its_number_of_classes(tmp_path, support):
    home = bundles.bundle(tmp_path / "linear", head="linear")
    with pytest.raises(UserError, match=r"linear head was trained for 5 classes, and .* has 3"):
        adapt(home, support)
    assert adapt(home, bundles.folders(tmp_path / "five", bundles.SHAPES)).support == 10


def test_an_empty_class_is_named(home, support):
    (support / "empty").mkdir()
    with pytest.raises(DataError, match=r"Class empty in .* has no readable image"):
        adapt(home, support)
    (support / "empty" / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"Class empty in .* has no readable image left"):
        adapt(home, support)


def test_a_query_class_must_be_known(home, support, query):
    (query / "disc").rename(query / "disk")
    with pytest.raises(UserError, match=r"class disk, .* Did you mean disc\?"):
        adapt(home, support, query)


def test_folders_that_are_none(home, support, query, tmp_path):
    with pytest.raises(DataError, match="gone is not a folder"):
        adapt(home, tmp_path / "gone")
    with pytest.raises(DataError, match="gone is not a folder"):
        adapt(home, support, tmp_path / "gone")
    with pytest.raises(DataError, match="holds no class"):
        adapt(home, support / "bar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no image that can be read"):
        adapt(home, support, tmp_path / "empty")
    (tmp_path / "empty" / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"None of the images in .*empty can be read"):
        adapt(home, support, tmp_path / "empty")
    shutil.copy(query / "bar" / "0.png", query)
    with pytest.raises(UserError, match=r"holds both images \(such as 0\.png\) and folders"):
        adapt(home, support, query)


def test_weights_that_are_no_numbers_give_no_predictions(home, support, query):
    own = bundles.student()
    next(p for name, p in own.params.items() if name.startswith("conv2")).fill_(float("nan"))
    own.save(home)
    bundles.reseal(home)
    with pytest.raises(RuntimeError, match="predictions are no numbers"):
        adapt(home, support, query)


# ------------------------------------------------------------------ on a terminal


def test_the_least_certain_predictions_are_shown(home, support, query, tmp_path):
    report = adapt(home, support, query)
    text = printed(report)
    assert "Adapted to 3 classes from 6 images in" in text
    assert report.accuracy is not None
    assert f"Accuracy {100 * report.accuracy:.1f} % (inductive)" in text
    assert "of 12 images right; chance is 33.3 %." in text
    assert all(p.file in text for p in report.predictions)
    assert "least certain" not in text
    many = bundles.folders(tmp_path / "many", images=17, seed=1000)
    report = adapt(home, support, many)
    text = printed(report)
    assert "the 50 least certain of 51" in text
    certain = sorted(report.predictions, key=lambda p: p.confidence)
    assert certain[0].file in text
    assert certain[-1].file not in text
    assert text.rstrip().endswith("`--json` names all 51.")


def test_names_are_not_read_as_markup(home, tmp_path):
    support = bundles.folders(tmp_path / "support")
    (support / "bar").rename(support / "[red]bar")
    report = adapt(home, support, support)
    assert "[red]bar/0.png" in printed(report)


# ------------------------------------------------------------------ real images


def test_characters_of_omniglot(tmp_path):
    root = Path(os.environ.get("FEWTUNE_DATA", ""))
    archive = root / "images_evaluation.zip"
    if not os.environ.get("FEWTUNE_DATA") or not archive.is_file():
        pytest.skip("FEWTUNE_DATA names no folder with images_evaluation.zip (Omniglot)")
    home = bundles.bundle(tmp_path / "bundle", size=28, input_size=28)
    with zipfile.ZipFile(archive) as content:
        names = sorted(n for n in content.namelist() if n.endswith(".png"))
        for kind in ("character01", "character05", "character09"):
            own = [n for n in names if f"/Tengwar/{kind}/" in n][:11]
            assert len(own) == 11
            for part, files in (("support", own[:1]), ("query", own[1:])):
                place = tmp_path / part / kind
                place.mkdir(parents=True)
                for name in files:
                    (place / Path(name).name).write_bytes(content.read(name))
    report = adapt(home, tmp_path / "support", tmp_path / "query")
    assert len(report.predictions) == 30
    assert report.accuracy is not None
    assert report.accuracy > 0.4  # a random network already tells some apart; chance is a third
