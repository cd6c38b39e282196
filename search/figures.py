"""The picture of the front: the first objective against the second, the third as colour."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search.metrics import METRICS, MIXED, named, normalisation_among, normalisation_of
from search.progress import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from search.metrics import Direction
    from search.results import RunResults

BLUE, GREY, RED = "#0072b2", "#8a8a8a", "#d55e00"  # Okabe and Ito: told apart by every eye
LABELLED = 12  # labels on the front before they would cover each other
LOG_FACTOR = 8  # an axis that spans more than this is logarithmic


def front_png(results: RunResults, *, title: str = "", dpi: int = 110) -> bytes:
    """Draw the trials of a run and its front.

    Args:
        results: A run with at least one complete trial.
        title: Above the picture; left out: name and number of trials.
        dpi: Dots per inch of a picture 7 by 4.6 inches large.

    Returns:
        A PNG file.
    """
    picture = io.BytesIO()
    front_figure(results, title=title).savefig(picture, format="png", dpi=dpi)
    return picture.getvalue()


def front_figure(results: RunResults, *, title: str = "") -> Figure:
    """Return the picture that ``front_png`` writes."""
    best = [t["id"] for t in results.front()]
    feasible = {t["id"] for t in results.feasible()}
    complete = [t for t in results.trials if t["state"] == "COMPLETE"]
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = _axes_of(results.config.objectives)
    usable = [t for t in complete if all(_number(t, n) is not None for n in names)]
    _scatter(figure, axes, usable, names, feasible, best)
    size = counted(len(complete), "trial")
    axes.set_title(title or f"{results.info.get('name', 'run')}: {size}, "
                   f"{len(best)} on the front", loc="left", fontsize=10)  # fmt: skip
    return figure


def _axes_of(objectives: Mapping[str, Direction]) -> list[str]:
    """First objective upwards, second to the right, third as colour."""
    names = list(objectives)[:3]
    return names if len(names) > 1 else [*names, "cost_s"]


def _number(trial: Mapping[str, Any], name: str) -> float | None:
    value = trial["cost_s"] if name == "cost_s" else trial["metrics"].get(name)
    return float(value) if isinstance(value, int | float) else None


def _scatter(
    figure: Figure, axes: Axes, trials: Sequence[Mapping[str, Any]], names: list[str],
    feasible: set[int], best: list[int],
) -> None:  # fmt: skip
    up, right, *colour = names
    mode = normalisation_among(map(_mode, trials))
    infeasible = [t for t in trials if t["id"] not in feasible]
    others = [t for t in trials if t["id"] in feasible]
    axes.scatter(*_xy(infeasible, right, up), marker="x", color=RED, s=26, label="breaks a limit")
    if colour and others:
        shades = [_number(t, colour[0]) or 0.0 for t in others]
        dots = axes.scatter(*_xy(others, right, up), c=shades, cmap="viridis", s=36, zorder=3)
        figure.colorbar(dots, ax=axes, label=_label(colour[0], mode), fraction=0.045)
    else:
        axes.scatter(*_xy(others, right, up), color=GREY, s=36, zorder=3)
    chosen = [t for t in trials if t["id"] in best]
    axes.scatter(
        *_xy(chosen, right, up), s=95, facecolors="none", edgecolors=BLUE, linewidths=1.6,
        zorder=4, label="on the front",
    )  # fmt: skip
    for trial in chosen[:LABELLED]:
        at = (_number(trial, right) or 0.0, _number(trial, up) or 0.0)
        mark = f"{trial['id']} {_mode(trial)}" if mode == MIXED else str(trial["id"])
        axes.annotate(mark, at, (6, 5), textcoords="offset points", fontsize=8)
    values = [v for t in trials if (v := _number(t, right)) is not None]
    if values and min(values) > 0 and max(values) / min(values) > LOG_FACTOR:
        axes.set_xscale("log")
    axes.set_xlabel(_label(right, mode))
    axes.set_ylabel(_label(up, mode))
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8, loc="best")


def _xy(
    trials: Sequence[Mapping[str, Any]], right: str, up: str
) -> tuple[list[float], list[float]]:
    xs = [_number(t, right) or 0.0 for t in trials]
    return xs, [_number(t, up) or 0.0 for t in trials]


def _mode(trial: Mapping[str, Any]) -> str:
    return normalisation_of(trial["metrics"], trial["config"])


def _label(name: str, mode: str) -> str:
    metric = METRICS.get(name)
    unit = f" ({metric.unit})" if metric is not None and metric.unit else ""
    return f"{named(name, mode)}{unit}"
