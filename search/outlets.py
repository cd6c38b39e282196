"""How the command speaks and ends: what goes to standard output, and which code means what."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from search.errors import FailedError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

DONE, FAILED, WRONG_INPUT = 0, 1, 2


def echo(text: str, *, to_stderr: bool = False) -> None:
    """Write one line to standard output, or to standard error."""
    click.echo(text, err=to_stderr)


def console() -> Console:
    """Return where tables are printed; rich is imported only then."""
    from rich.console import Console  # noqa: PLC0415

    screen = Console()
    if not screen.is_terminal:
        screen.width = 120  # a file has no width of its own
    return screen


def write_json(document: object) -> None:
    """Write one JSON document to standard output; numbers that JSON does not know become null."""
    click.echo(json.dumps(_plain(document), indent=2, allow_nan=False, ensure_ascii=False))


@contextlib.contextmanager
def tidy_stdout() -> Iterator[None]:
    """Send to standard error whatever the work inside prints, so that output stays one document."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def end(command: Callable[[], Any], *, debug: bool) -> NoReturn:
    """Run a command and end the process: 0 done, 2 wrong input, 1 anything else.

    Args:
        command: The command; an int that it returns is its exit code.
        debug: Whether to show the traceback of an unexpected error.
    """
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()
        raise SystemExit(FAILED) from None
    except BaseException as error:  # noqa: BLE001 - the last place that can word it
        raise SystemExit(_report(error, debug=debug)) from None
    raise SystemExit(code if isinstance(code, int) else DONE)


def _report(error: BaseException, *, debug: bool) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        echo("Stopped.", to_stderr=True)
        return FAILED
    if isinstance(error, click.ClickException):
        error.show(sys.stderr)
        return WRONG_INPUT
    if debug:
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, (FailedError, *_user_errors())):
        echo(f"Error: {error}", to_stderr=True)
        return FAILED if isinstance(error, FailedError) else WRONG_INPUT
    said = " ".join(str(error).split()) or "it gave no reason"
    hint = "" if debug else " Run it again as `fewtune --debug ...` to see where."
    echo(f"Unexpected {type(error).__name__}: {said.rstrip('.')}.{hint}", to_stderr=True)
    return FAILED


def _user_errors() -> tuple[type[BaseException], ...]:
    """Return the errors that blame the input; a module not loaded cannot have raised one."""
    homes = {
        "spaces._domains": "SpaceError",
        "trainables._data.dataset": "DataError",
        "trainables._learner": "ConfigError",
        "trainables._core.lease": "LeaseError",
    }
    loaded = [
        getattr(sys.modules[home], name) for home, name in homes.items() if home in sys.modules
    ]
    return (UserError, *loaded)


def _leave_pipe() -> None:
    """Point standard output nowhere, so that flushing it at exit does not raise again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
