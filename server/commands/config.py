"""`waypost config`: what the settings are and where they come from."""

from __future__ import annotations

import dataclasses

import typer

from server.commands.options import AsJson
from server.commands.output import reports_errors, say_json, table

app = typer.Typer(help="Settings.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Settings come from defaults, then WAYPOST_* variables, then options."""


@app.command("show")
@reports_errors
def show(as_json: AsJson = False) -> None:
    """Print every setting, its value and its source; passwords are hidden.

    Example: `WAYPOST_PARTITIONS=8 waypost config show`
    """
    from server.config import PREFIX, describe, load_settings

    rows = describe(load_settings())
    if as_json:
        say_json([dataclasses.asdict(row) for row in rows])
    else:
        cells = [(PREFIX + row.name.upper(), row.value or "–", row.source) for row in rows]
        table("Settings", ("variable", "value", "source"), cells, folded="value")
