"""Trials that all fail in the same way, which ends a sweep: each next one would too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.rundir import RunDir

SAME_FAILURES = 3
"""So many failures of one kind, and nothing else, end a sweep; our default."""


@dataclass
class Alike:
    """Trials that ended one after the other, while nothing but the same failure came of them."""

    count: int = 0
    kind: str = ""
    last: tuple[int, Mapping[str, Any]] | None = None  # number and failure, while all are alike
    broken: bool = False

    def ended(self, number: int, failure: Mapping[str, Any] | None) -> None:
        """Count one more; one that did not fail has no failure."""
        told = failure or {"kind": "", "reason": ""}
        kind = f"{told['kind']}: {re.sub(r'[0-9.]+', '#', told['reason'])}"
        self.broken |= failure is None or (self.count > 0 and kind != self.kind)
        self.count, self.kind = self.count + 1, kind
        self.last = None if self.broken or failure is None else (number, failure)

    def said(self, run: RunDir) -> str:
        """Say so, once there are enough; an empty string before, or where it is not so."""
        if self.last is None or self.count < SAME_FAILURES:
            return ""
        number, failure = self.last
        return (
            f"The first {self.count} trials all failed in the same way "
            f"({failure['kind']}: {failure['reason']}). The traceback is in "
            f"{run.trial(number) / 'error.txt'}."
        )
