"""`waypost check`: features, events, policy and models of a repo, judged together."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.commands.options import AsJson, Repo
from server.commands.output import REFUSED, reports_errors, say, say_json
from server.wording import sized

if TYPE_CHECKING:
    from server.checking import Report
    from server.errors import Problem


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


@reports_errors
def check(
    repo: Repo = None,
    customers: Annotated[
        int, typer.Option(min=1, help="How many customers to forecast the store for.")
    ] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Validate a repo: every finding with file, line, column and caret.

    A repo without errors is told what each entity takes in the store, its features and state: after a single event,
    and with events in every hop of its windows.

    Exit code 0: it can be served (warnings may be printed); 1: it cannot, or something in it cannot work; 2: wrong
    usage. The last line says which.

    Example: `waypost check --repo feature_repo`
    """
    from server.checking import check_repo
    from server.config import load_settings

    settings = load_settings(repo=repo)
    report = check_repo(settings.repo, settings.partitions)
    if as_json:
        say_json(_as_json(report, customers))
    else:
        _print(report, customers)
    if not report.ok:
        raise typer.Exit(REFUSED)


def plain(problem: Problem) -> Problem:
    """The problem with its file named once and without pointers to pages about the library that found it."""
    prefix = re.compile(rf"^(\S*/)?{re.escape(problem.file)}: ") if problem.file else None
    lines = [line for line in problem.message.splitlines() if "errors.pydantic.dev" not in line]
    texts = [prefix.sub("", line) if prefix else line for line in lines]
    return dataclasses.replace(problem, message="\n  ".join(texts))


def _print(report: Report, customers: int) -> None:
    for problem in report.problems:
        say(f"error: {plain(problem)}")
    for problem in report.warnings:
        say(f"warning: {plain(problem)}")
    if report.findings:
        say(report.rendered)
    say(report.summary)
    if report.forecast:
        say("in the store, features and state, of a quiet entity to a busy one:")
    for told in report.forecast:
        line = f"  {told.kind}: {sized(told.least_bytes)} to {sized(told.busy_bytes)}"
        if told.is_customer:
            whole = f"{sized(told.least_bytes * customers)} to {sized(told.busy_bytes * customers)}"
            line += f"; {customers:,} of them: {whole}"
        if told.most_bytes > told.busy_bytes:
            line += (
                f"; up to some {sized(told.most_bytes)} each where values that are counted are chosen for it"
            )
        say(line)


def _as_json(report: Report, customers: int) -> dict[str, Any]:
    problems = [
        {"severity": severity, "code": "repo", "message": item.message, "file": item.file, "line": item.line}
        for severity, items in (("error", report.problems), ("warning", report.warnings))
        for item in map(plain, items)
    ]
    findings = [
        {
            "severity": item.severity.value,
            "code": item.code,
            "message": item.message,
            "suggestion": item.suggestion,
            "file": item.span.file,
            "line": item.span.line,
            "column": item.span.column,
        }
        for item in report.findings
    ]
    store = [
        {
            "entity": told.kind,
            "least_bytes": told.least_bytes,
            "busy_bytes": told.busy_bytes,
            "most_bytes": told.most_bytes,
            "count": customers if told.is_customer else None,
        }
        for told in report.forecast
    ]
    return {"ok": report.ok, "findings": [*problems, *findings], "summary": report.summary, "store": store}
