"""A run as one HTML file that asks for nothing else: no network, no folder beside it.

The page's own policy (``default-src 'none'``) has the browser refuse any request, so that a report
can be sent to someone, or opened on a device, and tells nobody that it was.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING

from search._plotly import script
from search.contents import contents
from search.errors import UserError
from search.figures import front_png
from search.results import load_results

if TYPE_CHECKING:
    from typing import Any

FILE = "report.html"
_STILL = '<img class="still" alt="the trials and their front" src="data:image/png;base64,%s">'
_PARTS = Path(__file__).parent


def report(run: Path, out: Path | None = None, figures: Path | None = None) -> list[Path]:
    """Write the report of a run, also while it goes on.

    Args:
        run: The run directory, as it is to be written in the report's commands.
        out: The HTML file; None: ``report.html`` in the run directory.
        figures: Where to write the main figures as PNG and SVG too; None: nowhere.

    Returns:
        The files written, the report first.

    Raises:
        UserError: The path is no run, it has no trial yet, or a file cannot be written.
    """
    results = load_results(run)
    if not results.trials:
        raise UserError(
            f"{run} has no trial yet, so there is nothing to report; `fewtune board {run}` shows "
            "how its first ones go on."
        )
    document = contents(results, str(run))
    still = front_png(results) if document["metrics"] else None
    file = out or results.run.path / FILE
    written = [file]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(document, still), encoding="utf-8")
        if figures is not None:
            from search.stills import write_stills  # noqa: PLC0415 - matplotlib, where asked for

            written += write_stills(results, document, figures)
    except OSError as error:
        place = error.filename or file
        raise UserError(
            f"The report cannot be written at {place}: {error.strerror}. Give another place with "
            "-o FILE (or --figures DIR)."
        ) from error
    return written


def page(document: dict[str, Any], still: bytes | None = None) -> str:
    """Return the HTML page of what ``contents`` returned.

    Args:
        document: What was found.
        still: A PNG of the front, to be seen until the figures can be drawn.
    """
    parts = {
        "title": html.escape(f"{document['head']['name']} - fewtune"),
        "style": _part("report.css"),
        "still": "" if still is None else _STILL % base64.b64encode(still).decode(),
        "findings": _embedded(document),
        "script": _part("report.js"),
        "plotly": script(),
    }
    text = _part("report.html")
    for name, part in parts.items():
        before, mark, after = text.partition(f"<!-- {name} -->")
        if not mark:
            raise RuntimeError(f"The template of the report has no place for {name}.")
        text = before + part + after
    return text


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _embedded(document: dict[str, Any]) -> str:
    """Write JSON that no browser takes for markup."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
