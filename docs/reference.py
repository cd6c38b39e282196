"""Writes ``reference.md``: every key of a sweep file, every setting, every metric.

    python -m docs.reference

All of it follows from the models of ``search.config`` and of the methods, their spaces and the
metrics; a test fails where the file in the repository differs from what this writes.
"""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from search import registry
from search.config import SweepConfig
from search.keys import Key, keys, section_of
from search.metrics import METRICS
from spaces._domains import spell
from trainables._core.settings import MethodConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import BaseModel

    from search.metrics import Metric

FILE = Path(__file__).with_name("reference.md")
_HEADS = ("key", "type", "default", "allowed", "what it does")
_FIRST = """\
# The sweep file, key by key

<!-- Written by `make docs` (python -m docs.reference). Change the models, not this file. -->

A sweep file is YAML. It is checked as a whole before anything starts: every mistake is named at
once, with its line and the nearest right key. `--set KEY=VALUE` lays one key over the file, by its
dotted name, as `--set data.ways=10 --set space.student.width=16`. A relative path in the file is
relative to the file; one given with `--set` is relative to the working directory. *Left out* as a
default means that the absence of the key says something, and the last column says what. Only
`method` is required."""
_SPACE = """\
## `space`

`fewtune space METHOD` shows the same on a terminal. A parameter's dotted name is one key. An entry
fixes it or gives it a domain of its own:

| entry | meaning |
|---|---|
| `16`, `conv4`, `true` | fixed at this value |
| `{int: [8, 64], log: true}` | a whole number, bounds included; `log` where factors matter |
| `{float: [0.0, 0.05]}` | a number between the bounds |
| `{choice: [kl, none]}` | one of these |

What the file does not name is searched as the method's own space says, or has its default. An entry
may go beyond the method's own bounds, never beyond what is allowed. Where the stage is
*adaptation*, the parameter may change after training: one trained model answers for all of its
values."""
_METRICS = """\
## Metrics

The names in `objectives` (`accuracy: max`), in `constraints` (`student_params <= 60000`, also `>=`,
`<`, `>`, and `2%` for 0.02), in `results --json`, in TensorBoard and in a bundle. *Before training*
are those known from the configuration alone: a constraint on one is checked before anything is
spent. *Steers* says whether a sweep may optimise or constrain it."""


def reference() -> str:
    """Return the text of ``reference.md``."""
    parts = [_FIRST, *_sections(), _SPACE, *chain(*map(_method, registry.METHODS)), *_metrics()]
    return "\n\n".join(parts) + "\n"


def _sections() -> Iterable[str]:
    """The keys of the file itself, one table for each section."""
    fields = SweepConfig.model_fields
    single = [k for k in keys(SweepConfig) if section_of(SweepConfig, _root(k)) is None]
    yield "## The file"
    yield _table(_HEADS, map(_row, single))
    for name in fields:
        model = section_of(SweepConfig, name)
        if model is not None:
            yield f"## `{name}`"
            yield _about(model)
            yield _table(_HEADS, map(_row, keys(model, f"{name}.")))


def _method(name: str) -> Iterable[str]:
    """What a method searches, and the settings that it has beside those of every method."""
    space, known = registry.space(name), {k.name: k for k in keys(registry.learner(name).Config)}
    common = {key.name for key in keys(MethodConfig)}
    if name == registry.METHODS[0]:
        yield "### Settings of every method"
        yield _table(_HEADS, (_row(known[key]) for key in sorted(common, key=list(known).index)))
    yield f"### `{name}`"
    about = registry.about(name)
    yield f"{about[0].upper()}{about[1:]}."
    if own := [key for key in known.values() if key.name not in common]:
        yield "Its own settings:"
        yield _table(_HEADS, map(_row, own))
    yield "What it searches unless the file says otherwise:"
    heads = ("parameter", "domain", "stage", "only if", "reason for its bounds")
    rows = (
        (f"`{key}`", d.text(), d.stage, d.when.text() if d.when else "", d.why)
        for key, d in space.items()
    )
    yield _table(heads, rows)


def _metrics() -> Iterable[str]:
    yield _METRICS
    heads = ("metric", "unit", "better", "range", "steers", "before training", "meaning")
    rows = (
        (
            f"`{name}`",
            one.unit,
            one.better or "",
            _range(one),
            "yes" if one.usable else "no",
            "yes" if one.early else "",
            one.meaning + ("; of methods with a teacher" if one.taught else ""),
        )
        for name, one in METRICS.items()
    )
    yield _table(heads, rows)


def _row(key: Key) -> tuple[str, ...]:
    default = "required" if key.default is None else key.default
    return (f"`{key.name}`", key.kind, default, key.allowed or _named(key.name), key.about)


def _named(name: str) -> str:
    """What is allowed where the schema says a word and the project has a list of them."""
    lists = {"method": registry.METHODS, "data.source": registry.sources()}
    return " | ".join(lists.get(name, ()))


def _root(key: Key) -> str:
    return key.name.partition(".")[0]


def _about(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _range(metric: Metric) -> str:
    if metric.better is None:
        return "a word"
    high = spell(metric.high) if math.isfinite(metric.high) else ""
    return f"{spell(metric.low)} to {high}" if high else f"from {spell(metric.low)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_line(heads), "|---" * len(heads) + "|", *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    clean = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(clean)} |"


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
