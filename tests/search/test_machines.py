"""Machines are chosen by what a sweep's trials hold."""

import pytest

from search.config import BudgetConfig, ResourcesConfig, SweepConfig
from search.errors import UserError
from search.machines import AWS, GCP, Machine, choose, fleet, made_for, wanted


def sweep(cpu=1.0, gpu=0.0, trials=24, concurrent=None):
    resources = ResourcesConfig(cpu=cpu, gpu=gpu, concurrent=concurrent)
    return SweepConfig(method="maml", resources=resources, budget=BudgetConfig(trials=trials))


@pytest.mark.parametrize(
    ("machine", "cpu", "gpu", "fit"),
    [
        (Machine("m", 4, 1), 1, 0.25, 4),
        (Machine("m", 4, 1), 2, 0.25, 2),
        (Machine("m", 48, 4), 1, 0.4, 8),
        (Machine("m", 48, 4), 1, 2, 2),
        (Machine("m", 4), 1, 0.5, 0),
        (Machine("m", 4), 0.5, 0, 8),
    ],
)
def test_trials_of_a_machine(machine, cpu, gpu, fit):
    assert machine.trials(cpu, gpu) == fit


@pytest.mark.parametrize(
    ("table", "config", "name"),
    [
        (AWS, sweep(gpu=0.25), "g5.xlarge"),
        (AWS, sweep(cpu=2, gpu=0.25), "g5.2xlarge"),
        (AWS, sweep(cpu=2, gpu=0.25, concurrent=1), "g5.xlarge"),
        (AWS, sweep(gpu=2), "g5.12xlarge"),
        (AWS, sweep(), "c6i.xlarge"),
        (AWS, sweep(cpu=40, trials=9), "c6i.16xlarge"),
        (GCP, sweep(gpu=1), "g2-standard-4"),
        (GCP, sweep(cpu=8, trials=1), "n2-standard-8"),
    ],
)
def test_the_first_type_that_holds_a_gpus_trials_is_taken(table, config, name):
    assert choose(table, config).name == name


def test_a_trial_that_no_machine_holds_is_refused():
    with pytest.raises(UserError, match=r"asks for 500 CPU and 0 GPU .* there are g5.xlarge"):
        choose(AWS, sweep(cpu=500))


def test_a_fleet_is_no_larger_than_the_trials_need():
    config = sweep(gpu=0.25, trials=10)
    assert wanted(config) == 10
    need = fleet(Machine("m", 4, 1), config, 0, 8)
    assert (need.least, need.most, need.each, need.concurrent) == (0, 3, 4, 12)
    assert fleet(Machine("m", 4, 1), config, 5, 8).most == 5
    assert fleet(Machine("m", 4, 1), config, 0, 2).concurrent == 8
    with pytest.raises(UserError, match=r"At least 3 workers .* 2 may come"):
        fleet(Machine("m", 4, 1), config, 3, 2)


def test_a_worker_made_for_a_sweep_holds_its_gpus_trials():
    assert made_for(sweep(cpu=1.5, gpu=0.25)) == Machine("worker", 6, 1)
    assert made_for(sweep(cpu=2)) == Machine("worker", 8)
    assert made_for(sweep(cpu=1, concurrent=2)) == Machine("worker", 2)
    assert made_for(sweep(cpu=1, gpu=2)) == Machine("worker", 1, 2)
