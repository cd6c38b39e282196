"""What holds for the space of every registered method, whichever it is."""

from pathlib import Path

import pytest

import spaces
from search.entries import samples
from search.registry import METHODS, check_settings, defaults, published, space
from spaces._domains import Choice, Fixed, active, check_space, is_whole
from trainables._core.settings import FOLLOWS

FILES = sorted(path.stem for path in Path(spaces.__file__).parent.glob("[!_]*.py"))


def test_every_file_is_a_registered_method():
    assert tuple(FILES) == METHODS
    assert len(FILES) >= 3


@pytest.mark.parametrize("method", METHODS)
def test_conditions_name_earlier_parameters_and_values_these_can_have(method):
    domains = space(method)
    check_space(domains)
    for domain in domains.values():
        if domain.when is None:
            continue
        parent = domains[domain.when.parameter]
        assert isinstance(parent, Choice | Fixed)
        if isinstance(parent, Choice):
            assert all(parent.contains(value) for value in domain.when.one_of)
        else:
            assert any(parent.contains(value) for value in domain.when.one_of)


@pytest.mark.parametrize("method", METHODS)
def test_reasons_say_something(method):
    whys = [domain.why for domain in space(method).values()]
    assert all(len(why.split()) >= 5 for why in whys)
    assert len(set(whys)) == len(whys)


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_is_a_setting_of_the_same_kind(method):
    known = defaults(method)
    for name, domain in space(method).items():
        assert name in known
        if name in FOLLOWS:
            assert not known[name]
            assert domain.contains(known[FOLLOWS[name]])
        elif isinstance(domain, Fixed):
            assert domain.value == known[name]
        elif not isinstance(domain, Choice):
            assert is_whole(domain.low) is is_whole(known[name])
            assert domain.contains(known[name])
        else:
            assert domain.contains(known[name])


@pytest.mark.parametrize("method", METHODS)
def test_the_method_accepts_every_corner(method):
    for name, domain in space(method).items():
        for value in samples(domain):
            check_settings(method, {name: value})


@pytest.mark.parametrize("method", METHODS)
def test_published_settings_lie_inside(method):
    domains, settings = space(method), published(method)
    assert settings
    for citation, values in settings.items():
        check_settings(method, values)
        for name, value in values.items():
            if name in domains:
                assert domains[name].contains(value), (citation, name, value)


def test_a_baseline_is_not_searched_for_what_it_does_not_read():
    domains = space("meta_distillation")

    def drawn(**fixed):
        values = dict(fixed)
        for name, domain in domains.items():
            if name not in values and active(domain, values):
                values[name] = domain.value if isinstance(domain, Fixed) else _first(domain)
        return set(values)

    alone = drawn(baseline="student")
    assert {"student.width", "inner_rate", "epsilon"} <= alone
    assert not [name for name in alone if name.startswith(("teacher.", "distillation."))]
    oracle = drawn(baseline="oracle")
    assert "teacher.kind" in oracle
    assert not [name for name in oracle if name.startswith(("student.", "distillation."))]


def test_a_given_checkpoint_is_not_trained_again():
    domains = space("lambda_adaptation")
    given = {"checkpoint": "model"}
    assert not active(domains["student.width"], given)
    assert not active(domains["outer_rate"], given)
    assert active(domains["patterns"], given)
    assert active(domains["student.width"], {"checkpoint": ""})


def _first(domain):
    return domain.options[0] if isinstance(domain, Choice) else domain.low
