"""Holds a sweep file against its schema, the metrics and the method, and words what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from search import registry
from search.addresses import read_storage
from search.constraints import Constraint, contradictions
from search.databases import read_study
from search.documents import Document, Place, kind
from search.entries import read_entry, samples
from search.errors import Problem, UserError, nearest, suggest
from search.loggers import read_loggers
from search.metrics import METRICS, USABLE, refusal
from search.proposals import read_points
from search.sizes import read_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from spaces._domains import Domain, Value

Schema = TypeVar("Schema", bound=BaseModel)

NAME_FORM = (
    "A name has up to 100 letters, digits, dots, dashes and underscores and starts with a letter "
    "or a digit"
)
_BY_HAND = (
    "space", "objectives", "constraints", "points", "study", "storage", "max_disk", "loggers",
)  # fmt: skip


def check(
    document: Document, schema: type[Schema], *, settings: bool
) -> tuple[Schema | None, list[Problem]]:
    """Turn a document into a configuration, or say everything that is wrong with it.

    Args:
        document: The file with the overrides laid over it.
        schema: The pydantic model of the whole file.
        settings: Whether to hold ``space`` against the method's settings, which imports torch.

    Returns:
        The configuration, None where there are problems; and the problems.
    """
    values = {key: value for key, value in document.values.items() if value is not None}
    problems: list[Problem] = []
    method = _method(document, problems, settings=settings)
    parsed: dict[str, Any] = {
        "space": _space(document, problems, method, settings=settings),
        "objectives": _objectives(document, problems),
        "constraints": _constraints(document, problems),
        "points": read_points(document, problems),
        "study": read_study(document, problems),
        "storage": read_storage(document, problems),
        "max_disk": read_limit(document, problems),
        "loggers": read_loggers(document, problems),
    }
    values.update({key: parsed[key] for key in _BY_HAND if key in values})
    config: Schema | None = None
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        problems += [_worded(document, schema, one) for one in error.errors()]
    _source(document, problems)
    asked: dict[Place, str] = {("objectives", name): name for name in parsed["objectives"]}
    asked |= {("constraints", n): c.metric for n, c in enumerate(parsed["constraints"])}
    _taught(document, problems, method, asked)
    _gpu(document, problems)
    return (None if problems else config), problems


def _method(document: Document, problems: list[Problem], *, settings: bool) -> str | None:
    """Return the method where it can be asked; one from outside is imported with ``settings``."""
    method = document.values.get("method")
    if not isinstance(method, str):
        return None
    said = ""
    if not (registry.described(method) or registry.exists(method)):
        folder = f" A folder is written with a slash: ./{method}." if Path(method).is_dir() else ""
        said = f"There is no method {method}. {suggest(method, registry.names())}{folder}"
    elif settings:
        try:
            registry.admit(method)
        except UserError as error:
            said = str(error)
    if said:
        problems.append(document.problem(("method",), said))
    return None if said else method


def _space(
    document: Document, problems: list[Problem], method: str | None, *, settings: bool
) -> dict[str, Domain] | None:
    raw = document.values.get("space")
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        problems.append(document.problem(("space",), _not_mapping(raw)))
        return {}
    if method is None:
        return {}
    known = registry.defaults(method) if settings else {}
    searched = registry.space(method) if registry.described(method) else {}
    domains: dict[str, Domain] = {}
    for name, entry in raw.items():
        place: Place = ("space", name)
        if settings and name not in known:
            problems.append(document.problem(place, _unknown_parameter(name, entry, known)))
            continue
        try:
            domains[name] = read_entry(entry, like=known.get(name), own=searched.get(name))
            if settings:
                _try_values(method, name, domains[name])
        except (UserError, ValueError) as error:
            said = str(error).removeprefix(f"{name}: ")
            problems.append(document.problem(place, said))
    return domains


def _try_values(method: str, name: str, domain: Domain) -> None:
    for value in samples(domain):
        registry.check_settings(method, {name: value})


def _unknown_parameter(name: str, entry: object, known: Mapping[str, Value]) -> str:
    if isinstance(entry, dict):
        inner = [f"{name}.{key}" for key in entry if f"{name}.{key}" in known]
        if inner:
            return f"Parameter names are written with dots; write `{inner[0]}` as one key."
    return f"The method has no parameter {name}. {suggest(name, known)}"


def _objectives(document: Document, problems: list[Problem]) -> dict[str, str]:
    raw = document.values.get("objectives")
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        problems.append(document.problem(("objectives",), _not_mapping(raw)))
        return {}
    if not raw:
        problems.append(
            document.problem(("objectives",), "At least one is needed, as in `accuracy: max`.")
        )
    for name, direction in raw.items():
        place: Place = ("objectives", name)
        if name not in METRICS:
            problems.append(
                document.problem(place, f"There is no metric {name}. {suggest(name, USABLE)}")
            )
        elif reason := refusal(name):
            problems.append(document.problem(place, reason))
        if direction not in ("max", "min"):
            problems.append(
                document.problem(place, f"A direction is max or min; found {kind(direction)}.")
            )
    return {name: way for name, way in raw.items() if way in ("max", "min")}


def _constraints(document: Document, problems: list[Problem]) -> tuple[Constraint, ...]:
    raw = document.values.get("constraints")
    if raw is None:
        return ()
    if not isinstance(raw, list):
        sentence = f"Expected a list, as in `[student_params <= 60000]`; found {kind(raw)}."
        problems.append(document.problem(("constraints",), sentence))
        return ()
    parsed: list[Constraint] = []
    for index, text in enumerate(raw):
        try:
            parsed.append(Constraint.parse(text if isinstance(text, str) else kind(text)))
        except UserError as error:
            problems.append(document.problem(("constraints", index), str(error)))
    problems += [document.problem(("constraints",), said) for said in contradictions(parsed)]
    return tuple(parsed)


def _source(document: Document, problems: list[Problem]) -> None:
    data = document.values.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, str) and source not in registry.sources():
        sentence = f"There is no data source {source}. {suggest(source, registry.sources())}"
        problems.append(document.problem(("data", "source"), sentence))


def _taught(
    document: Document,
    problems: list[Problem],
    method: str | None,
    asked: Mapping[Place, str],
) -> None:
    """Refuse what only a method with a teacher has, where there is none: every trial would fail."""
    if method is None or not registry.described(method) or _has_teacher(method):
        return
    others = [name for name in registry.METHODS if _has_teacher(name)]
    for place, name in asked.items():
        if name in METRICS and METRICS[name].taught:
            found = f"{name} is of methods with a teacher ({', '.join(others)})"
            problems.append(document.problem(place, f"{found}; {registry.title(method)} has none."))


def _has_teacher(method: str) -> bool:
    return any(name.startswith("teacher.") for name in registry.space(method))


def _gpu(document: Document, problems: list[Problem]) -> None:
    resources = document.values.get("resources")
    gpu = resources.get("gpu") if isinstance(resources, dict) else None
    if isinstance(gpu, float) and 1 < gpu < float("inf") and not gpu.is_integer():
        sentence = f"A share of a GPU lies below 1; from 1 on give whole GPUs. Found {gpu}."
        problems.append(document.problem(("resources", "gpu"), sentence))


def _worded(document: Document, schema: type[BaseModel], error: ErrorDetails) -> Problem:
    place: Place = error["loc"]
    if error["type"] == "extra_forbidden":
        return document.problem(place, _unknown_key(schema, place))
    return document.problem(place, _sentence(error))


def _unknown_key(schema: type[BaseModel], place: Place) -> str:
    key = str(place[-1])
    section = schema if len(place) == 1 else _section(schema, str(place[0]))
    own = list(section.model_fields) if section else []
    sections = {name: _section(schema, name) for name in schema.model_fields}
    elsewhere = [
        f"{name}.{key}" for name, part in sections.items() if part and key in part.model_fields
    ]
    if elsewhere and nearest(key, own) is None:
        return f"Unknown key {key}. Did you mean {' or '.join(elsewhere)}?"
    if len(place) == 1 and "." in key:
        return f"Unknown key {key}. Parameters of the method stand under `space`."
    return f"Unknown key {key}. {suggest(key, own)}"


def _section(schema: type[BaseModel], name: str) -> type[BaseModel] | None:
    kind_ = schema.model_fields[name].annotation if name in schema.model_fields else None
    return kind_ if isinstance(kind_, type) and issubclass(kind_, BaseModel) else None


def _sentence(error: ErrorDetails) -> str:
    limits: dict[str, Any] = error.get("ctx", {})
    found = kind(error["input"])
    match error["type"]:
        case "missing":
            return f"This key is missing. It is one of {', '.join(registry.METHODS)}."
        case "greater_than_equal":
            said = f"Must be at least {limits['ge']}"
        case "greater_than":
            said = f"Must be above {limits['gt']}"
        case "less_than_equal":
            said = f"Must be at most {limits['le']}"
        case "literal_error":
            said = f"Must be {limits['expected']}"
        case other:
            said = _EXPECTED.get(other, error["msg"])
    return f"{said}; found {found}."


_EXPECTED = {
    "int_type": "Expected a whole number",
    "float_type": "Expected a number",
    "finite_number": "Expected a finite number",
    "bool_type": "Expected true or false",
    "string_type": "Expected a word",
    "path_type": "Expected a path",
    "model_type": "Expected a mapping of keys to values",
    "string_pattern_mismatch": NAME_FORM,
}


def _not_mapping(raw: object) -> str:
    return f"{_EXPECTED['model_type']}; found {kind(raw)}."
