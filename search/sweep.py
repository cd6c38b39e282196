"""A sweep from start to front: run, stop, resume, extend.

Resuming and extending are a new Tuner on the same study. Trials that a dead driver left running are
handed out again first, with the same number and configuration, from their last checkpoint; then
come as many new ones as the budget still lacks. Finished trials are not touched.

What is wrong with data, networks or machine is said before Ray is imported.
"""

from __future__ import annotations

import platform
import subprocess
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from search import registry
from search.addresses import RUNS, below, check_address, is_address
from search.admitted import admit, recall, record
from search.config import SweepConfig, dump_sweep, load_sweep
from search.databases import JOURNAL
from search.errors import UserError
from search.fetch import here
from search.mirror import check_free, mirrored
from search.preflight import (
    check_followers,
    check_gpu,
    check_networks,
    check_study,
    checkpoints,
    load_data,
)
from search.rundir import FINISHED, RunDir, now
from search.sizes import read_size
from search.storage import told
from search.warm import NO_WARM_START, WarmStart, gather, write_warm_start

if TYPE_CHECKING:
    from trainables._data import Dataset


def run_sweep(
    config: SweepConfig,
    *,
    name: str | None = None,
    storage: str | Path | None = None,
    address: str | None = None,
    earlier: WarmStart = NO_WARM_START,
) -> Path:
    """Run a sweep.

    Args:
        config: What to search.
        name: Of the run; None: the file's, else method, data and time.
        storage: Where run directories are made, or the address in a bucket where they are kept
            while they are worked on in ``runs``; None: the file's.
        address: Of a Ray cluster; None: this machine.
        earlier: Runs whose finished trials inform the sampler.

    Returns:
        The run directory.

    Raises:
        UserError: The name is taken, a logger's package is missing, storage, bucket or database
            cannot be used, a network in the space does not fit the images, trials ask for a GPU
            that this machine lacks, or no trial of an earlier run can be taken.
        DataError: The data is missing, or cannot fill the tasks.
        SweepFailedError: The first trials all failed in the same way.
        StorageError: The run could not be written any more; it goes on when that is mended.
    """
    began = time.monotonic()
    name = name or config.name or _default_name(config)
    place, bucket = _places(str(storage or config.storage), name, config)
    check_followers(config)
    check_study(config)
    if address is None:
        check_gpu(config)
    dataset = load_data(config)
    check_networks(config, dataset)
    observed = gather(earlier, config, dataset.fingerprint)
    run = RunDir.create(Path(place) / name)
    with told(run.path):
        run.sweep_file.write_text(dump_sweep(config), encoding="utf-8")
        if not registry.is_own(config.method):
            record(run.path, config.method)
        write_warm_start(run, observed)
        run.write_info(
            name=name,
            method=registry.title(config.method),
            objectives=dict(config.objectives),
            constraints=[str(c) for c in config.constraints],
            created=now(),
            versions=versions(),
            data={"fingerprint": dataset.fingerprint, **dataset.report.to_json()},
            checkpoints=checkpoints(config),
            trials=config.budget.trials,
            bucket=bucket,
            warm_start=[one.summary() for one in observed],
            sessions=[],
        )
        with run.driving():
            _drive(run, config, dataset, began=began, address=address)
    return run.path


def resume(run: str | Path, address: str | None = None, max_disk: str | None = None) -> Path:
    """Go on with a sweep that was stopped or killed; a finished one is left as it is.

    One in a bucket is fetched first.

    Args:
        run: Its directory, or its address in a bucket.
        address: Of a Ray cluster; None: this machine.
        max_disk: Room that it may take from now on, as ``20GB``; None: as before.

    Raises:
        UserError: The path is no run, another process drives it, or its data or checkpoint has
            changed.
        SweepFailedError: The first trials all failed in the same way.
        StorageError: The run could not be written any more; it goes on when that is mended.
    """
    if max_disk is not None:
        read_size(max_disk)
    return _go_on(RunDir.open(here(run)), 0, address, max_disk)


