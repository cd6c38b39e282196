"""The sweep file: what is understood, what is refused, and in which words."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search.config import QUICKSTART, SweepConfig, check_name, dump_sweep, load_sweep
from search.constraints import Constraint
from search.errors import UserError
from search.metrics import METRICS, USABLE
from search.points import first_point
from search.registry import METHODS, defaults, sources, space
from spaces._domains import Choice, Fixed, Float, Int

ISSUE = """\
method: meta_distillation
data: {source: omniglot, ways: 5, shots: 1, queries: 15}
space:                                # left out: the method's own
  student.width: {int: [8, 64], log: true}
  inner_steps: {int: [1, 10]}
  epsilon: {float: [0.0, 0.05]}
objectives: {accuracy: max, student_params: min, adapt_ms: min}
constraints: [student_params <= 60000, quality_drop <= 0.02]
budget: {trials: 64, iterations: 4000, hours: 4}
resources: {cpu: 1, gpu: 0.25}
seed: 0
"""


@pytest.fixture
def write(tmp_path):
    def writer(text):
        path = tmp_path / "sweep.yaml"
        path.write_text(text, "utf-8")
        return path

    return writer


def refused(path, *overrides, check=True):
    """Return the lines of the error, without the file's name."""
    with pytest.raises(UserError) as caught:
        load_sweep(path, overrides, settings=check)
    return str(caught.value).replace(f"{path}: ", "").splitlines()


def test_the_shape_of_the_documents(write):
    config = load_sweep(write(ISSUE), settings=False)
    assert (config.data.source, config.data.ways, config.data.queries) == ("omniglot", 5, 15)
    assert config.constraints[0] == Constraint("student_params", "<=", 60000)
    assert config.objectives == {"accuracy": "max", "student_params": "min", "adapt_ms": "min"}
    assert (config.budget.trials, config.budget.hours, config.resources.gpu) == (64, 4, 0.25)
    width = config.resolved_space()["student.width"]
    assert isinstance(width, Int)
    assert (width.low, width.high, width.log) == (8, 64, True)


def test_the_quickstart_is_a_sweep_file_like_any_other():
    config = load_sweep(None)
    assert config.data.source == "glyphs"
    assert config.budget.trials >= 12
    assert load_sweep(QUICKSTART).model_copy(update={"storage": "runs"}) == config


def test_a_file_may_say_the_method_alone(write):
    config = load_sweep(write("method: maml\n"))
    assert config.resolved_space() == space("maml")
    assert config.objectives == {"accuracy": "max", "student_params": "min", "adapt_ms": "min"}
    assert config.data.source == "glyphs"


def test_empty_sections_are_left_out(write):
    config = load_sweep(write("method: maml\nspace:\nbudget:\nconstraints:\nobjectives:\n"))
    assert config == load_sweep(write("method: maml\n"))


def test_an_entry_narrows_fixes_or_widens_and_may_add(write):
    text = """\
method: maml
space:
  student.width: {int: [4, 128], log: true}
  inner_steps: 3
  inner_rate: {choice: [0.1, 0.4]}
  meta_batch: {int: [1, 16]}
"""
    config = load_sweep(write(text))
    resolved = config.resolved_space()
    assert list(resolved) == [*space("maml"), "meta_batch"]
    assert isinstance(resolved["student.width"], Int)
    assert resolved["student.width"].high == 128
    assert resolved["student.depth"] == space("maml")["student.depth"]
    assert isinstance(resolved["inner_rate"], Choice)
    assert isinstance(resolved["epsilon"], Float)
    assert resolved["epsilon"].stage == "adaptation"
    assert config.fixed() == {"inner_steps": 3}


def test_a_configuration_is_frozen_and_travels(write):
    config = load_sweep(write(ISSUE), settings=False)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes
    with pytest.raises(ValidationError):
        config.seed = 1


# ------------------------------------------------------------------ what is refused


