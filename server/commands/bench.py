"""`waypost bench`: measurements, each rival in the same run."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer

from server.commands.output import fail, reports_errors, say, say_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


@reports_errors
def bench(
    name: Annotated[str, typer.Argument(help="Which measurement; modules of loadtest/bench.")],
    file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
) -> None:
    """Run one measurement and print what it found.

    Example: `waypost bench decide --json decide.json`
    """
    module = f"loadtest.bench.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module) is None:
        raise fail(f"there is no measurement {name!r}: see loadtest/bench", 2)
    results = importlib.import_module(module).run()
    if file is None:
        say_json(results)
    else:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {file}")