def extend(run: str | Path, trials: int, address: str | None = None) -> Path:
    """Add trials to a sweep, finished or not; one in a bucket is fetched first.

    Raises:
        UserError: The path is no run, another process drives it, or its data or checkpoint has
            changed.
        SweepFailedError: The first trials all failed in the same way.
        StorageError: The run could not be written any more; it goes on when that is mended.
    """
    if trials < 1:
        raise UserError(f"A sweep is extended by at least 1 trial; found {trials}.")
    return _go_on(RunDir.open(here(run)), trials, address)


def versions() -> dict[str, str]:
    """Return what a result depends on besides its configuration."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in ("fewtune", "torch", "ray", "optuna", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    home = Path(__file__).parent
    if (home.parent / ".git").exists():
        asked = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            commit = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
            found["commit"] = commit.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # no git at hand: the version has to do
    return found


def _drive(
    run: RunDir,
    config: SweepConfig,
    dataset: Dataset,
    *,
    began: float,
    address: str | None,
) -> None:
    """Run what is missing, then score the front."""
    total, ended = (
        int(run.info()["trials"]),
        sum(r["state"] in FINISHED and r.get("of") is None for r in run.results()),
    )
    with mirrored(run) as mirror, ExitStack() as ray:
        if ended < total:
            connected = import_module("search._cluster").connected
            ray.enter_context(connected(address))
        # torch, Tune and matplotlib load here, while Ray's own processes are still starting
        session_type = import_module("search.session").Session
        with session_type(run, config, dataset, began=began) as session:
            if mirror is not None:
                mirror.say = session.progress.say
            if session.missing:
                session.run_trials()
            else:
                session.progress.say(f"All {session.total} trials of {run.path} are done.")
            ray.close()
            session.conclude()


def _go_on(run: RunDir, more: int, address: str | None, max_disk: str | None = None) -> Path:
    began = time.monotonic()
    with told(run.path), run.driving():
        if digest := recall(run.path):
            admit(load_sweep(run.sweep_file, settings=False).method, digest)
        config = load_sweep(run.sweep_file, settings=False)
        check_followers(config)
        check_study(config)
        dataset = load_data(config)
        _check_unchanged(run, config, dataset)
        if max_disk is not None:
            run.write_info(max_disk=max_disk)
        if more:
            run.write_info(trials=int(run.info()["trials"]) + more)
        _drive(run, config, dataset, began=began, address=address)
    return run.path


def _places(storage: str, name: str, config: SweepConfig) -> tuple[str, str]:
    """Return where the run is worked on, and where in a bucket it is kept; empty: in none."""
    if not is_address(storage):
        return storage, ""
    check_address(storage)
    if config.study != JOURNAL:
        raise UserError(
            "A run in a bucket has its study in the run's own journal, so that both are of one "
            "moment; leave `study` out, or keep the run in a directory (`storage`)."
        )
    bucket = below(storage, name)
    check_free(bucket)
    return RUNS, bucket


def _check_unchanged(run: RunDir, config: SweepConfig, dataset: Dataset) -> None:
    """Hold what the run was started on against what is there now."""
    info = run.info()
    known = info["data"]["fingerprint"]
    if dataset.fingerprint != known:
        raise UserError(
            f"The data of {run.path} has changed: its fingerprint was {known[:12]} and is "
            f"{dataset.fingerprint[:12]}. Results on different data do not compare; restore "
            "the data, or start a new sweep."
        )
    for folder, content in checkpoints(config).items():
        if content != info["checkpoints"].get(folder):
            raise UserError(
                f"The checkpoint {folder} of {run.path} is not the student it was when the run "
                "began. Results from different students do not compare; restore it, or start a "
                "new sweep."
            )


def _default_name(config: SweepConfig) -> str:
    here = datetime.now(UTC).astimezone()
    return f"{registry.title(config.method)}-{config.data.source}-{here:%Y%m%d-%H%M%S}"
