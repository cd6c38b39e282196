"""Tables of what there is: methods, the parameters of one, data sources, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from search import registry
from search.entries import write_entry
from search.keys import keys
from search.metrics import METRICS
from search.outside import installed
from spaces._domains import spell
from trainables import _data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from spaces._domains import Domain, Value


def method_rows() -> list[dict[str, Any]]:
    """Return each method with what it is and how many parameters it searches.

    Of an installed package's method no code runs: it has its package in place of both.
    """
    own = [
        {
            "method": name,
            "about": registry.about(name),
            "parameters": len(registry.space(name)),
            "published": list(registry.published(name)),
        }
        for name in registry.METHODS
    ]
    others = {n: said for n, said in installed().items() if n not in registry.METHODS}
    return own + [
        {"method": name, "about": f"from the package {said}", "parameters": None, "published": []}
        for name, said in sorted(others.items())
    ]


def print_methods(console: Console) -> None:
    """Print the methods as a table."""
    rows = method_rows()
    _print(
        console,
        ("method", "what it is", "searched"),
        [(row["method"], row["about"], _searched(row["parameters"])) for row in rows],
    )
    console.print("`fewtune space METHOD` shows the parameters.", highlight=False)


def _searched(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters} parameters"


def space_document(method: str) -> dict[str, Any]:
    """Return what a method searches, and what else can be set, with every default.

    Imports torch, because the defaults live with the method.
    """
    space, defaults = registry.space(method), registry.defaults(method)
    return {
        "method": registry.title(method),
        "about": registry.about(method),
        "searched": [_parameter(name, domain, defaults[name]) for name, domain in space.items()],
        "settable": [
            {
                "parameter": key.name,
                "default": defaults[key.name],
                "allowed": key.allowed or key.kind,
                "about": key.about,
            }
            for key in keys(registry.learner(method).Config)
            if key.name not in space
        ],
        "published": {cite: dict(values) for cite, values in registry.published(method).items()},
    }


def print_space(document: Mapping[str, Any], console: Console) -> None:
    """Print what ``space_document`` returns as tables."""
    console.print(f"{document['method']} - {document['about']}\n", highlight=False)
    heads = ("parameter", "domain", "default", "stage", "condition")
    rows = [
        (
            row["parameter"],
            row["range"],
            spell(row["default"]),
            row["stage"],
            f"if {row['condition']}" if row["condition"] else "",
        )
        for row in document["searched"]
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    reasons = ["and the reason for its bounds", *(row["why"] for row in document["searched"])]
    for cells, reason in zip([heads, *rows], reasons, strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        console.print(escape(line.rstrip()), highlight=False, soft_wrap=True)
        console.print(Padding(Text(reason, style="dim"), (0, 0, 0, 4)))
    console.print("\nNot searched unless a sweep file says so:", highlight=False)
    rest = [
        (row["parameter"], spell(row["default"]), row["allowed"], row["about"])
        for row in document["settable"]
    ]
    _print(console, ("parameter", "default", "allowed", "what it does"), rest)


def source_rows() -> list[dict[str, Any]]:
    """Return each data source with what it holds and whether it can be read from here."""
    rows = []
    for name in _data.SOURCES:
        source, lacks = _data.describe(name), _data.missing(name)
        rows.append(
            {
                "source": name,
                "about": source.about,
                "size": source.size,
                "channels": source.channels,
                "ready": lacks is None,
                "missing": lacks,
                "address": source.address,
            }
        )
    return rows


def print_sources(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what ``source_rows`` returns as a table."""
    cells = [
        (row["source"], row["about"], "ready" if row["ready"] else row["missing"]) for row in rows
    ]
    _print(console, ("source", "what it holds", "from here"), cells)


def print_metrics(metrics: Mapping[str, object], console: Console) -> None:
    """Print the metrics of one trial with their units and meanings."""
    rows = []
    for name, value in metrics.items():
        metric = METRICS.get(name)
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        unit = f" {metric.unit}" if metric and metric.unit and value is not None else ""
        rows.append(
            (name, "-" if value is None else shown + unit, metric.meaning if metric else "")
        )
    _print(console, ("metric", "value", "meaning"), rows)


def _parameter(name: str, domain: Domain, default: Value) -> dict[str, Any]:
    return {
        "parameter": name,
        "domain": write_entry(domain),
        "range": domain.text(),
        "default": default,
        "stage": domain.stage,
        "condition": domain.when.text() if domain.when else None,
        "why": domain.why,
    }


def _print(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, no_wrap=index == 0)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table, highlight=False)
