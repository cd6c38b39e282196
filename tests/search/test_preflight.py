"""Data, networks and the machine are held against the sweep before it costs anything."""

import pytest

from search.config import DataConfig, SweepConfig, dump_sweep, load_sweep
from search.errors import UserError
from search.preflight import check_gpu, check_networks, checkpoints, load_data
from search.rundir import RunDir
from search.sweep import resume, run_sweep
from search.train import train
from tests import bundles
from trainables._data import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWTUNE_CACHE", str(tmp_path / "cache"))


def test_tasks_the_classes_can_fill_are_loaded():
    config = SweepConfig(method="maml", data=DataConfig(size=20, queries=5))
    found = load_data(config)
    assert (found.name, found.size, found.channels) == ("glyphs", 20, 1)


def test_tasks_the_classes_cannot_fill_are_refused_with_the_numbers():
    config = SweepConfig(method="maml", data=DataConfig(size=20, shots=5, queries=5000))
    with pytest.raises(DataError, match="5-way 5-shot with 5000 queries needs 5005 images in each"):
        load_data(config)


def sweep_of(tmp_path, space, more=""):
    file = tmp_path / "sweep.yaml"
    file.write_text(f"method: maml\ndata: {{size: 28, queries: 5}}\nspace: {space}\n{more}")
    return load_sweep(file)


def test_a_network_that_does_not_fit_stops_training_and_sweep_before_they_start(tmp_path):
    config = sweep_of(tmp_path, "{student.depth: 8, student.down: pool}")
    said = "cannot be trained: Images of 28x28 px are too small: nothing is left of them at conv5"
    with pytest.raises(UserError, match=said):
        train(config)
    with pytest.raises(UserError, match=said):
        run_sweep(config, name="none", storage=tmp_path)
    assert not (tmp_path / "none").exists()


def test_a_run_goes_on_only_from_the_student_it_began_with(tmp_path):
    start = bundles.bundle(tmp_path / "start")
    file = tmp_path / "sweep.yaml"
    file.write_text("method: lambda_adaptation\ndata: {size: 16, queries: 5}\n"
                    "space: {checkpoint: {choice: ['', start]}}\n")  # fmt: skip
    config = load_sweep(file)
    known = checkpoints(config)
    assert list(known) == [str(start)]
    run = RunDir.create(tmp_path / "run")
    run.sweep_file.write_text(dump_sweep(config))
    data = {"fingerprint": load_data(config).fingerprint}
    run.write_info(name="run", trials=1, data=data, checkpoints=known)
    bundles.student(inner_steps=1).save(start)
    with pytest.raises(UserError, match=r"checkpoint .*start of .*run is not the student it was"):
        resume(run.path)
    (start / "model.safetensors").unlink()
    assert checkpoints(config) == {str(start): ""}
    assert checkpoints(SweepConfig(method="maml")) == {}


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("{student.depth: {int: [2, 8]}, student.down: pool}", "With student.depth: 8: "),
        (
            "{student.depth: {int: [2, 8]}, student.down: {choice: [stride, pool]}}",
            "With student.depth: 8, student.down: pool: ",
        ),
    ],
)
def test_the_corner_of_a_space_that_does_not_fit_is_named(tmp_path, space, told):
    config = sweep_of(tmp_path, space)
    with pytest.raises(UserError, match="Narrow the space") as caught:
        check_networks(config, load_data(config))
    assert told in str(caught.value)


@pytest.mark.parametrize("method", ["lambda_adaptation", "maml", "meta_distillation"])
def test_the_methods_own_spaces_fit_small_images(method):
    config = SweepConfig(method=method, data=DataConfig(size=28, queries=5))
    check_networks(config, load_data(config))


def test_a_gpu_that_is_not_there_is_missed_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = sweep_of(tmp_path, "{student.width: 8}", "resources: {gpu: 0.25}\n")
    with pytest.raises(UserError, match=r"asks for 0\.25 GPU.*--set resources\.gpu=0"):
        train(config)
    with pytest.raises(UserError, match=r"asks for 0\.25 GPU.*--set resources\.gpu=0"):
        run_sweep(config, name="none", storage=tmp_path)
    assert not (tmp_path / "none").exists()
    seen = []
    monkeypatch.setattr(
        "search.sweep._drive", lambda *_what, address, **_more: seen.append(address)
    )
    run_sweep(config, name="elsewhere", storage=tmp_path, address="auto")
    assert seen == ["auto"]  # a cluster's GPUs are not this machine's
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_gpu(config)
