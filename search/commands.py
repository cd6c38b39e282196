"""The commands of ``fewtune`` that are about clusters; ``cli.py`` has the others."""

from __future__ import annotations

from pathlib import Path

import click

from search.options import FILE, set_option
from search.outlets import echo

TARGETS = ("aws", "gcp", "local", "kuberay", "slurm")


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
    from search.launch import Wishes, place, prepare, start, then

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
