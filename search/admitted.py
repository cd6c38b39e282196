"""What this process knows of methods from outside: code that the user named, or a run's record.

``admit`` imports code and holds it against what a method must be. ``record`` writes what a run
keeps of it, and ``recall`` reads that back as data alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from search.entries import samples
from search.errors import UserError, suggest
from search.outside import SPACE, TRAINABLE, find, imported
from search.rundir import read_json, write_json
from spaces._domains import Choice, Domain, Fixed, Float, Int, SpaceError, When, check_space

if TYPE_CHECKING:
    from pathlib import Path

    from search.outside import Origin
    from spaces._domains import Space, Value
    from trainables._learner import Learner

FILE = "method.json"
_KINDS = {kind.__name__: kind for kind in (Float, Int, Choice, Fixed)}


@dataclass(frozen=True)
class Known:
    """What is known of a method without running it.

    Attributes:
        title: What it is called.
        place: Where it lay.
        digest: Of its code.
        about: The first sentence of its space's documentation.
        space: What it searches.
        defaults: Every parameter with its default.
        files: Name -> text of its files, of a folder.
    """

    title: str
    place: str
    digest: str
    about: str
    space: Space
    defaults: Mapping[str, Value]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Admitted:
    """A method whose code has been imported."""

    origin: Origin
    learner: type[Learner]
    known: Known
    published: Mapping[str, Mapping[str, Value]]


_ADMITTED: dict[str, Admitted] = {}
_RECALLED: dict[str, Known] = {}


def admit(method: str, expected: str = "") -> None:
    """Import a method's code because the user named it; its files are read anew each time.

    Args:
        method: A folder, or a name of an installed package's entry point.
        expected: The digest it must have; empty: any.

    Raises:
        UserError: It is not what a method must be, or has another digest.
    """
    origin = find(method)
    if expected and origin.digest != expected:
        raise UserError(
            f"The code of the method {origin.title} ({origin.place}) is not what it was when the "
            f"run began: its digest was {expected[:12]} and is {origin.digest[:12]}. Results of "
            f"different code do not compare; restore it, or start a new sweep."
        )
    before = _ADMITTED.get(method)
    if before is None or before.origin != origin:
        _ADMITTED[method] = _checked(origin)


def learner(method: str) -> type[Learner]:
    """Return the class of a method whose code was admitted.

    Raises:
        UserError: It was not: nothing that the user named says that this code may run.
    """
    if method not in _ADMITTED:
        raise UserError(
            f"The code of the method {method} is not loaded: it runs only for a sweep file, or to "
            "go on with a run."
        )
    return _ADMITTED[method].learner


def known(method: str) -> Known:
    """Return what is known of a method, from its code or from a run's record.

    Raises:
        UserError: Nothing is: there is neither.
    """
    if method in _ADMITTED:
        return _ADMITTED[method].known
    if method in _RECALLED:
        return _RECALLED[method]
    raise UserError(
        f"Nothing is known of the method {method}: neither was its code loaded, nor is {FILE} "
        "beside the run's sweep file."
    )


def is_known(method: str) -> bool:
    """Tell whether something is known of a method from outside."""
    return method in _ADMITTED or method in _RECALLED


def published(method: str) -> Mapping[str, Mapping[str, Value]]:
    """Return the published settings of a method whose code was admitted; else none."""
    found = _ADMITTED.get(method)
    return {} if found is None else found.published


def record(folder: Path, method: str) -> None:
    """Write what a run keeps of its method: all that is needed to look at it later."""
    one = known(method)
    space = {name: {"kind": type(d).__name__, **asdict(d)} for name, d in one.space.items()}
    plain = {**{k: v for k, v in vars(one).items() if k != "space"}, "space": space}
    write_json(folder / FILE, {"method": method, **plain})


def recall(folder: Path) -> str:
    """Read what a run keeps of its method, as data.

    Returns:
        The digest of its code; empty where the method is one of fewtune's.

    Raises:
        UserError: The file is damaged; it is named.
    """
    file = folder / FILE
    if not file.is_file():
        return ""
    said = dict(read_json(file))
    try:
        method = str(said.pop("method"))
        said["space"] = {name: _domain(dict(one)) for name, one in said["space"].items()}
        _RECALLED[method] = Known(**said)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged: it describes no method ({error}).") from error
    return _RECALLED[method].digest


def _domain(said: dict[str, Any]) -> Domain:
    when = said.pop("when")
    if when is not None:
        said["when"] = When(when["parameter"], tuple(when["one_of"]))
    if "options" in said:
        said["options"] = tuple(said["options"])
    return _KINDS[said.pop("kind")](**said)


def _checked(origin: Origin) -> Admitted:
    from trainables._learner import Learner, flat_defaults  # noqa: PLC0415 - torch

    space = imported(origin, SPACE, "SPACE")
    _check_domains(origin, space)
    kind = imported(origin, TRAINABLE, "LEARNER")
    if not (inspect.isclass(kind) and issubclass(kind, Learner)):
        raise UserError(
            f"LEARNER in {TRAINABLE}.py of {origin.place} must be a class that extends Learner "
            f"(trainables._learner); found {kind!r}."
        )
    if lacks := sorted(getattr(kind, "__abstractmethods__", ())):
        raise UserError(f"{kind.__name__} of {origin.place} lacks {', '.join(lacks)}.")
    if not hasattr(kind, "Config"):
        raise UserError(
            f"{kind.__name__} of {origin.place} lacks Config, the class of its settings."
        )
    defaults = flat_defaults(kind)
    _check_settings(origin, space, kind, defaults)
    module = origin.module(SPACE)
    about = ((module.__doc__ or "").strip().splitlines() or [""])[0].rstrip(".")
    one = Known(
        origin.title, origin.place, origin.digest, about.removeprefix("What is searched for "),
        dict(space), defaults, origin.files,
    )  # fmt: skip
    return Admitted(origin, kind, one, getattr(module, "PUBLISHED", {}))


def _check_domains(origin: Origin, space: object) -> None:
    said = f"SPACE in {SPACE}.py of {origin.place}"
    if not isinstance(space, Mapping) or not space:
        raise UserError(f"{said} must map parameters to domains; found {type(space).__name__}.")
    for name, domain in space.items():
        if not isinstance(domain, Domain):
            raise UserError(
                f"{said}: {name} must be a Float, Int, Choice or Fixed (spaces._domains); found "
                f"{domain!r}."
            )
    try:
        check_space(space)
    except SpaceError as error:
        raise UserError(f"{said}: {error}") from error


def _check_settings(
    origin: Origin, space: Space, kind: type[Learner], defaults: Mapping[str, Value]
) -> None:
    """Hold every parameter of a space, at its ends, against the method's settings."""
    from trainables._learner import parse_config  # noqa: PLC0415 - torch

    said = f"SPACE in {SPACE}.py of {origin.place}"
    for name, domain in space.items():
        if name not in defaults:
            raise UserError(f"{said}: {name} is no setting. {suggest(name, defaults)}")
        for value in samples(domain):
            try:
                parse_config(kind, {name: value})
            except ValueError as error:
                raise UserError(f"{said}: {' '.join(str(error).split())}") from error
