"""What looks executable in the documents is: sweep files load, commands run as they stand."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from docs import figures
from search.cli import cli
from search.config import load_sweep
from search.registry import METHODS
from tests import bundles

ROOT = Path(__file__).parent.parent
GUIDES = (
    "first-sweep", "own-data", "cluster", "reading-the-front", "loggers", "exporting",
    "adding-a-method",
)  # fmt: skip
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "deploy/README.md", *(f"docs/{guide}.md" for guide in GUIDES))
}
README = DOCUMENTS["README.md"]
INLINE = re.compile(r"(?<!`)`(fewtune [^`\n]+)`(?!`)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
MOST = 200_000  # bytes of a picture
# what a machine without archives and with little time adds to every sweep; the last --set wins
SMALL = """--set data.queries=5 --set budget.iterations=4 --set budget.trials=2
    --set space.student.width=8 --set space.student.depth=2 --set space.inner_steps=1
    --set space.meta_batch=2 --set constraints=[] --set evaluation.settings=2
    --set evaluation.validation_tasks=4 --set evaluation.test_tasks=4"""


def blocks(document: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENTS[document], re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[str]:
    lines = [line for text in blocks(document, "bash") for line in text.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("fewtune ")]


def inline(document: str) -> list[str]:
    """Commands within sentences; what has brackets or bars is a form, not a command."""
    return [found for found in INLINE.findall(DOCUMENTS[document]) if not set(found) & set("[|")]


def click_command(words: list[str]) -> tuple[click.Command, list[str]]:
    command, left = cli.commands[words[0]], words[1:]
    while isinstance(command, click.Group) and left:
        command, left = command.commands[left[0]], left[1:]
    return command, left


def check_parses(line: str) -> None:
    command, words = click_command(shlex.split(line)[1:])
    _, left, _ = command.make_parser(click.Context(command)).parse_args(list(words))
    assert left == [], line  # an unknown flag raises, a word too many is left
    if command.name == "sweep":
        load_sweep(None, [word for flag, word in pairwise(words) if flag == "--set"])
    if command.name == "space" and words not in ([], ["METHOD"]):  # the command, and its form
        beside = (ROOT / "examples" / words[0] / "space.py").is_file()  # a method's own folder
        assert words[0] in METHODS or beside


def test_something_was_found():
    assert all(commands(f"docs/{guide}.md") for guide in GUIDES)
    assert sum(len(commands(document)) for document in DOCUMENTS) >= 35
    assert sum(len(blocks(document, "yaml")) for document in DOCUMENTS) >= 5
    assert sum(len(inline(document)) for document in DOCUMENTS) >= 15
    assert {f"{guide}.md" for guide in GUIDES} | {"reference.md"} == {
        file.name for file in (ROOT / "docs").glob("*.md")
    }


def test_every_command_of_every_document_parses():
    for document in DOCUMENTS:
        for line in [*commands(document), *inline(document)]:
            check_parses(line)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_sweep_files_load(document, tmp_path):
    for text in blocks(document, "yaml"):
        (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
        assert load_sweep(tmp_path / "sweep.yaml").resolved_space()


def test_the_mistake_of_the_guide_is_worded_as_it_says(tmp_path, monkeypatch):
    from search.errors import UserError

    monkeypatch.chdir(tmp_path)
    wrong = "method: maml\ndata: {source: glyphs, way: 5}\n"
    Path("letters.yaml").write_text(wrong, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_sweep(Path("letters.yaml"))
    assert f"\n    {error.value}\n" in DOCUMENTS["docs/first-sweep.md"]


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_linked_is_there(document):
    for name, anchor in LINK.findall(DOCUMENTS[document]):
        file = ((ROOT / document).parent / name) if name else ROOT / document
        assert file.exists(), name
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name}#{anchor}"


def test_pictures_are_small_and_every_one_is_shown():
    shown = "".join(DOCUMENTS.values())
    pictures = list((ROOT / "docs").glob("*.png"))
    assert len(pictures) >= 5
    for file in pictures:
        assert f"{file.name})" in shown, f"{file.name} is in no document"
        assert file.stat().st_size <= MOST, file.name


def test_the_table_of_commands_names_them_all():
    named = set(re.findall(r"`fewtune (\w+)", README))
    assert set(cli.commands) <= named


def test_every_method_has_a_row_and_no_other():
    rows = set(re.findall(r"^\| `(\w+)` \| .*\| \[code\]", README, re.MULTILINE))
    assert rows == set(METHODS)


def test_the_figures_of_the_methods_are_the_measured_ones():
    def measured(name: str, row: str) -> float:
        file = ROOT / "benchmarks" / "results" / f"{name}.json"
        rows = {one["id"]: one["value"] for one in json.loads(file.read_text("utf-8"))["rows"]}
        return float(rows[row])

    gain = "inner_and_outer_gain"
    for said in (
        f"Omniglot: {100 * measured('omniglot_maml', 'test_accuracy'):.1f} %",
        f"{measured('omniglot_maml', 'adapt_speedup_fixed_steps'):.1f}\u00d7 faster",
        f"for {100 * measured('omniglot_maml', 'test_drop_fixed_steps'):.1f} points",
        f"+{100 * measured('distillation_omniglot_1shot', gain):.1f} points ± 0.3 on Omniglot",
        f"+{100 * measured('distillation_cifar-fs_default', gain):.1f} ± 0.4 on CIFAR-FS",
    ):
        assert said in README


def test_the_lines_of_python_call_what_there_is(tmp_path, monkeypatch):
    """The block as it stands, between a finished run and pictures that are there."""
    from search import api

    (code,) = blocks("README.md", "python")
    run = bundles.run(tmp_path / "run", [(0.5, 1000, 1.0), (0.8, 3000, 2.0)])
    monkeypatch.setattr(api, "sweep", lambda file, changes: api.results(run))
    monkeypatch.setattr("search.export.write_programs", lambda *_, **__: [])
    for name in ("cat", "dog", "new"):
        bundles.draw("disc" if name == "dog" else "bar", 0).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["adapted"].classes == ("cat", "dog")
    assert found["adapted"].predict(["new.jpg"])[0].label == "cat"


# --------------------------------------------------------- executed, one after the other

SMALLER = f"""
import sys
from pathlib import Path
from search.cli import main