def test_every_mistake_of_a_file_is_said_at_once_with_its_place(write):
    text = """\
mehtod: maml
trials: 5
data: {source: omniglto, ways: 1, shots: five}
student.width: 4
objectives: {acuracy: max, adapt_ms: up}
constraints: [student_parms <= 4, adapt_ms < 5, adapt_ms > 6]
budget: {trials: 1.5, hours: -1, iterations: true}
resources: {gpu: 1.5}
seed: x
"""
    expected = """\
method: This key is missing. It is one of lambda_adaptation, maml, meta_distillation.
line 1, mehtod: Unknown key mehtod. Did you mean method?
line 2, trials: Unknown key trials. Did you mean budget.trials?
line 3, data.shots: Expected a whole number; found the word 'five'.
line 3, data.source: There is no data source omniglto. Did you mean omniglot?
line 3, data.ways: Must be at least 2; found 1.
line 4, student.width: Unknown key student.width. Parameters of the method stand under `space`.
line 5, objectives.acuracy: There is no metric acuracy. Did you mean accuracy?
line 5, objectives.adapt_ms: A direction is max or min; found the word 'up'.
line 6, constraints: `adapt_ms > 6` and `adapt_ms < 5` cannot both hold.
line 6, constraints[0]: `student_parms <= 4` names no metric: student_parms is unknown. \
Did you mean student_params?
line 7, budget.hours: Must be above 0.0; found -1.
line 7, budget.iterations: Expected a whole number; found true.
line 7, budget.trials: Expected a whole number; found 1.5.
line 8, resources.gpu: A share of a GPU lies below 1; from 1 on give whole GPUs. Found 1.5.
line 9, seed: Expected a whole number; found the word 'x'.
"""
    path = write(text)
    first, *rest = refused(path)
    assert first == f"{path} has 16 errors:"
    assert [line.strip() for line in rest] == expected.splitlines()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method: mmal", "line 1, method: There is no method mmal. Did you mean maml?"),
        ("method: mmal\nspace: {x: 1}", "line 1, method: There is no method mmal. Did you mean"),
        ("method: 3", "line 1, method: Expected a word; found 3."),
        ("method: maml\ndata: 5", "line 2, data: Expected a mapping of keys to values; found 5."),
        ("method: maml\ndata: {sorce: x}", "data.sorce: Unknown key sorce. Did you mean source?"),
        ("method: maml\ndata: {channels: 2}", "data.channels: Must be 1 or 3; found 2."),
        ("method: maml\ndata: {size: 4}", "data.size: Must be at least 8; found 4."),
        ("method: maml\ndata: {path: 7}", "data.path: Expected a path; found 7."),
        ("method: maml\nspace: [a]", "space: Expected a mapping of keys to values; found a list."),
        ("method: maml\nobjectives: {}", "objectives: At least one is needed, as in `accuracy:"),
        ("method: maml\nobjectives: accuracy", "objectives: Expected a mapping of keys to values"),
        ("method: maml\nobjectives: {test_accuracy: max}", "measured on test classes, once"),
        ("method: maml\nobjectives: {pattern: max}", "pattern is a word, not a number"),
        ("method: maml\nconstraints: accuracy > 0.5", "constraints: Expected a list, as in"),
        ("method: maml\nobjectives: {guided_accuracy: max}", "guided_accuracy is of methods with"),
        (
            "method: maml\nconstraints: [quality_drop_teacher <= 0.02]",
            "constraints[0]: quality_drop_teacher is of methods with a teacher (meta_distillation)",
        ),
        ("method: maml\nconstraints: [5]", "constraints[0]: A constraint reads `metric <= number`"),
        ("method: maml\nbudget: {hours: .inf}", "budget.hours: Expected a finite number"),
        ("method: maml\nbudget: {gpu_hours: 0}", "budget.gpu_hours: Must be above 0.0; found 0."),
        ("method: maml\nresources: {gpu: -1}", "resources.gpu: Must be at least 0.0; found -1."),
        ("method: maml\nresources: {gpu: .nan}", "resources.gpu: Expected a finite number"),
        ("method: maml\nearly_stopping: {enabled: 1}", "enabled: Expected true or false; found 1."),
        ("method: maml\nearly_stopping: {grace: 2}", "grace: Must be at most 1.0; found 2."),
        ("method: maml\nname: ../up", "name: A name has up to 100 letters, digits, dots"),
        ("method: maml\nstorage: 5", "storage: Expected a word; found 5."),
        ("method: maml\nmethod: maml", "line 2, method: This key stands twice, first in line 1."),
    ],
)
def test_a_mistake_in_a_section(write, text, says):
    lines = refused(write(text), check=False)
    assert len(lines) == 1
    assert says in lines[0]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("student.widht: 8", "The method has no parameter student.widht. Did you mean student.wid"),
        ("width: 8", "The method has no parameter width. Did you mean student.width?"),
        ("student: {width: 8}", "written with dots; write `student.width` as one key."),
        ("student: {colour: 8}", "The method has no parameter student."),
        ("inner_steps: [1, 2]", "A list is no domain; write {choice: [1, 2]}."),
        ("inner_steps: {float: [1, 2]}", "takes whole numbers; write {int: [low, high]}."),
        ("inner_steps: 2.5", "Expected a whole number; found 2.5."),
        ("inner_rate: {float: [0, 1], log: true}", "must start above 0; found 0."),
        ("inner_rate: {float: [1, 0.1]}", "from low to high; found [1, 0.1]."),
        ("order: third", "found 'third'"),
        ("order: {choice: [first, third]}", "found 'third'"),
        ("student.width: {int: [-4, 8]}", "found -4"),
        ("student.width: null", "Found nothing. Write a value to fix it"),
    ],
)
def test_a_mistake_in_the_space(write, entry, says):
    lines = refused(write(f"method: maml\nspace:\n  {entry}\n"))
    assert len(lines) == 1
    assert lines[0].startswith("line 3, space.")
    assert says in lines[0]


