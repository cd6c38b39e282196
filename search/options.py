"""What the commands of ``fewtune`` share: paths, options, and how their words are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from search.addresses import is_address, is_client, shown
from search.outlets import echo

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


ELSEWHERE = "fewtune.elsewhere"  # set where a command runs on the head of a cluster


class RunPlace(click.Path):
    """A run's directory, or, for a command that fetches it first, its address in a bucket."""

    def __init__(self, *, fetched: bool = False) -> None:
        super().__init__(exists=True, file_okay=False, path_type=Path)
        self._fetched = fetched

    # the decorator `override` would cost `--help` a tenth of its time
    def convert(  # type: ignore[explicit-override]
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - as click has it
        """Return a path, or the address as it is; as it is too what lies on a cluster's head."""
        if ctx is not None and ctx.meta.get(ELSEWHERE):
            return value
        if not isinstance(value, str) or not is_address(value):
            return super().convert(value, param, ctx)
        if not self._fetched:
            self.fail(
                f"{shown(value)} is in a bucket; bring it here with `fewtune fetch` and name the "
                "directory.", param, ctx,
            )  # fmt: skip
        return value


RUN, RUN_OR_BUCKET = RunPlace(), RunPlace(fetched=True)


def _show_version(context: click.Context, _option: click.Parameter, wanted: object) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - takes a while

    try:
        echo(f"fewtune {version('fewtune')}")
    except PackageNotFoundError:
        echo("fewtune, not installed: run from its source tree")
    context.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key of the file, as data.source=omniglot; may be given again.",
)


def _note_address(
    context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    context.meta[ELSEWHERE] = is_client(value)
    return value


address_option = click.option(
    "--address",
    metavar="ADDR",
    is_eager=True,  # whether the other paths are this machine's hangs on it
    callback=_note_address,
    help="A running Ray cluster: auto or HOST:PORT on a node of it, ray://HOST:PORT elsewhere.",
)
from_option = click.option(
    "--from",
    "earlier",
    multiple=True,
    type=RUN,
    metavar="RUN",
    help="An earlier run whose trials inform this one; may be given again.",
)
rename_option = click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="OLD=NEW",
    help="A parameter that has another name in the earlier runs; may be given again.",
)
storage_option = click.option(
    "--storage",
    type=click.Path(file_okay=False),  # no Path, which makes s3:/ of s3://
    metavar="DIR|s3://...",
    help="Where run directories are made, or the bucket where they are kept.",
)
max_disk_option = click.option(
    "--max-disk",
    metavar="SIZE",
    help="Room the run may take, as 20GB: weights off the front make room, the oldest first.",
)
study_option = click.option(
    "--study",
    metavar="URL",
    help="A database for the study; a password in it as ${NAME}, from the environment.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


class InOrder(click.Group):
    """Lists its commands as they stand below: as a user meets them, not by the alphabet."""

    # the decorator `override` would cost `--help` a tenth of its time
    def list_commands(self, ctx: click.Context) -> list[str]:  # type: ignore[explicit-override]
        """Return the names of the commands, in the order in which they were added."""
        del ctx
        return list(self.commands)
