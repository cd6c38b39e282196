"""The report's main figures as files, for papers and slides: PNG and SVG, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search.figures import BLUE, GREY, LABELLED, RED, front_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from search.results import RunResults

SHOWN = 12  # parameters in the picture of importances
COLOURS = (BLUE, RED, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
MARKS = "osD^vP"
HATCHES = ("", "//", "..", "xx")  # told apart in grey too
IN_CELLS = 60  # cells that a number is written into


def write_stills(results: RunResults, document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write each figure that the run has something for, as PNG and as SVG.

    Args:
        results: The run.
        document: What ``findings`` returned of it.
        folder: Where to; made where there is none.

    Returns:
        The files.
    """
    figures = {
        "front": front_figure(results) if document["metrics"] else None,
        "importances": importances(document["importances"]),
        "patterns": patterns(document),
        "thresholds": thresholds(document["thresholds"]),
        "hypervolume": growth(document["cost"]["history"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for kind in ("png", "svg") if figure is not None else ():
            assert figure is not None
            file = folder / f"{name}.{kind}"
            figure.savefig(
                file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
            )
            written.append(file)
    return written


def importances(found: Mapping[str, Any]) -> Figure | None:
    """Draw the share of each parameter in each objective; None where too few trials say."""
    if "of" not in found:
        return None
    most: dict[str, float] = {}
    for shares in found["of"].values():
        for name, share in shares.items():
            most[name] = max(share, most.get(name, 0.0))
    names = sorted(most, key=lambda name: most[name])[-SHOWN:]
    figure, axes = _empty(1.5 + 0.4 * len(names))
    height = 0.8 / len(found["of"])
    for index, (objective, shares) in enumerate(found["of"].items()):
        axes.barh(
            [y + height * index for y in range(len(names))],
            [100 * shares.get(name, 0.0) for name in names],
            height, label=objective, color=COLOURS[index % len(COLOURS)],
            hatch=HATCHES[index % len(HATCHES)], edgecolor="white",
        )  # fmt: skip
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(names))], names)
    axes.set_xlabel(f"share (%); among the best {100 * found['share']:.0f} % of the trials")
    axes.legend(fontsize=8)
    return figure


def patterns(document: Mapping[str, Any]) -> Figure | None:
    """Draw the table of the first trial of the front that left one, accuracy beside time."""
    tables = document["tables"]["of"]
    if not tables:
        return None
    return table_figure(*next(iter(tables.items())))


def table_figure(trial: int | str, rows: Sequence[Sequence[Any]]) -> Figure | None:
    """Draw a table, accuracy beside time; None where it has neither.

    Args:
        trial: Whose it is.
        rows: Pattern, step, accuracy, milliseconds and tasks of each entry that was scored.
    """
    shares = [(r[0], r[1], 100 * r[2]) for r in rows if r[2] is not None]
    times = [(r[0], r[1], r[3]) for r in rows if r[3] is not None]
    grids = [(shares, "accuracy (%)", "viridis"), (times, "adapt_ms (ms)", "cividis")]
    known = [grid for grid in grids if grid[0]]
    if not known:
        return None
    figure = Figure(figsize=(4.5 * len(known), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (cells, title, colours) in enumerate(known, 1):
        heat(figure.add_subplot(1, len(known), index), cells, title, colours)
    figure.suptitle(f"trial {trial}: patterns and inner steps", fontsize=10)
    return figure


def heat(axes: Axes, cells: list[tuple[str, int, float]], title: str, colours: str) -> None:
    """Draw values over pattern and step; what was not scored stays empty.

    Args:
        axes: Where to.
        cells: Pattern, inner step, value.
        title: Of the colours.
        colours: A colour map of matplotlib.
    """
    names = sorted({pattern for pattern, _, _ in cells})
    steps = sorted({step for _, step, _ in cells})
    grid = [[float("nan")] * len(steps) for _ in names]
    for pattern, step, value in cells:
        grid[names.index(pattern)][steps.index(step)] = value
    low, high = (end(value for _, _, value in cells) for end in (min, max))
    image = axes.imshow(grid, cmap=colours, aspect="auto", origin="lower")
    if len(names) * len(steps) <= IN_CELLS:
        for pattern, step, value in cells:
            dark = value < low + 0.6 * (high - low)
            axes.text(steps.index(step), names.index(pattern), f"{value:.3g}", ha="center",
                      va="center", fontsize=7, color="white" if dark else "black")  # fmt: skip
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.set_yticks(range(len(names)), names, family="monospace", fontsize=7)
    axes.set_xlabel("inner steps")
    axes.figure.colorbar(image, ax=axes, label=title, fraction=0.045)


def thresholds(found: Mapping[str, Any]) -> Figure | None:
    """Draw what each model loses and saves over all thresholds; None where no table says."""
    if "models" not in found:
        return None
    figure, axes = _empty(4.6)
    for index, model in enumerate(found["models"][:LABELLED]):
        points = [(c["adapt_ms_full"] - c["adapt_ms"], 100 * c["quality_drop"])
                  for c in model["choices"]]  # fmt: skip
        axes.plot(*zip(*points, strict=True), marker=MARKS[index % len(MARKS)],
                  color=COLOURS[index % len(COLOURS)], label=f"trial {model['trial']}")  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("milliseconds saved")
    axes.set_ylabel("accuracy lost (points)")
    axes.legend(fontsize=8)
    return figure


def growth(rows: list[dict[str, Any]]) -> Figure | None:
    """Draw the hypervolume over the trials that ended; None below two of them."""
    if len(rows) < 2:
        return None
    figure, axes = _empty(3.6)
    axes.step([r["trials"] for r in rows], [r["hypervolume"] for r in rows], where="post",
              color=BLUE)  # fmt: skip
    axes.set_xlabel("trials ended")
    axes.set_ylabel("hypervolume")
    return figure


def _empty(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes
