"""The methods by name. Listing them imports nothing; using one imports its two modules.

Adding a method is ``trainables/<name>.py``, ``spaces/<name>.py`` and its name below. A method from
outside, a folder or a name that an installed package offers, is admitted first; see ``admitted``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from search.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.admitted import Known
    from spaces._domains import Space, Value
    from trainables._core.outside import Carried
    from trainables._learner import Learner

METHODS = (
    "lambda_adaptation",
    "maml",
    "meta_distillation",
)


def names() -> tuple[str, ...]:
    """Return every method that has a name: those above, and those that installed packages offer."""
    from search.outside import installed

    return tuple(sorted({*METHODS, *installed()}))


def exists(name: str) -> bool:
    """Tell whether there is a method of this name; a folder is one if it says that it is."""
    from search.outside import is_path

    return name in METHODS or is_path(name) or name in names()


def admit(name: str) -> None:
    """Import a method that the user named, where it is not one of the above; imports torch then.

    Raises:
        UserError: There is no such method, or it is not what a method must be.
    """
    if name in METHODS:
        return
    if not exists(name):
        raise UserError(f"There is no method {name!r}. {suggest(name, names())}")
    from search import admitted

    admitted.admit(name)


def is_own(name: str) -> bool:
    """Tell whether a method is one of fewtune's."""
    return name in METHODS


def files(name: str) -> Mapping[str, str]:
    """Return the code of a method that is a folder, name -> text; nothing of any other."""
    return {} if name in METHODS else _known(name).files


def described(name: str) -> bool:
    """Tell whether space and defaults can be had: of one from outside, if it was admitted."""
    return name in METHODS or _admitted().is_known(name)


def title(name: str) -> str:
    """Return what a method is called where people read it: of a folder, its own name.

    Example:
        >>> title("maml"), title("/home/ann/reptile")
        ('maml', 'reptile')
    """
    return name.rstrip("/").rpartition("/")[2]


def learner(name: str) -> type[Learner]:
    """Return the class that trains a method; imports torch.

    Raises:
        UserError: There is no such method, or it is from outside and was not admitted.
    """
    if name not in METHODS:
        return cast("type[Learner]", _admitted().learner(_found(name)))
    return cast("type[Learner]", import_module(f"trainables.{name}").LEARNER)


def space(name: str) -> Space:
    """Return the method's own search space.

    Raises:
        UserError: There is no such method, or nothing is known of it.
    """
    if name not in METHODS:
        return _known(name).space
    return cast("Space", import_module(f"spaces.{name}").SPACE)


def published(name: str) -> Mapping[str, Mapping[str, Value]]:
    """Return the published settings of a method, by citation.

    Raises:
        UserError: There is no such method.
    """
    if name not in METHODS:
        return cast("Mapping[str, Mapping[str, Value]]", _admitted().published(_found(name)))
    return cast("Mapping[str, Mapping[str, Value]]", import_module(f"spaces.{name}").PUBLISHED)


def about(name: str) -> str:
    """Return the first sentence of the space's documentation: what the method is, and its paper.

    Raises:
        UserError: There is no such method, or nothing is known of it.
    """
    if name not in METHODS:
        return _known(name).about
    first = (import_module(f"spaces.{name}").__doc__ or "").strip().splitlines()[0]
    return first.removeprefix("What is searched for ").rstrip(".")


def defaults(name: str) -> dict[str, Value]:
    """Return every settable parameter of a method with its default, dotted; imports torch.

    Raises:
        UserError: There is no such method, or nothing is known of it.
    """
    if name not in METHODS:
        return dict(_known(name).defaults)
    from trainables._learner import flat_defaults

    return flat_defaults(learner(name))


def check_settings(name: str, settings: Mapping[str, Value]) -> None:
    """Hold settings against the method's typed configuration; imports torch.

    Raises:
        UserError: There is no such method, or it is from outside and was not admitted.
        ConfigError: A setting is unknown or its value not allowed.
    """
    from trainables._learner import parse_config

    parse_config(learner(name), settings)


def carry(name: str) -> type[Learner] | Carried:
    """Return the class that trains a method as what travels to another process."""
    from trainables._core.outside import carried

    return carried(learner(name))


def sources() -> tuple[str, ...]:
    """Return the names of the data sources; imports numpy."""
    from trainables._data import SOURCES

    return SOURCES


def _admitted() -> Any:  # noqa: ANN401 - the module, which is imported by those alone who need it
    from search import admitted

    return admitted


def _known(name: str) -> Known:
    return cast("Known", _admitted().known(_found(name)))


def _found(name: str) -> str:
    if not described(name) and not exists(name):
        raise UserError(f"There is no method {name!r}. {suggest(name, names())}")
    return name
