"""Commands whose ``--address`` is a Ray client's: they are sent to the head, as they were given.

The sweep file is read and checked here and travels as what it says; all paths in it, of data, runs
and storage, are the head's, and so is the run that a command names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from search import registry
from search.addresses import shown, unfit
from search.config import dump_sweep
from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from search.config import SweepConfig


def send(
    address: str,
    command: Sequence[str],
    config: SweepConfig | None = None,
    **options: str | bool | Sequence[str] | None,
) -> int:
    """Run a command on the head of a cluster.

    Args:
        address: ``ray://HOST:PORT``.
        command: Its name, and its words other than the file.
        config: What its file says, with all that was set on the command line, its paths as written.
        options: As the command has them; None, False or nothing: not given.

    Returns:
        The command's exit code.

    Raises:
        UserError: The address is none, a word hides a key, nobody answers, versions differ, or the
            method is a folder of this machine.
        FailedError: The connection was lost, or the process on the head was.
    """
    if not re.fullmatch(r"ray://[^/@?#]+:\d+", address):
        raise UserError(
            "The address of a Ray client is ray://HOST:PORT, the port 10001 unless the head was "
            f"started with another, with nothing else in it; found --address {shown(address)}."
        )
    words = [*command, *_words(options)]
    if hidden := next(filter(None, map(unfit, words)), ""):
        raise UserError(hidden)
    if config is not None and registry.files(config.method):
        raise UserError(
            f"The method {config.method} is a folder of this machine, and the sweep would run on "
            "the cluster's head. Start it there with `--address auto`, or install the method as a "
            "package on every node and name that."
        )
    from search._client import run_there  # noqa: PLC0415 - Ray, for this alone

    text = None if config is None else dump_sweep(config, elsewhere=True)
    return run_there(address, words, text)


def _words(options: dict[str, str | bool | Sequence[str] | None]) -> Iterator[str]:
    """Write options as a user would.

    Example:
        >>> list(_words({"max_disk": "2GB", "json": True, "from": ["a", "b"], "name": None}))
        ['--max-disk', '2GB', '--json', '--from', 'a', '--from', 'b']
    """
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool) or value is None:
            yield from [flag] if value else []
            continue
        for one in [value] if isinstance(value, str) else value:
            yield from (flag, one)
