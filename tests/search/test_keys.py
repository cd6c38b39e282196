"""Every key says what it does, and its bounds are those that a sweep file is held to."""

import pytest

from search import registry
from search.config import SweepConfig, load_sweep
from search.errors import UserError
from search.keys import LEFT_OUT, descriptions, keys, section_of

MODELS = (SweepConfig, *(registry.learner(name).Config for name in registry.METHODS))
OF_SWEEP = {key.name: key for key in keys(SweepConfig)}


@pytest.mark.parametrize("model", MODELS)
def test_every_key_says_what_it_does(model):
    found = keys(model)
    assert len(found) > 15
    assert [key.name for key in found if len(key.about) < 10] == []
    assert [key.name for key in found if "``" in key.about] == []
    assert len({key.name for key in found}) == len(found)


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_described_that_is_not_there(model):
    sections = filter(None, (section_of(model, name) for name in model.model_fields))
    for one in (model, *sections):
        assert set(descriptions(one)) <= set(one.model_fields)


@pytest.mark.parametrize("method", registry.METHODS)
def test_the_settings_of_a_method_are_its_keys(method):
    found = keys(registry.learner(method).Config)
    assert [key.name for key in found] == list(registry.defaults(method))


def test_defaults_are_written_as_a_sweep_file_has_them():
    said = {name: key.default for name, key in OF_SWEEP.items()}
    assert said["objectives"] == "{accuracy: max, student_params: min, adapt_ms: min}"
    assert (said["constraints"], said["space"]) == ("[]", "{}")
    assert (said["method"], said["data.path"], said["resources.scales"]) == (
        None, LEFT_OUT, "false",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "allowed", "beyond"),
    [
        ("data.ways", "from 2", "1"),
        ("data.size", "8 to 512", "513"),
        ("data.channels", "1 | 3", "2"),
        ("budget.hours", "above 0", "0.0"),
        ("early_stopping.grace", "above 0, up to 1", "1.5"),
        ("early_stopping.by", "pareto | asha", "hyperband"),
        ("evaluation.settings", "1 to 64", "65"),
    ],
)
def test_what_is_beyond_the_allowed_is_refused(name, allowed, beyond):
    assert OF_SWEEP[name].allowed == allowed
    with pytest.raises(UserError, match=name.rpartition(".")[2]):
        load_sweep(None, [f"{name}={beyond}"])


def test_an_optional_section_is_a_key_with_keys():
    assert OF_SWEEP["budget.plateau"].kind == "mapping"
    assert OF_SWEEP["budget.plateau"].default == LEFT_OUT
    assert OF_SWEEP["budget.plateau.trials"].default is None


def test_a_description_of_two_lines_is_one():
    assert OF_SWEEP["resources.scales"].about.endswith("whatever it has at the start.")
    assert OF_SWEEP["data.path"].kind == "path"
