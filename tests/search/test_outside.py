"""Methods from outside: a folder that is named, a package that is installed."""

import json
import sys

import pytest
from click.testing import CliRunner

from search import admitted, registry
from search.cli import cli
from search.config import dump_sweep, load_sweep
from search.errors import UserError
from search.listing import method_rows
from search.outside import MOST_BYTES, Folder, Package, absolute
from search.registry import METHODS
from spaces._domains import Choice, Fixed, Float, Int, When
from tests import own

LEARNER = "from trainables.maml import Maml\nLEARNER = Maml\n"
SPACE = "from spaces._domains import *\nSPACE = {%s}\n"


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    monkeypatch.setattr(admitted, "_ADMITTED", {})
    monkeypatch.setattr(admitted, "_RECALLED", {})
    yield
    own.forget()


def sweep(place, method, more=""):
    file = place / "sweep.yaml"
    file.write_text(f"method: {method}\n{more}")
    return file


def test_a_sweep_file_names_a_folder_beside_it(tmp_path):
    made = own.folder(tmp_path)
    file = sweep(tmp_path, "./reptile", "space: {step: {float: [0.5, 1]}, student.width: 16}")
    config = load_sweep(file)
    assert config.method == str(made)
    space = config.resolved_space()
    assert space["step"].text() == "float [0.5, 1]"
    assert space["student.width"] == Fixed(16, why="set in the sweep file")
    assert registry.learner(config.method).__name__ == "Reptile"
    assert registry.defaults(config.method)["step"] == 1.0
    assert registry.about(config.method).startswith("Reptile: Nichol")
    assert registry.title(config.method) == "reptile"
    registry.check_settings(config.method, {"step": 0.5})
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "again.yaml").write_text(dump_sweep(config))
    assert load_sweep(moved / "again.yaml").method == config.method


def test_a_folder_can_be_named_on_the_command_line(tmp_path, monkeypatch):
    made = own.folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_sweep(None, ["method=./reptile", "space={}"]).method == str(made)
    shown = CliRunner().invoke(cli, ["space", "./reptile", "--json"])
    document = json.loads(shown.stdout)
    assert document["method"] == "reptile"
    assert [row["parameter"] for row in document["searched"]][-2:] == ["step", "epsilon"]
    assert list(document["published"]) == ["Nichol et al. 2018, Omniglot"]
    assert absolute("maml") == "maml"


def test_files_that_change_are_read_anew(tmp_path):
    made = own.folder(tmp_path)
    registry.admit(str(made))
    before = registry.learner(str(made))
    registry.admit(str(made))
    assert registry.learner(str(made)) is before
    text = (made / "trainable.py").read_text()
    (made / "trainable.py").write_text(text.replace("le=1)", "le=2)"))
    registry.admit(str(made))
    assert registry.learner(str(made)) is not before
    registry.check_settings(str(made), {"step": 1.5})


