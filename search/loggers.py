"""Which loggers follow a sweep: Weights & Biases, MLflow; none unless the sweep file names them.

``loggers: [wandb, mlflow]`` takes each as its own environment is set up; a mapping gives options
too. What signs a logger in never stands in a sweep file, a run or a message: it is the logger's own
environment variable or file. A run is read without the packages; only its driver needs them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from search.documents import kind
from search.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from search.documents import Document, Place
    from search.errors import Problem

SECRET = re.compile(r"key|pass|secret|token|credential", re.IGNORECASE)
"""What the name of a thing has that is not to be shown."""
_KEY = re.compile(r"[0-9a-fA-F]{40,}|wandb_v\d+_\S{20,}")  # as Weights & Biases hands them out
_FORM = "Expected a list, as in [wandb, mlflow], or a mapping, as in {wandb: {project: NAME}}"


@dataclass(frozen=True)
class Kind:
    """One logger.

    Attributes:
        options: What a sweep file may say of it.
        sign_in: How one signs in instead of writing a secret into the file.
    """

    options: tuple[str, ...]
    sign_in: str


KINDS = {
    "mlflow": Kind(
        ("tracking_uri", "experiment_name"),
        "export MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
    "wandb": Kind(
        ("project", "entity", "group"), "run `wandb login` once, or export WANDB_API_KEY"
    ),
}


def read_loggers(document: Document, problems: list[Problem]) -> dict[str, dict[str, str]]:
    """Read the key ``loggers``.

    Args:
        document: The sweep file with the options laid over it.
        problems: Where its mistakes go; none of them shows a value.

    Returns:
        Each logger with its options.
    """

    def note(place: Place, sentence: str) -> None:
        problem = document.problem(place, sentence)
        problems.append(replace(problem, flag=problem.flag.partition("=")[0]))

    raw = document.values.get("loggers")
    if isinstance(raw, dict):
        given: dict[Place, tuple[object, object]] = {
            ("loggers", name): (name, options) for name, options in raw.items()
        }
    elif isinstance(raw, list):
        given = {("loggers", at): (name, None) for at, name in enumerate(raw)}
    else:
        given = {}
        if raw is not None:
            found = "one word" if isinstance(raw, str) else kind(raw)
            note(("loggers",), f"{_FORM}; found {found}.")
    for place, (name, options) in given.items():
        _check_one(place, name, options, note)
    return {str(name): _plain(options) for name, options in given.values()}


def check_loggers(loggers: Mapping[str, object]) -> None:
    """Hold what a sweep asks for against what is installed, without importing any of it.

    Raises:
        UserError: A logger's package is missing.
    """
    missing = [name for name in loggers if find_spec(name) is None]
    if missing:
        names, it = " and ".join(missing), "it" if len(missing) == 1 else "them"
        raise UserError(
            f"The sweep file asks for {names} (loggers), which this Python does not have. Install "
            f'{it} with `pip install "fewtune[loggers]"`, or leave {it} out.'
        )


def hidden(text: str, environment: Mapping[str, str]) -> str:
    """Return a text without what may be secret in it: of the environment, or before a host.

    Example:
        >>> hidden("no hunter2 at https://me:pw@host/x", {"WANDB_API_KEY": "hunter2"})
        'no *** at https://***@host/x'
    """
    for name, value in environment.items():
        if len(value) > 3 and SECRET.search(name):
            text = text.replace(value, "***")
    return _KEY.sub("***", re.sub(r"//[^/\s@]+@", "//***@", text))


def _check_one(
    place: Place, name: object, options: object, note: Callable[[Place, str], None]
) -> None:
    if not isinstance(name, str) or name not in KINDS:
        guess = nearest(name, KINDS) if isinstance(name, str) else None
        hint = f"Did you mean {guess}?" if guess else f"There are {', '.join(KINDS)}."
        if isinstance(name, str) and name.partition(".")[0] in KINDS:  # as --set has it
            hint = "Options are given as a whole, as in loggers={wandb: {project: NAME}}."
        note(place, f"There is no such logger. {hint}")
    elif options is not None and not isinstance(options, dict):
        note(place, f"Expected a mapping of options; found {_shown(options)}.")
    else:
        for option, value in (options or {}).items():
            if said := _unfit(name, option, value):
                note((*place, option), said)


def _unfit(name: str, option: str, value: object) -> str:
    """Say why an option does not stand; an empty string where it does."""
    known = KINDS[name]
    if option not in known.options:
        if SECRET.search(option):
            return _secret(name)
        guess = nearest(option, known.options)
        hint = f"Did you mean {guess}?" if guess else f"There are {', '.join(known.options)}."
        return f"{name} has no option {option} here. {hint}"
    if not isinstance(value, str) or not value:
        return f"Expected a word; found {_shown(value)}."
    if _KEY.search(value):
        return _secret(name)
    return _unfit_address(value) if option == "tracking_uri" else ""


def _unfit_address(text: str) -> str:
    try:
        url = urlsplit(text)
    except ValueError:
        return "This is no address (not shown, since it may hold a password)."
    if url.password or (url.username and SECRET.search(url.username)) or SECRET.search(url.query):
        return _secret("mlflow")
    if not url.scheme or "://" not in text:
        return "Expected an address, as https://host:5000 or sqlite:////home/me/mlflow.db."
    if url.scheme in ("sqlite", "file") and not url.path.startswith(
        "//" if url.scheme == "sqlite" else "/"
    ):
        return "Of a local store give the whole path, as sqlite:////home/me/mlflow.db."
    return ""


def _secret(name: str) -> str:
    return (
        "An API key, token or password must not stand in a sweep file, which is copied into every "
        f"run. Remove it and {KINDS[name].sign_in}."
    )


def _shown(value: object) -> str:
    return "a word" if isinstance(value, str) and value else kind(value)


def _plain(options: object) -> dict[str, str]:
    return dict(options) if isinstance(options, dict) else {}
