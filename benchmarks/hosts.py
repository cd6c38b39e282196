"""Forty real trials on three hosts: with a worker killed in the middle, and on fewer hosts.

    python -m benchmarks.hosts [--trials 40] [--iterations 80] [--seed 0]

Three hosts in network namespaces with a Ray cluster across them (``tests/hosts.py``; needs root and
iproute2), each with one CPU for trials, and a sweep of MAML on the embedded glyphs. It runs on
three hosts undisturbed; on three again with the raylet of a busy worker killed by SIGKILL at a
seeded random moment in the middle, after which that host does not come back; on two; and on one.

What is paired: all four sweeps have the same seed and try the same configurations under the same
numbers. They stand in the sweep file (``points``), drawn before anything runs, for what TPE draws
depends on which trials have ended by then. For the same reason there is no early stopping, a
trained model is scored under its own adaptation setting alone, and no objective is a time. So a
trial must end with the same numbers wherever and however often it was started: identical are its
configuration, its weights bit for bit, and every metric that is not the clock's. Reports are
checkpoints, unlike in a sweep of users, where 20 s lie between two: these trials are shorter.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.alike import Ran, read, same, same_front, went_on
from benchmarks.record import Row, machine, save
from search import session
from search._optuna import Study
from search.config import SweepConfig, dump_sweep, load_sweep
from search.outlets import end as leave
from search.rundir import RunDir
from search.sweep import run_sweep
from spaces._domains import Fixed, Float, Int
from tests import hosts
from tests.faults import ended, saved
from tests.processes import end, kill
from trainables._trial import Chunks

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from spaces._domains import Space, Value

REPORTS = 8  # of a trial, each with a checkpoint
EARLIEST, LATEST = 0.25, 0.65  # share of the trials that have ended when the worker is killed
WITHIN_S = 1200
SETTLE_S = 5.0  # while a new cluster still starts processes
SPACE: Space = {
    "student.width": Int(4, 24, log=True, why="a trial takes some seconds on one core"),
    "student.depth": Int(2, 4, why="the method's own"),
    "inner_steps": Int(1, 5, why="a trial takes some seconds on one core"),
    "inner_rate": Float(0.02, 0.5, log=True, why="around the default"),
    "outer_rate": Float(1e-3, 1e-2, log=True, why="upwards of the paper's: training is short"),
    "epsilon": Float(0.0, 0.05, why="the method's own"),
    "test.steps": Fixed(0, why="those of meta-training"),
    "test.rate": Fixed(0.0, why="that of meta-training"),
    "order": Fixed("first", why="a third of the time of second order"),
    "meta_batch": Fixed(4, why="a trial takes some seconds on one core"),
}


@dataclass(frozen=True)
class Kill:
    """Of a worker: its number, how many trials had ended, and how far the others had reported."""

    host: int
    ended: int
    reached: Mapping[int, int]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="hosts")
    parser.add_argument("--drive", type=Path, help="run the sweep file in this folder, and end")
    parser.add_argument("--address", help="of the cluster that it runs on")
    return parser.parse_args()


def sweep_of(trials: int, iterations: int, seed: int) -> SweepConfig:
    """The sweep, nothing in it depending on the order in which its trials end."""
    parts: dict[str, Any] = {
        "data": {"source": "glyphs", "queries": 5},
        "budget": {"trials": trials, "iterations": iterations},
        "evaluation": {
            "validation_tasks": 100, "quick_tasks": 10, "test_tasks": 200, "reports": REPORTS,
            "settings": 1,
        },
        "early_stopping": {"enabled": False},
        "objectives": {"accuracy": "max", "student_params": "min", "adapt_macs": "min"},
    }  # fmt: skip
    whole = SweepConfig(method="maml", space=SPACE, seed=seed, **parts)
    return whole.model_copy(update={"points": tuple(drawn(whole.resolved_space(), trials, seed))})


def drawn(space: Space, count: int, seed: int) -> list[dict[str, Value]]:
    """Configurations as a sweep draws its first ones, at random; without what is fixed."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        study = Study(journal, "draws", space, {"accuracy": "max"}, seed=seed, startup=count)
        configs = [study.ask().config for _ in range(count)]
    return [{k: v for k, v in c.items() if not isinstance(space[k], Fixed)} for c in configs]