def test_what_is_no_folder_of_a_method_is_said(tmp_path):
    (tmp_path / "file").touch()
    own.folder(tmp_path, "half", space=None)
    own.folder(tmp_path, "1st")
    own.folder(tmp_path, "fat", more="#" * MOST_BYTES)
    (own.folder(tmp_path, "latin") / "space.py").write_bytes(b"\xe9")
    for name, said in (
        ("gone", r"folder with trainable.py and space.py; .*gone does not exist"),
        ("file", "is a file; name its folder"),
        ("half", "half lacks space.py"),
        ("1st", "the first a letter; found '1st'"),
        ("fat", "fat has 1.0 MiB of Python files, and 1 MiB at most"),
        ("latin", "latin cannot be read"),
    ):
        with pytest.raises(UserError, match=said):
            Folder.read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"space": "SPACE = {"}, r"space.py of .*mine cannot be imported: SyntaxError: .*line 1"),
        ({"space": "\nimport nowhere"}, r"No module named 'nowhere' \(line 2 of space.py\)"),
        ({"space": "raise ValueError"}, r"cannot be imported: ValueError \(line 1"),
        ({"space": "x = 1"}, "space.py of .* has no SPACE"),
        ({"space": "SPACE = [1]"}, "must map parameters to domains; found list"),
        ({"space": "SPACE = {'step': 1}"}, "step must be a Float, Int, Choice or Fixed"),
        ({"space": SPACE % "'a': Fixed(1, why='b', when=When('c', (1,)))"}, "a depends on c"),
        ({"space": SPACE % "'stp': Fixed(1, why='b')"}, "stp is no setting. Did you mean step"),
        ({"space": SPACE % "'step': Float(0.5, 2, why='b')"}, "step: .* less than or equal to 1"),
        ({"trainable": "LEARNER = 1"}, "must be a class that extends Learner"),
        ({"trainable": "x = 1"}, "trainable.py of .* has no LEARNER"),
        (
            {"trainable": "from trainables._learner import Learner\nclass Mine(Learner): ...\n"
             "LEARNER = Mine"},
            "Mine of .* lacks __init__, cheap, finish",
        ),
        (
            {"trainable": LEARNER.replace("LEARNER", "class Bare(Maml.__base__):\n"
             "    __init__ = step = validate = finish = state_dict = load_state_dict = cheap = 1\n"
             "LEARNER").replace("Maml\n", "Bare\n").replace("import Bare", "import Maml")},
            "Bare of .* lacks Config",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_code_is_one_sentence_with_its_place(tmp_path, files, said):
    own.folder(tmp_path, "mine", **files)
    with pytest.raises(UserError, match=said) as told:
        load_sweep(sweep(tmp_path, "./mine"))
    assert "line 1, method: " in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_a_name_that_is_a_folder_is_told_how_to_write_it(tmp_path, monkeypatch):
    own.folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no method reptile\. .*with a slash: \./reptile"):
        load_sweep(sweep(tmp_path, "reptile"))


def test_no_code_runs_for_a_file_that_nobody_named(tmp_path):
    ran = tmp_path / "ran"
    own.folder(tmp_path, "mine", space=f"open({str(ran)!r}, 'w').close()\n")
    config = load_sweep(sweep(tmp_path, "./mine", "space: {x: 1}"), settings=False)
    assert config.space["x"] == Fixed(1, why="set in the sweep file")
    for ask in (registry.learner, registry.space, registry.defaults, registry.published):
        if ask is registry.published:
            assert ask(config.method) == {}
            continue
        with pytest.raises(UserError, match=r"not loaded|Nothing is known"):
            ask(config.method)
    assert not ran.exists()


DOMAINS = """
    'step': Float(0.5, 1, why='b'),
    'patterns': Choice(('all', 'suffixes'), why='c'),
    'epsilon': Float(0, 0.05, why='d', stage='adaptation', when=When('patterns', ('all',))),
    'inner_steps': Int(1, 3, log=True, why='e'),
    'order': Fixed('first', why='f')
"""


def test_a_run_is_read_without_the_code(tmp_path):
    made = own.folder(tmp_path, space=SPACE % DOMAINS)
    method = load_sweep(sweep(tmp_path, "./reptile")).method
    known, files = admitted.known(method), registry.files(method)
    admitted.record(tmp_path, method)
    admitted._ADMITTED.clear()
    (made / "space.py").unlink()
    assert admitted.recall(tmp_path) == known.digest
    assert admitted.known(method) == known
    assert registry.space(method)["epsilon"] == Float(
        0, 0.05, why="d", stage="adaptation", when=When("patterns", ("all",))
    )
    assert isinstance(registry.space(method)["patterns"], Choice)
    assert isinstance(registry.space(method)["inner_steps"], Int)
    assert registry.files(method) == files
    config = load_sweep(tmp_path / "sweep.yaml", settings=False)
    assert config.resolved_space() == known.space
    with pytest.raises(UserError, match="is not loaded: it runs only for"):
        registry.learner(method)
    (tmp_path / "method.json").write_text('{"method": "x", "space": {"a": {"kind": "What"}}}')
    with pytest.raises(UserError, match=r"method\.json is damaged: it describes no method"):
        admitted.recall(tmp_path)
    assert admitted.recall(tmp_path / "reptile") == ""


def test_code_that_changed_does_not_go_on_with_a_run(tmp_path):
    made = own.folder(tmp_path)
    registry.admit(str(made))
    digest = admitted.known(str(made)).digest
    admitted.admit(str(made), digest)
    with (made / "trainable.py").open("a") as file:
        file.write("# more\n")
    with pytest.raises(UserError, match=r"The code of the method reptile .* is not what it was"):
        admitted.admit(str(made), digest)


def test_a_package_offers_a_method(tmp_path, monkeypatch):
    made = own.package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = {row["method"]: row for row in method_rows()}
    assert rows["reptile"]["about"] == "from the package few-reptile 1.2"
    assert rows["reptile"]["parameters"] is None
    assert "from the package few-reptile 1.2" in CliRunner().invoke(cli, ["methods"]).stdout
    assert not [name for name in sys.modules if name.startswith("few_reptile")]
    config = load_sweep(sweep(tmp_path, "reptile"))
    assert registry.learner(config.method).__module__ == "few_reptile.trainable"
    assert registry.title(config.method) == "reptile"
    assert registry.files(config.method) == {}
    digest = admitted.known("reptile").digest
    (made / "more.py").touch()
    assert Package.read("reptile").digest != digest
    with pytest.raises(UserError, match=r"There is no method 'reptlie'\. Did you mean reptile"):
        registry.admit("reptlie")


def test_a_package_that_is_not_there_and_one_too_many_are_said(tmp_path, monkeypatch):
    own.package(tmp_path)
    own.package(tmp_path, "lost", "lost-method", "lost_method")
    for file in (tmp_path / "lost_method").iterdir():
        file.unlink()
    (tmp_path / "lost_method").rmdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        UserError, match=r"lost-method 1\.2 says that lost is the package lost_meth"
    ):
        registry.admit("lost")
    with pytest.raises(UserError, match="No installed package offers the method gone"):
        Package.read("gone")
    own.package(tmp_path, distribution="other-reptile")
    with pytest.raises(UserError, match=r"several packages, .*other-reptile 1\.2.*uninstall all"):
        registry.admit("reptile")


def test_a_package_does_not_replace_a_method_of_ours(tmp_path, monkeypatch):
    own.package(tmp_path, "maml")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.learner("maml").__module__ == "trainables.maml"
    assert [row["method"] for row in method_rows()] == list(METHODS)
