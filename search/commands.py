"""The commands of ``fewtune`` that are about data and machines; ``cli.py`` has the others."""

from __future__ import annotations

from pathlib import Path

import click

from search.addresses import is_client
from search.options import FILE, FOLDER, address_option, json_option, set_option, storage_option
from search.outlets import DONE, FAILED, console, echo, tidy_stdout, write_json

TARGETS = ("aws", "gcp", "local", "kuberay", "slurm")


@click.group()
def data() -> None:
    """List, check and prepare the data sources."""


@data.command("list")
@json_option
def data_list(*, as_json: bool) -> None:
    """List the sources, and whether they can be read from here."""
    from search.listing import print_sources, source_rows

    with tidy_stdout():
        rows = source_rows()
    if as_json:
        write_json(rows)
        return
    print_sources(rows, console())


@data.command("check")
@click.argument("source")
@click.option("--path", type=FOLDER, help="Where its files are; left out: FEWTUNE_DATA.")
@click.option("--split", type=click.Path(exists=True, path_type=Path), help="Lists of classes.")
@click.option("--size", type=int, help="Side of the images in pixels.")
@click.option("--channels", type=int, help="1 grey, 3 colour.")
@click.option("--ways", type=int, default=5, show_default=True)
@click.option("--shots", type=int, default=1, show_default=True)
@click.option("--queries", type=int, default=15, show_default=True)
@json_option
def data_check(  # noqa: PLR0913 - one argument for each word of the command
    *,
    source: str,
    path: Path | None,
    split: Path | None,
    size: int | None,
    channels: int | None,
    ways: int,
    shots: int,
    queries: int,
    as_json: bool,
) -> None:
    """Read a source, say what is in it, and hold tasks against it."""
    from trainables._data import check_shape, load

    with tidy_stdout():
        found = load(source, root=path, split=split, size=size, channels=channels)
    if not as_json:
        for line in found.report.lines():
            echo(line)
    check_shape(found, ways, shots, queries)
    task = f"{ways}-way {shots}-shot with {queries} queries"
    if as_json:
        write_json({**found.report.to_json(), "fingerprint": found.fingerprint, "task": task})
        return
    echo(f"{task}: fits")


@data.command("prepare")
@click.argument("source")
@click.option(
    "--path",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put its files; left out: FEWTUNE_DATA.",
)
@json_option
def data_prepare(*, source: str, path: Path | None, as_json: bool) -> None:
    """Download a source from its official address, or verify what is there."""
    from trainables._data import prepare

    with tidy_stdout():
        folder = prepare(source, path)
    if as_json:
        write_json({"source": source, "path": str(folder)})
        return
    echo(f"{source} is ready in {folder}.")


@click.command()
@click.argument("address", metavar="s3://BUCKET/PREFIX/NAME")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run directory to be made; left out: runs/NAME.",
)
def fetch(*, address: str, out: Path | None) -> None:
    """Bring a run that is kept in a bucket here."""
    from search.fetch import fetch as fetch_run

    echo(str(fetch_run(address, out)))


@click.command()
@click.argument("target", type=click.Choice(TARGETS))
@click.argument("file", required=False, type=FILE, metavar="[FILE.yaml]")
@set_option
@click.option("--min-workers", "least", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--max-workers", "most", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--spot/--on-demand", default=True, help="Of aws and gcp; spot is the default.")
@click.option("--image", help="The machine's on aws and gcp, the container's of kuberay.")
@click.option("--shared", metavar="SERVER", help="NFS server whose export all nodes mount.")
@click.option("--host", "hosts", multiple=True, help="A machine of local, the head first.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Left out: fewtune-TARGET.yaml, for slurm .sh.",
)
@click.option("--dry-run", is_flag=True, help="Write the files and start nothing.")
def launch(  # noqa: PLR0913 - one argument for each word of the command
    *,
    target: str,
    file: Path | None,
    overrides: tuple[str, ...],
    least: int,
    most: int,
    spot: bool,
    image: str | None,
    shared: str | None,
    hosts: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
) -> None:
    """Write a cluster's file for a sweep, and start it there."""
    from search.config import load_sweep
    from search.launch import place, prepare, start, then
    from search.templates import Wishes

    config = load_sweep(file, overrides)
    out = out or Path(f"fewtune-{target}.{'sh' if target == 'slurm' else 'yaml'}")
    wishes = Wishes(least, most, spot, image, shared, hosts)
    found = prepare(target, config, wishes, out)
    place(found, out)
    echo(str(out))
    for line in found.lines():
        echo(line, to_stderr=True)
    if not dry_run:
        found.check_filled(out)
        start(target, out)
    for line in then(target, out, started=not dry_run):
        echo(line, to_stderr=True)


@click.command()
@click.argument("file", required=False, type=FILE, metavar="[FILE.yaml]")
@set_option
@storage_option
@address_option
@json_option
def doctor(
    *,
    file: Path | None,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
    as_json: bool,
) -> int:
    """Say whether a sweep would run here, and what to do if not; exit code 1 then."""
    from search.config import load_sweep

    config = load_sweep(file, overrides, elsewhere=is_client(address))
    from search.elsewhere import send

    if is_client(address):
        return send(address, ["doctor"], config, storage=storage, json=as_json)
    from search.doctor import examine

    with tidy_stdout():
        report = examine(config, address, storage)
    if as_json:
        write_json(report.to_json())
    else:
        report.print(console())
    return DONE if report.healthy else FAILED
