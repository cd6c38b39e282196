"""The command ``fewtune``. Each command imports what it needs when it runs; ``--help`` nothing.

Exit codes: 0 done, 2 the user's input was wrong, 1 anything else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from search.addresses import is_client
from search.commands import data, doctor, fetch, launch
from search.commands_home import adapt, export, verify
from search.options import (
    FILE,
    RUN,
    RUN_OR_BUCKET,
    InOrder,
    address_option,
    from_option,
    json_option,
    max_disk_option,
    rename_option,
    set_option,
    storage_option,
    study_option,
    version_option,
)
from search.outlets import console, echo, end, tidy_stdout, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@click.group(
    cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@version_option
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def cli(*, debug: bool) -> None:
    """Find few-shot models that are small and adapt fast.

    Start with `fewtune sweep`: a search on embedded data that takes a few minutes.
    """
    del debug  # read by main, which outlives this call


@cli.command()
@click.argument("file", required=False, type=FILE, metavar="[FILE.yaml]")
@set_option
@click.option("--name", help="Name of the run; left out: method, data and time.")
@storage_option
@address_option
@max_disk_option
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Instead of the file's.")
@study_option
@from_option
@rename_option
def sweep(  # noqa: PLR0913 - one argument for each word of the command
    *,
    file: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    storage: str | None,
    address: str | None,
    max_disk: str | None,
    trials: int | None,
    study: str | None,
    earlier: tuple[Path, ...],
    renames: tuple[str, ...],
) -> int | None:
    """Run a sweep; without FILE.yaml the quickstart."""
    from search.config import check_name, load_sweep
    from search.elsewhere import send

    options = {"budget.trials": trials, "study": study, "max_disk": max_disk}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    config = load_sweep(file, (*overrides, *given), elsewhere=is_client(address))
    if name is not None:
        check_name(name)
    if is_client(address):
        words = {"name": name, "storage": storage, "from": [*map(str, earlier)], "rename": renames}
        return send(address, ["sweep"], config, **words)
    from search.sweep import run_sweep
    from search.warm import WarmStart

    start = WarmStart.read(earlier, renames)
    _done(run_sweep(config, name=name, storage=storage, address=address, earlier=start))
    return None


@cli.command()
@click.argument("run", type=RUN_OR_BUCKET)
@address_option
@max_disk_option
def resume(*, run: str | Path, address: str | None, max_disk: str | None) -> int | None:
    """Go on with a sweep that was stopped; one in a bucket is fetched first."""
    from search.elsewhere import send

    if is_client(address):
        return send(address, ["resume", str(run)], max_disk=max_disk)
    from search.sweep import resume as resume_run

    _done(resume_run(run, address=address, max_disk=max_disk))
    return None


@cli.command()
@click.argument("run", type=RUN_OR_BUCKET)
@click.option("--trials", type=click.IntRange(min=1), required=True, help="How many more.")
@address_option
def extend(*, run: str | Path, trials: int, address: str | None) -> int | None:
    """Add trials to a sweep, finished or not."""
    from search.elsewhere import send

    if is_client(address):
        return send(address, ["extend", str(run)], trials=str(trials))
    from search.sweep import extend as extend_run

    _done(extend_run(run, trials, address=address))
    return None


cli.add_command(fetch)


@cli.command()
@click.argument("run", type=RUN)
@click.option("--front", is_flag=True, help="Only the feasible Pareto front.")
@click.option(
    "--epsilon",
    "thresholds",
    metavar="E,E,...",
    help="What the front's models choose under these, from their tables, as 0.005,0.01,0.02.",
)
@json_option
def results(*, run: Path, front: bool, thresholds: str | None, as_json: bool) -> None:
    """Show the trials of a sweep and its feasible Pareto front."""
    from search.results import load_results

    if thresholds is not None:
        from search.threshold import answers, print_answers, read_thresholds

        wanted = read_thresholds(thresholds)
        with tidy_stdout():
            document = answers(load_results(run), wanted)
        if as_json:
            write_json(document)
        else:
            print_answers(document, console())
        return
    with tidy_stdout():
        found = load_results(run)
    if as_json:
        write_json(found.to_json())
        return
    found.print(console(), front_only=front)


@cli.command()
@click.argument("run", type=RUN)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The HTML file; left out: report.html in the run.",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the main figures there too, as PNG and SVG.",
)
def report(*, run: Path, out: Path | None, figures: Path | None) -> None:
    """Write a run as one HTML file that needs no network, also while it goes on."""
    from search.report import report as write_report

    with tidy_stdout():
        written = write_report(run, out, figures)
    for file in written:
        echo(str(file))


@cli.command()
@click.argument("run", type=RUN_OR_BUCKET)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True)
def board(*, run: Path | str, host: str, port: int) -> None:
    """Open TensorBoard on a run, also while it goes on, and on one in a bucket."""
    from search.board import serve

    serve(run, host, port)


for one in (export, adapt, verify):
    cli.add_command(one)


@cli.command()
@click.argument("file", type=FILE, metavar="FILE.yaml")
@set_option
@json_option
def train(*, file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train one configuration in this process, without Ray."""
    from search.config import load_sweep

    config = load_sweep(file, overrides)
    from search.train import train as train_one

    with tidy_stdout():
        metrics = train_one(config)
    if as_json:
        write_json(metrics)
        return
    from search.listing import print_metrics

    print_metrics(metrics, console())


@cli.command()
@json_option
def methods(*, as_json: bool) -> None:
    """List the methods."""
    from search.listing import method_rows, print_methods

    if as_json:
        write_json(method_rows())
        return
    print_methods(console())


@cli.command()
@click.argument("method")
@json_option
def space(*, method: str, as_json: bool) -> None:
    """Show what a method searches, and why within these bounds.

    METHOD is a name from `fewtune methods`, or a folder of your own, as ./my_method; its code runs.
    """
    from search import registry
    from search.listing import print_space, space_document
    from search.outside import absolute

    with tidy_stdout():
        registry.admit(absolute(method))
        document = space_document(absolute(method))
    if as_json:
        write_json(document)
        return
    print_space(document, console())


cli.add_command(data)
cli.add_command(doctor)
cli.add_command(launch)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end(_command(words), debug="--debug" in words)


def _command(words: list[str]) -> Callable[[], Any]:
    words = [word for word in words if word != "--debug"]
    return lambda: cli.main(words, prog_name="fewtune", standalone_mode=False)


def _done(run: Path) -> None:
    echo(str(run))
    for line in (
        f"Trials and front:  fewtune results {run}",
        f"One page of it:    fewtune report {run}",
        f"TensorBoard:       fewtune board {run}",
        f"Take one home:     fewtune export {run} --pick knee -o my-student",
    ):
        echo(line, to_stderr=True)


if __name__ == "__main__":
    main()
