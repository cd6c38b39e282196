"""The fit finds prices that are there, and a profile is what it says wherever it is read."""

import json
from itertools import count
from typing import Any

import pytest
import torch

from trainables._core import device
from trainables._core.device import (
    Fingerprint,
    Profile,
    Sample,
    at,
    fit,
    fitted,
    predict,
    profile_here,
    relative_error,
)
from trainables._core.networks import conv4
from trainables._core.patterns import candidates
from trainables._core.work import UNITS, work_of

WHERE = Fingerprint("cpu", "abacus", 1, "2.0")
PRICES = (0.1, 0.2, 0.01, 4e-8, 3e-6, 2e-5, 1e-5)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def works():
    for shape in device.SHAPES:
        for pattern in device.PATTERNS:
            for steps in device.FITTED_STEPS:
                yield work_of(
                    device.network_of(shape), pattern, steps=steps, ways=5, images=shape[-1]
                )


def samples(prices):
    made = Profile(WHERE, prices, 0.0, 0.0)
    return [Sample(work, made.milliseconds(work)) for work in works()]


@pytest.mark.parametrize("free", [None, "starts", "macs", "recorded"])
def test_the_fit_finds_the_prices_that_made_the_times(free):
    prices = tuple(
        0.0 if unit == free else price for unit, price in zip(UNITS, PRICES, strict=True)
    )
    found = fit(WHERE, samples(prices), spread=0.0)
    assert found.error < 0.01
    network = conv4((3, 28, 28), width=24, down="pool")
    truth = Profile(WHERE, prices, 0.0, 0.0)
    for pattern in candidates(5):
        terms: dict[str, Any] = {"steps": 4, "ways": 5, "images": 10}
        close = pytest.approx(predict(truth, network, pattern, **terms), rel=0.05)
        assert predict(found, network, pattern, **terms) == close


def test_no_price_is_below_zero_and_none_could_be_better():
    """Optimality of a constrained least-squares fit: no way down, but where zero is in the way."""
    generator = torch.Generator().manual_seed(0)
    amounts = torch.rand(30, 4, generator=generator, dtype=torch.double)
    times = amounts @ torch.tensor([2.0, -1.0, 0.5, 1.0], dtype=torch.double) + 0.8
    prices = torch.tensor(fitted(amounts.tolist(), times.tolist()), dtype=torch.double)
    rows = amounts / times.unsqueeze(1)
    slope = rows.T @ (rows @ prices - 1)
    assert (prices >= 0).all()
    assert (prices == 0).any()
    assert (slope[prices == 0] > -1e-6).all()
    assert slope[prices > 0].abs().max() < 1e-6


def test_a_profile_survives_json():
    profile = Profile(WHERE, PRICES, 0.07, 0.2)
    assert Profile.from_json(json.loads(json.dumps(profile.to_json()))) == profile
    assert list(profile.to_json()["prices"]) == list(UNITS)


def test_the_same_times_give_the_same_profile():
    """A clock that ticks at every look: each part takes a second."""
    found = [device.measured(WHERE, torch.device("cpu"), count().__next__) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].spread == 0
    assert found[0].fingerprint == WHERE


def test_steps_behind_the_second_are_as_long_as_it():
    network = conv4((1, 28, 28), width=8)
    assert at(network, "00011", 5, [4.0, 2.0, 1.0, 0.5], 1).ms == 6.5
    assert at(network, "00011", 5, [4.0, 2.0, 1.0, 0.5], 6).ms == 4 + 2 + 5 * 1 + 0.5
    assert at(network, "00011", 5, [4.0, 2.0, 1.0, 0.5], 6).work.steps == 6


def test_a_device_is_measured_once_until_something_that_counts_changes(monkeypatch):
    seen = []

    def measured(where, _device):
        seen.append(where)
        return Profile(where, PRICES, 0.0, 0.0)

    monkeypatch.setattr(device, "measured", measured)
    device._kept.cache_clear()
    here = torch.device("cpu")
    assert profile_here(here) is profile_here(here)
    torch.set_num_threads(2)
    profile_here(here)
    torch.set_num_threads(1)
    profile_here(here)
    device._kept.cache_clear()
    assert [where.threads for where in seen] == [1, 2]
    assert seen[0].torch == torch.__version__
    assert seen[0].processor


def test_errors_count_relative_to_what_was_measured():
    assert relative_error([1.0, 3.0], [2.0, 2.0]) == 0.5
    assert relative_error([2.0], [2.0]) == 0
