"""What the user did wrong, said in finished sentences, and the nearest right word."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


OUT_OF_MEMORY = "out of memory"
"""The kind of failure that a sampler learns from."""


class UserError(Exception):
    """The user's input was wrong; the message is what they are shown, exit code 2."""


class FailedError(RuntimeError):
    """The work itself came to nothing; the message is what the user is shown, exit code 1."""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a file or on the command line.

    Attributes:
        line: Line in the file, from 1; 0 where there is none.
        place: Where it is, as ``space.student.width``; may be empty.
        sentence: What must hold, what was found, what would be right.
        flag: The command-line option it came from, where it did not come from the file.
    """

    line: int
    place: str
    sentence: str
    flag: str = ""

    def text(self) -> str:
        """Write ``line 4, data.ways: ...`` or ``--set data.ways=x: ...``."""
        where = [self.flag] if self.flag else [f"line {self.line}"] if self.line else []
        if self.place and not self.flag.removeprefix("--set ").startswith(f"{self.place}="):
            where.append(self.place)
        return f"{', '.join(where)}: {self.sentence}" if where else self.sentence


def raise_problems(source: str, problems: Sequence[Problem]) -> None:
    """Raise one ``UserError`` that lists every problem, in the order of the file.

    Raises:
        UserError: There is at least one problem.
    """
    if not problems:
        return
    ordered = sorted(set(problems), key=lambda p: (bool(p.flag), p.line, p.place, p.sentence))
    if len(ordered) == 1:
        raise UserError(f"{source}: {ordered[0].text()}")
    lines = "\n".join(f"  {problem.text()}" for problem in ordered)
    raise UserError(f"{source} has {len(ordered)} errors:\n{lines}")


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that a misspelt word most likely means, if there is one.

    The last part of a dotted name counts by itself too, so that ``width`` finds ``student.width``.

    Example:
        >>> nearest("student.widht", ["student.width", "student.depth"])
        'student.width'
        >>> nearest("temperature", ["distillation.temperature", "epsilon"])
        'distillation.temperature'
        >>> nearest("xyz", ["student.width"]) is None
        True
    """
    names = list(options)
    folded = {name.lower().replace("-", "_"): name for name in names}
    wanted = word.lower().replace("-", "_")
    close = get_close_matches(wanted, folded, n=1, cutoff=0.6)
    if close:
        return folded[close[0]]
    tails = {name.rsplit(".", 1)[-1]: full for name, full in reversed(list(folded.items()))}
    close = get_close_matches(wanted.rsplit(".", 1)[-1], tails, n=1, cutoff=0.75)
    return tails[close[0]] if close else None


def suggest(word: str, options: Iterable[str]) -> str:
    """Say the nearest right word, or list them all where none is near.

    Example:
        >>> suggest("acuracy", ["accuracy", "adapt_ms"])
        'Did you mean accuracy?'
        >>> suggest("xyz", ["accuracy", "adapt_ms"])
        'There are accuracy, adapt_ms.'
    """
    names = list(options)
    guess = nearest(word, names)
    return f"Did you mean {guess}?" if guess else f"There are {', '.join(names)}."
