"""The commands of ``fewtune`` that take a configuration home: export, adapt, verify."""

from __future__ import annotations

from pathlib import Path

import click

from search.options import FOLDER, RUN, json_option, set_option
from search.outlets import DONE, FAILED, console, echo, tidy_stdout, write_json


@click.command()
@click.argument("run", type=RUN)
@click.option(
    "--pick",
    "choice",
    default="knee",
    show_default=True,
    metavar="best|knee|fastest|smallest|TRIAL|all-front",
    help="Which point of the front, the number of a trial, or every point: DIR/trial-N each.",
)
@click.option(
    "--max",
    "maxima",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only trials with at most this, as adapt_ms=2.5; may be given again.",
)
@click.option(
    "--min",
    "minima",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only trials with at least this, as accuracy=90%; may be given again.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The bundle's directory.",
)
@click.option(
    "--programs/--no-programs",
    default=True,
    show_default=True,
    help="Adaptation and student as programs for torch and ONNX.",
)
@click.option("--int8", is_flag=True, help="Weights as int8, with the accuracy they keep.")
@json_option
def export(  # noqa: PLR0913 - one argument for each word of the command
    *,
    run: Path,
    choice: str,
    maxima: tuple[str, ...],
    minima: tuple[str, ...],
    out: Path,
    programs: bool,
    int8: bool,
    as_json: bool,
) -> None:
    """Write a configuration and its student as a bundle."""
    from search.constraints import read_bound
    from search.picks import ALL_FRONT, check_word

    most, least = dict(map(read_bound, maxima)), dict(map(read_bound, minima))
    check_word(choice)  # before torch is imported: said at once
    from search.export import Extras, export_all
    from search.export import export as write_bundle

    extras = Extras(programs=programs, int8=int8)
    with tidy_stdout():
        if choice == ALL_FRONT:
            written = export_all(run, most, out, minima=least, extras=extras)
        else:
            written = [write_bundle(run, choice, most, out, minima=least, extras=extras)]
    if as_json:
        write_json({"bundles": [one.to_json() for one in written]})
        return
    for one in written:
        echo(one.sentence)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--support", required=True, type=FOLDER, help="Labelled images: a folder a class.")
@click.option("--query", type=FOLDER, help="Images to classify; in class folders, also scored.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the adapted student there.",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Write the query images with their predictions as one picture.",
)
@json_option
def adapt(
    *,
    bundle: Path,
    support: Path,
    query: Path | None,
    save: Path | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Adapt an exported student to your own classes, and predict."""
    from search.adapt import adapt as adapt_bundle

    with tidy_stdout():
        report = adapt_bundle(bundle, support, query, save=save, sheet=sheet)
    if as_json:
        write_json(report.to_json())
        return
    report.print(console())


@click.command()
@click.argument("bundle", type=FOLDER)
@set_option
@json_option
def verify(*, bundle: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Check a bundle's files and evaluate its student again.

    The exit code is 1 where a number differs, and 2 where a file is not as exported.
    """
    from search.verify import verify as verify_bundle

    with tidy_stdout():
        report = verify_bundle(bundle, overrides)
    if as_json:
        write_json(report.to_json())
    else:
        report.print(console())
    return DONE if report.holds else FAILED
