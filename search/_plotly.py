"""The one door to Plotly: its script, to be written into a page that asks for nothing else."""

from __future__ import annotations

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]


def script() -> str:
    """Return plotly.js, whole: the Python package has no smaller build of it.

    Raises:
        RuntimeError: It would end the element that holds it.
    """
    text = str(get_plotlyjs())
    if "</script" in text.lower():
        raise RuntimeError("This plotly.js cannot be written into a page: it has </script in it.")
    return text
