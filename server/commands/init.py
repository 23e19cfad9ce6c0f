"""`waypost init`: a small repo to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.commands.output import reports_errors, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


@reports_errors
def init(folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Write a small repo that can be served at once.

    Example: `waypost init my_repo && waypost up --repo my_repo`
    """
    from server.scaffold import write_repo

    for path in write_repo(folder):
        say(f"wrote {path}")
    say(f"next: waypost check --repo {folder}; waypost up --repo {folder}")
