"""Where runs are kept, when that is a bucket: no key in its address, and none in what is shown.

A bucket's keys come from where its clients look for them: the environment (as
``AWS_ACCESS_KEY_ID``), a profile, or the role of the machine. In a sweep file, a run or a message
they would be read by everybody who reads those. And which addresses of a cluster are a client's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from search.errors import UserError

if TYPE_CHECKING:
    from typing import TypeGuard

    from search.documents import Document
    from search.errors import Problem

RUNS = "runs"
"""Where a run is worked on that is kept in a bucket."""
CLIENT = "ray://"
"""Before the address of a Ray client's server."""
OPTIONS = ("region", "endpoint_override", "scheme")
"""How a bucket is reached, where that differs from what the environment says."""
_SECRET = re.compile(r"pass|secret|token|key|credential|signature", re.IGNORECASE)


def is_address(place: str) -> bool:
    """Tell an address from a directory.

    Example:
        >>> is_address("s3://bucket/runs"), is_address("runs")
        (True, False)
    """
    return "://" in place


def is_client(address: str | None) -> TypeGuard[str]:
    """Tell the address of a Ray client's server from that of a cluster.

    Example:
        >>> is_client("ray://head:10001"), is_client("head:6379"), is_client(None)
        (True, False, False)
    """
    return address is not None and address.startswith(CLIENT)


def unfit(place: str) -> str:
    """Say why an address must not be written down; an empty string where it may be.

    Example:
        >>> (
        ...     unfit("s3://bucket/runs?region=eu-west-1&endpoint_override=localhost:9000"),
        ...     unfit("runs"),
        ... )
        ('', '')
        >>> unfit("s3://me:hunter2@bucket/runs")[:43]
        'A key must not stand in a storage address. '
    """
    if not is_address(place) or not _hides(place):
        return ""
    return (
        "A key must not stand in a storage address. Give it by the environment, as "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by the machine's role (not shown, since "
        "it is secret)."
    )


def shown(place: str) -> str:
    """Return what may be shown of a place: no user, no key and nothing behind a question mark.

    Example:
        >>> shown("s3://me:hunter2@bucket/runs?secret_key=x"), shown("runs")
        ('s3://bucket/runs', 'runs')
    """
    if not is_address(place):
        return place
    scheme, _, rest = place.partition("://")
    path = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, inside = path.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{inside}"


def check_address(place: str) -> None:
    """Refuse an address that no run can be kept at.

    Raises:
        UserError: It holds a key, is of another kind than ``s3://``, or names no bucket.
    """
    if said := unfit(place):
        raise UserError(said)
    parts = urlsplit(place)
    if parts.scheme != "s3" or not parts.netloc:
        raise UserError(
            f"A run is kept in a directory, or in a bucket as s3://BUCKET/PREFIX; found "
            f"{shown(place)}. Mount it, and name the mount."
        )
    if others := sorted(set(options(place)) - set(OPTIONS)):
        raise UserError(
            f"The address of a bucket may end with {', '.join(OPTIONS)} behind a question mark; "
            f"found {', '.join(others)}."
        )


def options(place: str) -> dict[str, str]:
    """Return what stands behind an address's question mark.

    Example:
        >>> options("s3://bucket/runs?endpoint_override=localhost:9000&scheme=http")
        {'endpoint_override': 'localhost:9000', 'scheme': 'http'}
    """
    return dict(parse_qsl(urlsplit(place).query, keep_blank_values=True))


def below(place: str, name: str) -> str:
    """Return the address of something that lies below another one, reached in the same way.

    Example:
        >>> below("s3://bucket/runs/?region=eu-west-1", "letters")
        's3://bucket/runs/letters?region=eu-west-1'
    """
    parts = urlsplit(place)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def last_name(place: str) -> str:
    """Return the last part of an address; empty where it is a bucket alone.

    Example:
        >>> last_name("s3://bucket/runs/letters/?region=eu-west-1"), last_name("s3://bucket")
        ('letters', '')
    """
    return urlsplit(place).path.rstrip("/").rpartition("/")[2]


def read_storage(document: Document, problems: list[Problem]) -> object:
    """Read the key ``storage``.

    Args:
        document: The sweep file with the options laid over it.
        problems: Where its mistakes go; none of them shows the value.
    """
    raw = document.values.get("storage")
    if isinstance(raw, str) and (said := unfit(raw)):
        problem = document.problem(("storage",), said)
        problems.append(replace(problem, flag="--set storage=..." if problem.flag else ""))
    return raw


def _hides(place: str) -> bool:
    try:
        parts = urlsplit(place)
    except ValueError:  # brackets that are no address: nothing can be told of it
        return True
    asked = parse_qsl(parts.query, keep_blank_values=True)
    return "@" in parts.netloc or any(_SECRET.search(name) for name, _ in asked)
