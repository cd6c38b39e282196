"""The methods by name. Listing them imports nothing; using one imports its two modules.

Adding a method is ``trainables/<name>.py``, ``spaces/<name>.py`` and its name below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from search.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces._domains import Space, Value
    from trainables._learner import Learner

METHODS = (
    "lambda_adaptation",
    "maml",
    "meta_distillation",
)


def learner(name: str) -> type[Learner]:
    """Return the class that trains a method; imports torch.

    Raises:
        UserError: There is no such method.
    """
    return cast("type[Learner]", import_module(f"trainables.{_known(name)}").LEARNER)


def space(name: str) -> Space:
    """Return the method's own search space.

    Raises:
        UserError: There is no such method.
    """
    return cast("Space", import_module(f"spaces.{_known(name)}").SPACE)


def published(name: str) -> Mapping[str, Mapping[str, Value]]:
    """Return the published settings of a method, by citation.

    Raises:
        UserError: There is no such method.
    """
    return cast(
        "Mapping[str, Mapping[str, Value]]", import_module(f"spaces.{_known(name)}").PUBLISHED
    )


def about(name: str) -> str:
    """Return the first sentence of the space's documentation: what the method is, and its paper.

    Raises:
        UserError: There is no such method.
    """
    first = (import_module(f"spaces.{_known(name)}").__doc__ or "").strip().splitlines()[0]
    return first.removeprefix("What is searched for ").rstrip(".")


def defaults(name: str) -> dict[str, Value]:
    """Return every settable parameter of a method with its default, dotted; imports torch.

    Raises:
        UserError: There is no such method.
    """
    from trainables._learner import flat_defaults

    return flat_defaults(learner(name))


def check_settings(name: str, settings: Mapping[str, Value]) -> None:
    """Hold settings against the method's typed configuration; imports torch.

    Raises:
        UserError: There is no such method.
        ConfigError: A setting is unknown or its value not allowed.
    """
    from trainables._learner import parse_config

    parse_config(learner(name), settings)


def sources() -> tuple[str, ...]:
    """Return the names of the data sources; imports numpy."""
    from trainables._data import SOURCES

    return SOURCES


def _known(name: str) -> str:
    if name not in METHODS:
        raise UserError(f"There is no method {name!r}. {suggest(name, METHODS)}")
    return name