words = sys.argv[1:] if __name__ == "__main__" else []  # else a child of `doctor`
if "--address" in words:  # this machine has no cluster: on a Ray of its own
    at = words.index("--address")
    del words[at : at + 2]
if words[:1] == ["extend"]:
    words[words.index("--trials") + 1] = "1"
if words and words[0] in ("sweep", "train", "doctor"):
    words += {SMALL.split()!r}
    words += [] if "method=maml" in words else ["--set", "space.teacher.width=8"]
    words += [] if "birds.yaml" in words else ["--set", "data.source=glyphs"]
if words[:1] == ["export"]:
    words.append("--no-programs")
if words[:1] == ["board"]:  # it would not end
    from search.board import command

    command(Path(words[1]))
    sys.exit()
if words:
    main(words)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A machine for the documents: a small `fewtune`, and the folders that they name."""
    place = tmp_path_factory.mktemp("home")
    command = place / "bin" / "fewtune"
    command.parent.mkdir()
    small = command.with_name("small.py")
    small.write_text(SMALLER, encoding="utf-8")
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {small} "$@"\n')
    command.chmod(0o755)
    bundles.folders(place / "photos" / "known")
    drawn = bundles.folders(place / "drawn", ("disc",), seed=7)
    (drawn / "disc").rename(place / "photos" / "new")
    for seed, split in enumerate(("train", "val", "test")):
        tree = bundles.folders(place / "birds" / split, images=6, seed=1000 * seed)
        for name in [file.name for file in tree.iterdir()]:  # a class belongs to one split
            (tree / name).rename(tree / f"{split}-{name}")
    return place


def follow(document, home):
    """Write the document's named files, run its shell blocks as they stand; what they said."""
    for text in blocks(document, "yaml"):
        if named := re.match(r"# ([\w-]+\.yaml)\n", text):
            (home / named[1]).write_text(text, encoding="utf-8")
    paths = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-eu", "-c", "".join(blocks(document, "bash"))],
        capture_output=True, text=True, check=False, cwd=home, env={**os.environ, **paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def readme(home):
    """What the README's commands said; its run is the one that guides look at."""
    return follow("README.md", home)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_the_commands_do_what_they_say_one_after_the_other(home, readme):
    """The README's shell blocks as they stand, by a shell, on embedded data."""
    assert (home / "my-student" / "model.safetensors").is_file()
    for words in ("runs/letters", "* on the front", "Wrote trial", "Classified 2 images"):
        assert words in readme


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1200)  # minutes on a busy machine
@pytest.mark.parametrize(
    ("guide", "made", "said"),
    [
        ("first-sweep", "runs/second/run.json", "glyphs, 28 px: 5-way 1-shot"),
        ("own-data", "runs/birds/run.json", "3-way 1-shot with 2 queries: fits"),
        ("reading-the-front", "figures", "hypervolume"),
        pytest.param(
            *(
                "loggers",
                "runs/followed/loggers/mlflow.json",
                "runs/followed/loggers/wandb/offline",
            ),
            marks=pytest.mark.skipif(
                not (find_spec("wandb") and find_spec("mlflow")),
                reason="wandb or mlflow is not installed (fewtune[loggers])",
            ),
        ),
        ("exporting", "byte-student/model.int8.safetensors", "with int8 weights"),
        ("cluster", "fewtune-slurm.sh", "runs/far"),
        ("adding-a-method", "runs/maml-try/run.json", "Finn, Abbeel, Levine"),
    ],
)
def test_a_guide_does_what_it_says(home, readme, guide, made, said):
    out = follow(f"docs/{guide}.md", home)
    assert (home / made).exists()
    assert said in out


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_guides_pictures_are_taken_anew_by_the_command_that_they_name(home, readme, tmp_path):
    for wanted in ("chromium", "chromedriver"):
        if shutil.which(wanted) is None:
            pytest.skip(f"{wanted} is not installed")
    words = [sys.executable, "-m", "docs.figures", str(home / "runs" / "letters")]
    done = subprocess.run(
        [*words, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = {
        f.name for f in (ROOT / "docs").glob("*.png") if f.name.startswith(("report-", "board-"))
    }
    assert {file.name for file in tmp_path.iterdir()} == told
    for name, shot in {**figures.REPORT, **figures.BOARD}.items():
        picture = Image.open(tmp_path / f"{name}.png")
        assert picture.size == (shot.width, shot.height)
        colours = picture.convert("RGB").getcolors(2**20) or []
        most = max(count for count, _ in colours) / (shot.width * shot.height)
        assert len(colours) > 50, f"{name} is an empty page"
        assert most < 0.98, f"{name} is an empty page"