def test_files_that_cannot_be_read(tmp_path):
    missing = tmp_path / "none.yaml"
    assert refused(missing) == [f"There is no sweep file {missing}."]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refused(binary) == [f"{binary} is no text file: byte 0 is not UTF-8."]
    assert "cannot be read: Is a directory" in refused(tmp_path)[0]


@pytest.mark.parametrize("name", ["a", "omniglot-5.2_x", "7"])
def test_names_of_runs(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 101, "a\n"])
def test_names_that_are_no_directory_names(name):
    with pytest.raises(UserError, match="A name has up to 100 letters"):
        check_name(name)


# ------------------------------------------------------------------ overrides


def test_overrides_replace_one_key(write):
    config = load_sweep(
        write(ISSUE),
        [
            "data.source=glyphs",
            "space.student.width=16",
            "space.epsilon={float: [0, 1e-2]}",
            "budget.hours=",
            "objectives.adapt_ms=null",
            "constraints=[accuracy >= 50%]",
            "seed=3",
            "seed=4",
            "early_stopping.enabled=false",
        ],
        settings=False,
    )
    assert config.data.source == "glyphs"
    assert config.data.queries == 15
    assert isinstance(config.space["student.width"], Fixed)
    assert config.space["epsilon"].contains(0.01)
    assert config.budget.hours is None
    assert list(config.objectives) == ["accuracy", "student_params"]
    assert config.constraints == (Constraint("accuracy", ">=", 0.5),)
    assert config.seed == 4
    assert not config.early_stopping.enabled


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.ways=x", "--set data.ways=x: Expected a whole number; found the word 'x'."),
        ("data.wasy=3", "--set data.wasy=3: Unknown key wasy. Did you mean ways?"),
        ("trials=3", "--set trials=3: Unknown key trials. Did you mean budget.trials?"),
        ("space.inner_step=3", "The method has no parameter inner_step. Did you mean inner_steps?"),
        ("space={inner_step: 3}", "--set space={inner_step: 3}, space.inner_step: The method has"),
        ("ways", "--set ways: Write key=value, as in `--set data.source=omniglot`."),
        ("=3", "--set =3: Write key=value"),
        ("data.=3", "--set data.=3: `data.` is no key"),
        (".ways=3", "--set .ways=3: `.ways` is no key"),
        ("seed.x=3", "`seed` has no keys of its own; set it as a whole: `seed=...`."),
        ("data.ways=[1", "--set data.ways=[1: The value `[1` is not YAML"),
        ("constraints=[accuracy >= 2]", "constraints[0]: `accuracy >= 2` can never hold"),
        ("method=", "method: This key is missing."),
    ],
)
def test_a_wrong_override_is_named(write, override, says):
    lines = refused(write("method: maml\nseed: 1\n"), override)
    assert len(lines) == 1
    assert says in lines[0]


def test_an_override_takes_the_place_of_the_files_mistake(write):
    path = write("method: maml\nspace:\n  inner_steps: many\n")
    assert load_sweep(path, ["space.inner_steps=2"]).fixed() == {"inner_steps": 2}
    assert load_sweep(path, ["space={}"]).space == {}


# ------------------------------------------------------------------ paths and round trips


def test_relative_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = """\
method: lambda_adaptation
data: {path: images, split: ../split.csv}
space: {checkpoint: {choice: [model, /abs/model, ""]}}
storage: out
"""
    config = load_sweep(write(text), settings=False)
    assert config.data.path == tmp_path / "images"
    assert config.data.split == tmp_path / "../split.csv"
    assert config.storage == str(tmp_path / "out")
    checkpoint = config.space["checkpoint"]
    assert isinstance(checkpoint, Choice)
    assert checkpoint.options == (str(tmp_path / "model"), "/abs/model", "")
    config = load_sweep(
        write(text), ["data.path=there", "space.checkpoint=m", "storage=s3://b/x"], settings=False
    )
    assert config.data.path == elsewhere / "there"
    assert config.fixed()["checkpoint"] == str(elsewhere / "m")
    assert config.storage == "s3://b/x"


