from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from search._tune import Reporter, died

if TYPE_CHECKING:
    from pathlib import Path

KILLED = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory"
GONE = "The actor is dead because its node has died. Node Id: 1f"
CRASHED = "The actor died unexpectedly before finishing this task."


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (KILLED, "out of memory"),
        (GONE, "node lost"),
        (CRASHED, "process died"),
        ("", "process died"),
    ],
)
def test_a_death_has_a_kind(text: str, kind: str) -> None:
    found, reason = died(text)
    assert found == kind
    assert reason in (text, "its process ended without a word")


@pytest.mark.parametrize(("text", "halvings"), [(KILLED, 2), (GONE, None), (CRASHED, None)])
def test_only_a_trial_that_ran_out_of_memory_goes_on_smaller(
    tmp_path: Path, text: str, halvings: int | None
) -> None:
    (tmp_path / "error.txt").write_text(text)
    trial = cast("Any", SimpleNamespace(config={"id": 0}, error_file=str(tmp_path / "error.txt")))
    reporter = Reporter(cast("Any", None), tick=lambda: None)
    for _ in range(2):
        reporter.on_trial_recover(1, [trial], trial)
    assert trial.config.get("halvings") == halvings
