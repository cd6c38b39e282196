"""Where the study lives: the run's journal file, or a database by its URL.

A password never stands in a sweep file, a run or a message: a URL refers to the environment, as
``${FEWTUNE_STUDY}`` for all of it or ``postgresql://me:${PGPASS}@host/db`` for a part, and is
completed in memory alone. What is wrong with a URL is said without showing it.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from search.documents import kind
from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.documents import Document
    from search.errors import Problem

JOURNAL = "journal"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(r"pass|secret|token", re.IGNORECASE)
_FORMS = (
    "Write journal (the default), ${NAME} with the URL in the environment variable NAME, or a URL "
    "as postgresql://user:${NAME}@host/database"
)


def read_study(document: Document, problems: list[Problem]) -> str:
    """Read the key ``study``.

    Args:
        document: The sweep file with the options laid over it.
        problems: Where its mistakes go; none of them shows the value.
    """
    raw = document.values.get("study")
    if raw is None:
        return JOURNAL
    if said := unfit(raw):
        problem = document.problem(("study",), said)
        problems.append(replace(problem, flag="--study" if problem.flag else ""))
    return str(raw)


def unfit(text: object) -> str:
    """Say why a text names no place for a study; an empty string where it does.

    Example:
        >>> unfit("journal"), unfit("${FEWTUNE_STUDY}"), unfit("postgresql://me:${PW}@host/db")
        ('', '', '')
        >>> unfit("postgresql://me:hunter2@host/db")[:42]
        'A password must not stand in a sweep file.'
    """
    if not isinstance(text, str):
        return f"{_FORMS}; found {kind(text)}."
    if text == JOURNAL or _REFERENCE.fullmatch(text):
        return ""
    if "://" not in text:
        return f"{_FORMS}; found something else (not shown, since it may be secret)."
    return _unfit_url(text)


def completed_url(reference: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL that a checked reference means.

    Args:
        reference: The value of ``study``, other than ``journal``.
        environment: Where names are looked up. A value that is part of a URL is quoted for it.

    Raises:
        UserError: A name is not set, or what it holds is no URL.
    """
    for name in _REFERENCE.findall(reference):
        if not environment.get(name):
            raise UserError(
                f"The study's database is named by the environment variable {name} (`study` in "
                "the sweep file), which is not set. Export it, then start again."
            )
    if whole := _REFERENCE.fullmatch(reference):
        url = environment[whole[1]]
        if said := _unfit_url(url, secrets=True):
            raise UserError(f"The environment variable {whole[1]} (`study`): {said}")
        return url
    return _REFERENCE.sub(lambda found: quote(environment[found[1]], safe=""), reference)


def unreachable(reference: str, url: str, error: BaseException) -> str:
    """Say why a database could not be opened, without its password.

    Args:
        reference: The value of ``study``.
        url: What it stands for.
        error: What opening it ended with.
    """
    if isinstance(error, ImportError) or type(error).__name__ == "NoSuchModuleError":
        return (
            f"The database of `study: {reference}` needs a driver that is not installed; for "
            "PostgreSQL `pip install 'fewtune[postgresql]'`."
        )
    cause = getattr(error, "orig", None) or error.__cause__ or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    for secret in _secrets_of(url):
        reason = reason.replace(secret, "***")
    return (
        f"The database of `study: {reference}` cannot be used: {reason[:300]}. Check that it runs, "
        "that it can be reached from here, and its user and password."
    )


def _secrets_of(url: str) -> set[str]:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - only where there is a URL

    parsed = make_url(url)
    values = [parsed.password, *(v for k, v in parsed.query.items() if _SECRET.search(k))]
    plain = {str(value) for value in values if value}
    return {url, *plain, *(quote(value, safe="") for value in plain)}


def _unfit_url(text: str, *, secrets: bool = False) -> str:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - only where there is a URL
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return f"This is no database URL (not shown, since it may hold a password). {_FORMS}."
    hidden = [url.password, *(v for k, v in url.query.items() if _SECRET.search(k))]
    if not secrets and any(h and not _REFERENCE.fullmatch(str(h)) for h in hidden):
        return (
            "A password must not stand in a sweep file. Put it into an environment variable and "
            "write ${NAME} in its place."
        )
    file = url.database or ""
    if url.get_backend_name() == "sqlite" and not file.startswith(("/", "file:")):
        return "Of an SQLite file give the whole path, as sqlite:////home/me/study.db."
    return ""