def test_home_directories_are_understood(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "method: maml\ndata: {path: ~/images}\nstorage: ~nobody-of-this-name/x\n"
    config = load_sweep(write(text), settings=False)
    assert config.data.path == tmp_path / "images"
    assert config.storage == str(tmp_path / "~nobody-of-this-name/x")


def test_a_written_file_reads_back_as_the_same(write, tmp_path):
    config = load_sweep(write(ISSUE), ["data.path=/data", "storage=/runs"], settings=False)
    moved = tmp_path / "deeper" / "sweep.yaml"
    moved.parent.mkdir()
    moved.write_text(dump_sweep(config), "utf-8")
    again = load_sweep(moved, settings=False)
    assert again == config
    assert dump_sweep(again) == dump_sweep(config)
    assert again.resolved_space() == config.resolved_space()


def configs():
    metric = st.sampled_from([name for name in USABLE if not METRICS[name].taught])
    return st.fixed_dictionaries(
        {"method": st.sampled_from(METHODS)},
        optional={
            "data": st.fixed_dictionaries(
                {"source": st.sampled_from(sources()), "ways": st.integers(2, 30)},
                optional={"shots": st.integers(1, 9), "path": st.just("/x"), "size": st.just(28)},
            ),
            "space": st.dictionaries(
                st.sampled_from(["a.b", "c"]),
                st.integers() | st.just({"float": [1e-4, 2.0], "log": True}) | st.text(),
            ),
            "objectives": st.dictionaries(metric, st.sampled_from(["max", "min"]), min_size=1),
            "constraints": st.lists(metric.map(lambda name: f"{name} <= 0.5"), max_size=3),
            "budget": st.fixed_dictionaries({}, optional={"hours": st.floats(1e-3, 1e3)}),
            "seed": st.integers(0, 2**40),
            "storage": st.just("/runs") | st.just("s3://bucket/runs"),
            "name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
        },
    )


@settings(max_examples=60, deadline=None)
@example({"method": "maml", "name": "0e0"})  # a number to whoever reads 1e-3 as one
@given(configs())
def test_any_configuration_survives_being_written(tmp_path_factory, plain):
    path = tmp_path_factory.mktemp("sweeps") / "sweep.yaml"
    path.write_text(json.dumps(plain), "utf-8")  # is YAML too, and quotes words
    config = load_sweep(path, settings=False)
    path.write_text(dump_sweep(config), "utf-8")
    again = load_sweep(path, settings=False)
    if "storage" not in plain:
        again = again.model_copy(update={"storage": config.storage})
    assert again == config


def test_a_feasible_trial_keeps_every_constraint(write):
    config = load_sweep(write(ISSUE), settings=False)
    assert config.feasible({"student_params": 60000, "quality_drop": 0.0})
    assert not config.feasible({"student_params": 60001, "quality_drop": 0.0})
    assert not config.feasible({"student_params": 60000})


def test_every_key_has_a_default_except_the_method():
    assert SweepConfig(method="maml").budget.iterations > 0
    assert Path(SweepConfig(method="maml").storage) == Path("runs")


def test_a_fixed_value_is_taken_though_the_methods_condition_is_unmet(write):
    text = """\
method: meta_distillation
space: {teacher.kind: resnet12, teacher.width: 8, distillation.loss: none, distillation.weight: 0.5}
"""
    config = load_sweep(write(text))
    point = first_point(config.resolved_space(), defaults("meta_distillation"))
    assert (point["teacher.width"], point["distillation.weight"]) == (8, 0.5)


def test_what_hangs_on_a_fixed_value_is_not_drawn_where_that_value_says_nothing(write):
    text = """\
method: meta_distillation
space: {baseline: %s, teacher.kind: conv4, distillation.loss: kl}
"""
    hanging = {"teacher.width", "distillation.weight"}
    for baseline, drawn in (("student", set()), ("tsmd", hanging)):
        space_ = load_sweep(write(text % baseline)).resolved_space()
        point = first_point(space_, defaults("meta_distillation"))
        assert hanging & set(point) == drawn
        assert point["teacher.kind"] == "conv4"