def drive(folder: Path, address: str) -> None:
    """Run the sweep file of a folder there; the driver's own process."""
    often = functools.partial(Chunks, checkpoint_s=0.0)
    setattr(session, "Chunks", often)  # noqa: B010 - every report writes a checkpoint
    config = load_sweep(folder / "sweep.yaml")
    leave(lambda: run_sweep(config, name="run", storage=folder, address=address), debug=False)


def begin(cluster: hosts.Cluster, folder: Path, config: SweepConfig) -> subprocess.Popen[bytes]:
    """Start a sweep from the head."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(dump_sweep(config), "utf-8")
    words = ["-m", "benchmarks.hosts", "--drive", str(folder), "--address", cluster.address]
    return cluster.head.popen(sys.executable, *words, log=folder / "screen")


def run(
    cluster: hosts.Cluster,
    folder: Path,
    config: SweepConfig,
    meanwhile: Callable[[subprocess.Popen[bytes], Path], object] = lambda *_: None,
) -> Ran:
    """Run a sweep to its end, and read what came of it.

    Args:
        cluster: Up, on as many hosts as are wanted.
        folder: Made for it.
        config: The sweep.
        meanwhile: Called with the driver and the run's path, which may not be there yet.

    Raises:
        RuntimeError: The driver failed.
    """
    time.sleep(SETTLE_S)
    before, driver = busy_cores(), begin(cluster, folder, config)
    try:
        meanwhile(driver, folder / "run")
        failed = driver.wait(timeout=WITHIN_S)
    finally:
        kill(driver)
    if failed:
        said = (folder / "screen").read_text("utf-8")
        raise RuntimeError(f"The driver ended with {failed}: {said[-2000:]}")
    ran = replace(read(folder / "run"), beside=(before + busy_cores()) / 2)
    print(f"{folder.name}: {ran.states}, {ran.seconds:.0f} s", flush=True)
    return ran


def busy_cores(over_s: float = 3.0, file: Path = Path("/proc/stat")) -> float:
    """How many of the machine's cores are busy for some seconds, with anybody's work."""

    def ticks() -> list[int]:
        return [int(word) for word in file.read_text("utf-8").splitlines()[0].split()[1:9]]

    first = ticks()
    time.sleep(over_s)
    spent = [now - then for now, then in zip(ticks(), first, strict=True)]
    idle = spent[3] + spent[4]  # waiting for a disk counts as idle
    return int(machine()["cores"]) * (1 - idle / max(1, sum(spent)))


def pull(
    cluster: hosts.Cluster,
    trials: int,
    chance: random.Random,
    driver: subprocess.Popen[bytes],
    path: Path,
) -> Kill:
    """Kill a busy worker's raylet, some random trials and seconds into the run.

    From then on it is the first moment at which every running trial has a checkpoint, so that the
    trial that loses its process has something to go on from.

    Raises:
        RuntimeError: The run did not get so far.
    """
    count = chance.randint(round(EARLIEST * trials), round(LATEST * trials))
    later, until = chance.uniform(0.0, 2.0), time.monotonic() + WITHIN_S
    while time.monotonic() < until and driver.poll() is None:
        time.sleep(0.05)
        if not (path / "run.json").exists() or len(ended(RunDir.open(path))) < count:
            continue
        time.sleep(later)
        later = 0.0
        there, busy = RunDir.open(path), [host for host in cluster.workers if host.actors()]
        known = reached(there)
        if busy and known and len(saved(there)) == len(known):
            host = chance.choice(busy)
            end(host.raylet())
            return Kill(host.number, len(ended(there)), known)
    raise RuntimeError("The sweep ended, or stood still, before a worker could be killed.")


def reached(there: RunDir) -> dict[int, int]:
    """The last report of every running trial, as a meta-iteration."""
    running = [r for r in there.results() if r["state"] == "RUNNING"]
    return {r["id"]: r["reports"][-1]["iteration"] if r["reports"] else 0 for r in running}


def disturbed_rows(calm: Ran, struck: Ran, lost: Kill, trials: int, iterations: int) -> list[Row]:
    """What the kill must not change, and what it cost."""
    front = same_front(calm, struck)
    told = [f"{n} from {at}, last reported {lost.reached.get(n, 0)}"
            for n, at in went_on(struck).items()]  # fmt: skip
    told_of = f"trials that went on, from a meta-iteration of {iterations}: {', '.join(told)}"
    sizes = f"{len(calm.front)} trials on the front undisturbed, {len(struck.front)} disturbed"
    where = f"host {lost.host} killed when {lost.ended} of {trials} trials had ended"
    return [
        Row("same_front", front, "share", "higher", 1.0, "the undisturbed sweep", sizes),
        Row(
            "same_trials", same(calm, struck), "share", "higher", 1.0, "the undisturbed sweep",
            f"of {trials}: configuration, metrics that are not the clock's, weights bit for bit",
        ),
        Row(
            "finished", struck.states.get("COMPLETE", 0), "trials", "higher", float(trials),
            detail=f"{struck.states}; undisturbed {calm.states}",
        ),
        Row("went_on", len(told), "trials", "higher", 1.0, detail=told_of if told else "none"),
        Row(
            "cost_of_the_kill", struck.seconds - calm.seconds, "s", "lower",
            detail=f"{struck.seconds:.0f} s against {calm.seconds:.0f} s undisturbed; {where}",
        ),
    ]  # fmt: skip


def scaling_rows(by_hosts: Mapping[int, Ran], cores: int) -> list[Row]:
    """Throughput on every number of hosts, and as a ratio to one; and whether results depend."""
    one, most = by_hosts[1], by_hosts[max(by_hosts)]
    alike = min(same(ran, most) for ran in by_hosts.values())
    here = f"this machine has {cores} cores, and each host offers one CPU for trials"
    left = "trials, the first quarter left out; other work kept"
    rows = [
        Row(f"trials_per_hour_{count}", ran.per_hour, "trials/h", "higher",
            detail=f"{len(ran.trials)} {left} {ran.beside:.1f} cores busy before and after")
        for count, ran in sorted(by_hosts.items())
    ]  # fmt: skip
    rows += [
        Row(f"scaling_{count}", ran.per_hour / one.per_hour, "x", "higher", None, "one host", here)
        for count, ran in sorted(by_hosts.items())
        if count > 1
    ]
    said = "least share of trials identical to those of three hosts"
    return [*rows, Row("same_on_fewer_hosts", alike, "share", "higher", 1.0, detail=said)]


def main() -> int:
    """Runs the four sweeps, and saves."""
    args = arguments()
    if args.drive is not None:
        drive(args.drive, args.address)
    if why := hosts.missing():
        print(f"The sweeps run on three hosts, and {why}.")
        return 1
    config = sweep_of(args.trials, args.iterations, args.seed)
    chance, kills = random.Random(f"worker {args.seed}"), list[Kill]()
    with hosts.cluster() as cluster, tempfile.TemporaryDirectory(prefix="ftruns") as made:
        folder = Path(made)
        by_hosts = {3: run(cluster, folder / "three", config)}
        struck = run(
            cluster, folder / "disturbed", config,
            lambda driver, path: kills.append(pull(cluster, args.trials, chance, driver, path)),
        )  # fmt: skip
        for count in (2, 1):
            cluster.stop()
            cluster.start(cluster.hosts[:count])
            by_hosts[count] = run(cluster, folder / f"on-{count}", config)
    rows = disturbed_rows(by_hosts[3], struck, kills[0], args.trials, args.iterations)
    rows += scaling_rows(by_hosts, int(machine()["cores"]))
    save(args.name, rows)
    return int(not all(row.holds() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
