"""Every benchmark with its committed settings, or the stored results alone, against the floors.

    python -m benchmarks [NAME ...] [--check] [--list]

Each runs in a process of its own, one after the other, and writes ``results/<name>.json``; then
every row is printed against its floor. The exit status is 1 where a row falls short, a benchmark
breaks, or a result is missing. ``--check`` measures nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.record import RESULTS, ResultError, read
from trainables._data import missing

HEADS = (
    "omniglot_maml --threads 1 --width 32 --iterations 800 --outer-rate 0.005 --head {0} "
    "--table-tasks 100 --tasks 600 --student runs/head_{0} --name head_{0}"
)
OWN_IMAGES = (  # these need no FEWTUNE_DATA
    "meta_training",
    "roofline",
    "prediction",
    "exported",
    "compiled",
    "opened",
    "take_home",
    "train_once",
    "simulated_search",
    "simulated_search_wide",
    "simulated_search_strict",
    "simulated_search_wide_strict",
    "driver",
    "empty_trials",
    "hosts",
)
ARMS = "alone,paper_kl,inner_tenth,outer_tau1,alone_views,outer_views"

# result -> the module and arguments behind it, all of them in the README; what else is stored
# was measured once, and is held against its floors alone
COMMANDS: dict[str, str] = {
    "adaptation": "adaptation --iterations 400 --validation-tasks 300 --test-tasks 400",
    "meta_training": "meta_training",
    "roofline": "roofline",
    "loading": "loading --rounds 3",
    "prediction": "prediction",
    "exported": "exported",
    "compiled": "compiled",
    "opened": "opened",
    "take_home": "take_home",
    "precision": "precision",
    "pattern_choice": "pattern_choice",
    "recorded_omniglot": "recorded",
    "simulated_search": "simulated_search",
    "recorded_omniglot_wide": (
        "recorded --widths 8,64 --configurations 240 --iterations 160 --processes 2 "
        "--name recorded_omniglot_wide"
    ),
    "simulated_search_wide": (
        "simulated_search --table recorded_omniglot_wide --params 10000 "
        "--name simulated_search_wide"
    ),
    "simulated_search_strict": "simulated_search --tolerance 0 --name simulated_search_strict",
    "simulated_search_wide_strict": (
        "simulated_search --table recorded_omniglot_wide --params 10000 --tolerance 0 "
        "--name simulated_search_wide_strict"
    ),
    "driver": "driver",
    "empty_trials": "empty_trials",
    "hosts": "hosts",
    "train_once": "train_once --iterations 400 --models 1",
    "omniglot_maml": "omniglot_maml --threads 1 --iterations 3000",
    "head_prototype": HEADS.format("prototype"),
    "head_shared": HEADS.format("shared"),
    "distillation_omniglot_1shot": (
        "distillation --data omniglot --iterations 500 --head-start 150"
    ),
    "distillation_cifar-fs_1shot": (
        f"distillation --data cifar-fs --iterations 1000 --head-start 300 --width 16 --arms {ARMS}"
    ),
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="results; all if left out")
    parser.add_argument("--check", action="store_true", help="read the stored results alone")
    parser.add_argument("--list", action="store_true", help="print names and commands, and end")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(COMMANDS))
    if unknown:
        parser.error(f"there are {', '.join(COMMANDS)}; found {', '.join(unknown)}")
    return args


def lacking_data(names: list[str]) -> set[str]:
    """What keeps these benchmarks from their data, as sentences."""
    if set(names) <= set(OWN_IMAGES):
        return set()
    return {said for said in (missing("omniglot"), missing("cifar-fs")) if said}


def measure(name: str) -> bool:
    """Runs the benchmark behind a result; whether it came to its end."""
    module, *words = COMMANDS[name].split()
    print(f"== {name}: python -m benchmarks.{COMMANDS[name]}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    return subprocess.run(command, check=False).returncode == 0


def judge(name: str) -> bool:
    """Prints a result's rows; whether all of them hold."""
    print(f"== {name}")
    try:
        result = read(RESULTS / f"{name}.json")
    except ResultError as error:
        print(f"MISS {error}")
        return False
    for row in result.rows:
        print(row.line())
    expected = f"python -m benchmarks.{COMMANDS[name]}" if name in COMMANDS else result.command
    if result.command != expected:
        print(f"MISS taken with other settings, {result.command}; expected {expected}")
    return result.command == expected and all(row.holds() for row in result.rows)


def main() -> int:
    """Measures unless told not to, then judges."""
    args = arguments()
    names = args.names or list(COMMANDS)
    if args.list:
        for name in names:
            print(f"{name}: python -m benchmarks.{COMMANDS[name]}")
        return 0
    lacking = set() if args.check else lacking_data(names)
    for sentence in sorted(lacking):
        print(sentence)
    if lacking:
        return 1
    broken = [] if args.check else [name for name in names if not measure(name)]
    others = (
        [] if args.names else sorted({file.stem for file in RESULTS.glob("*.json")} - set(names))
    )
    short = [name for name in [*names, *others] if not judge(name)]
    for name in broken:
        print(f"MISS {name}: the benchmark broke off; what is stored is older")
    if broken or short:
        print(f"Short: {', '.join(dict.fromkeys([*broken, *short]))}.")
        return 1
    print(f"{len(names) + len(others)} results, every floor held.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
