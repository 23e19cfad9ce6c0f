"""How commands speak: tables and colour for people, JSON for machines, one line and a code for errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from online.errors import OnlineStoreError
from server.errors import ServerError
from streaming.errors import StreamingError

REFUSED = 1
UNREACHABLE = 3
_RULES = 3
"""Characters between two columns of a table."""
_LEAST_FOLDED = 20
"""Characters of a column that may be folded; with fewer nobody can read it."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""What a terminal would obey rather than show; ids and details of events come from outside."""
_LINES = {code: said for code, said in _CONTROLS.items() if chr(code) not in "\t\n"}
_ESCAPES = {code: f"\\u{code:04x}" for code in _CONTROLS if code >= 0x7F}
"""Those that JSON leaves as they are."""

P = ParamSpec("P")
R = TypeVar("R")

# Without emoji: `shop:key:7` is an id, and has no picture in it.
console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


def say(text: str = "") -> None:
    """A line for people, as it is, but that control characters are spelt out; so everywhere here."""
    console.print(text.translate(_LINES), markup=False, highlight=False, soft_wrap=True)


def status(text: str) -> None:
    """A line on how far a long command is; apart from its output."""
    errors.print(text.translate(_LINES), markup=False, highlight=False, soft_wrap=True, style="dim")


def say_json(value: object) -> None:
    """A value for machines."""
    typer.echo(json_text(value, indent=2))


def json_text(value: object, *, indent: int | None = None) -> str:
    """A value for machines, as text that does nothing to a terminal."""
    return json.dumps(value, indent=indent, ensure_ascii=False).translate(_ESCAPES)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, folded: str) -> None:
    """A table for people; where it is too wide, the column `folded` is folded and the others stay whole.

    Where they leave it no room, each row is a line, with what was to be folded below.
    """
    lines = [[cell.translate(_CONTROLS) for cell in row] for row in rows]
    place = list(columns).index(folded)
    whole = [*columns[:place], *columns[place + 1 :]]
    cells = [(*row[:place], *row[place + 1 :]) for row in lines]
    width = sum(max(map(cell_len, column)) for column in zip(whole, *cells, strict=True))
    if width + _RULES * len(columns) + _LEAST_FOLDED > console.width:
        say(title)
        for row, others in zip(lines, cells, strict=True):
            say("  ".join(others))
            say(f"    {row[place]}")
        return
    grid = Table(title=Text(title.translate(_CONTROLS), style="table.title"), title_justify="left")
    for column in columns:
        grid.add_column(column, overflow="fold", no_wrap=column != folded)
    for row in lines:
        grid.add_row(*map(Text, row))
    console.print(grid)


def hint(message: str) -> None:
    """Say something beside the answer, where it does not get into the way of machines."""
    errors.print(message.translate(_LINES), markup=False, highlight=False, soft_wrap=True, style="yellow")


def fail(message: str, code: int = REFUSED) -> typer.Exit:
    """Say what went wrong; raise what this returns."""
    errors.print(message.translate(_LINES), markup=False, highlight=False, soft_wrap=True, style="red")
    return typer.Exit(code)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn this program's own errors, and those of the way to the store, into a message and exit code 1."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ServerError, StreamingError, OnlineStoreError) as error:
            raise fail(str(error)) from error
        except OSError as error:
            raise fail(
                f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
            ) from error
        except Exception as error:
            said = _told_of_store(error)
            if said is None:
                raise
            raise fail(said) from error

    return guarded


def _told_of_store(error: Exception) -> str | None:
    """What is said of a command that the store left unanswered or does not allow; None of any other error.

    A store that answered when it was looked at may be gone or load its file by the next command.
    """
    import redis

    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return f"the store does not answer: {error}"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"the store refuses: {error}; docs/operations.md says what its users must be allowed"
    if isinstance(error, redis.exceptions.OutOfMemoryError | redis.exceptions.ReadOnlyError):
        return f"the store takes no writes for now: {error}"
    return None
