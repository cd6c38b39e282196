"""How long a report takes to open in a browser that was started for it: Chromium, headless.

    python -m benchmarks.opened [--trials 500] [--rounds 5] [--keep FILE]

Each round has a fresh process and a fresh profile. ``first_figure`` is the time from the start of
the navigation until a figure is painted (floor 2 s), ``interactive`` until one can be hovered over,
``text`` until the browser's first contentful paint. Trials are made up, their tables as large as
those of a real sweep's front; nothing is trained. Needs ``chromium`` and ``chromedriver``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import Row, save
from search.report import report
from search.rundir import RunDir
from tests import bundles
from tests.browser import chromium, until

MOST_S, MOST_MIB = 2.0, 8.0
SPACE = {"student.width": {"int": [4, 64]}, "inner_rate": {"float": [0.01, 1.0], "log": True},
         "student.head": {"choice": ["prototype", "shared"]}}  # fmt: skip
ASK = """
const said = document.documentElement.dataset;
if (!said.ready) return null;
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return {first_figure: Number(said.shown ?? said.ready), interactive: Number(said.ready),
        text: paint ? paint.startTime : 0};
"""


def made(folder: Path, trials: int) -> Path:
    """The report of a made-up run."""
    run = RunDir.open(bundles.run(folder / "run", [], sweep={"space": SPACE}))
    for number in range(trials):
        width = 4 + (number * 37) % 61
        config = {"student.width": width, "inner_rate": 0.01 * 100 ** (number / trials),
                  "student.head": ("prototype", "shared")[number % 2]}  # fmt: skip
        skill = 0.4 + width / 200 - 0.1 * ((number * 17) % 29) / 29
        found = bundles.metrics(skill, 100 * width + number % 7, 0.2 + 0.1 * width)
        bundles.add(run, number, metrics=found, config=config)
        if number % 25 == 0:
            bundles.scored(run, number)
    return report(run.path, folder / "report.html")[0]


def opened(page: Path, home: Path) -> dict[str, float]:
    """Seconds until a page shows text and a figure, and answers, in a browser of its own."""
    with chromium(home) as window:
        window.get(page.as_uri())
        said: dict[str, Any] = until(lambda: window.execute_script(ASK))
    return {name: value / 1000 for name, value in said.items()}


def main() -> None:
    """Makes the report, opens it again and again, and writes the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.opened", description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="leave the report here too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = made(Path(folder), args.trials)
        if args.keep:
            shutil.copyfile(page, args.keep)
        mib = page.stat().st_size / 2**20
        rounds = [opened(page, Path(folder) / str(n)) for n in range(args.rounds)]
    rows = [
        Row(f"{name}_{args.trials}", statistics.median(one[name] for one in rounds), "s", "lower",
            floor, detail=" ".join(f"{one[name]:.2f}" for one in rounds))
        for name, floor in (("first_figure", MOST_S), ("interactive", None), ("text", None))
    ]  # fmt: skip
    rows.append(Row(f"size_{args.trials}", mib, "MiB", "lower", MOST_MIB))
    save("opened", rows)


if __name__ == "__main__":
    main()
