"""`waypost bench`: measurements, each rival in the same run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

from server.commands.output import fail, reports_errors, say, status, table
from server.measurement import Bound, Measurement, Report, Results, machine, markdown, splice


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


@reports_errors
def bench(
    name: Annotated[str, typer.Argument(help="Which measurement; modules of loadtest/bench.")],
    file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
    docs: Annotated[
        Path | None, typer.Option(help="Put the tables into this page, where it has a place for them.")
    ] = None,
    given: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing: show the results in this file.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a stated bound is missed.")] = False,
    events: Annotated[
        int | None,
        typer.Option(min=1_000, help="How many events, for a measurement that takes a number of them."),
    ] = None,
) -> None:
    """Run one measurement and show what it found, rivals and stated bounds beside it.

    Example: `waypost bench rules --json rules.json`
    """
    measurement = _measurement(name)
    results = (
        _run(name, measurement, events) if given is None else json.loads(given.read_text(encoding="utf-8"))
    )
    report = measurement.report(results)
    _show(report, results)
    if file is not None:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {file}")
    if docs is not None:
        page = docs.read_text(encoding="utf-8")
        docs.write_text(splice(page, name, markdown(report, results)), encoding="utf-8")
        say(f"wrote the tables into {docs}")
    missed = [bound for bound in report.bounds if not bound.holds]
    if missed and check:
        raise fail("missed: " + "; ".join(map(_missed, missed)))


def _measurement(name: str) -> Measurement:
    module = f"loadtest.bench.{name}"
    if name.isidentifier() and importlib.util.find_spec(module) is not None:
        found = importlib.import_module(module)
        if hasattr(found, "run"):
            return cast("Measurement", found)
    raise fail(f"there is no measurement {name!r}: see loadtest/bench", 2)


def _run(name: str, measurement: Measurement, events: int | None) -> Results:
    if events is None:
        return measurement.run(status)
    if "event_count" not in inspect.signature(measurement.run).parameters:
        raise fail(f"the measurement {name!r} takes no number of events", 2)
    return cast("Callable[..., Results]", measurement.run)(status, event_count=events)


def _show(report: Report, results: Results) -> None:
    for shown in report.all_tables():
        table(shown.title, shown.columns, shown.rows, folded=shown.columns[0])
    for line in (*report.notes, f"Measured on {machine(results)}."):
        say(line)


def _missed(bound: Bound) -> str:
    what, value, limit, _ = bound.words
    return f"{what} is {value}, must be {limit}"
