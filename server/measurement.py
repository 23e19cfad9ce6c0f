"""What a measurement is to the command line: a module that measures, and says what its numbers mean to people.

Everything that people read, on the terminal or in the docs, is made from the results alone, so tables can be made
again from a file of results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.errors import ServerError

Results = Mapping[str, Any]
"""What goes into the JSON file: numbers, texts, bools, None, and lists and dicts of these."""
Tell = Callable[[str], None]
"""Takes a line on what is being measured now."""


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers for people.

    Attributes:
        title: What the rows have in common.
        columns: Heads; the first names what a row is about.
        rows: Cells as text, as many as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that the measurement must reach.

    Attributes:
        what: What is bounded, in words.
        value: What was measured; None if it could not be.
        limit: What must be reached.
        unit: Stands behind both numbers, such as ` µs` or ` ×`.
        at_most: Whether the limit is an upper one.
    """

    what: str
    value: float | None
    limit: float
    unit: str = ""
    at_most: bool = True

    @property
    def holds(self) -> bool:
        """Whether it was reached; what was not measured was not reached."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def words(self) -> tuple[str, str, str, str]:
        """What, measured, required, and the verdict."""
        value = "not measured" if self.value is None else f"{self.value:,.4g}{self.unit}"
        sign = "≤" if self.at_most else "≥"
        return self.what, value, f"{sign} {self.limit:,.4g}{self.unit}", "yes" if self.holds else "NO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Results as people read them: tables, bounds, and notes on what is missing or needs a word."""

    tables: tuple[Table, ...]
    bounds: tuple[Bound, ...] = ()
    notes: tuple[str, ...] = ()

    def all_tables(self) -> Iterator[Table]:
        """The tables, the last of them the bounds."""
        yield from self.tables
        if self.bounds:
            head = ("bound", "measured", "must be", "holds")
            yield Table("Bounds", head, tuple(bound.words for bound in self.bounds))


class Measurement(Protocol):
    """A module of `loadtest.bench`."""

    def run(self, tell: Tell) -> Results:
        """Measure, which takes at most a few minutes; `environment` is among the results."""
        ...

    def report(self, results: Results) -> Report:
        """Put the results of a run in tables."""
        ...


def machine(results: Results) -> str:
    """One line on where the numbers come from."""
    env = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    return f"{env['cpu']}, {env['cores']} cores, allocator {env['allocator']}, Python {env['python']}, {versions}"


def markdown(report: Report, results: Results) -> str:
    """A report as a section of the docs."""
    parts = [f"Measured on {machine(results)}."]
    parts += [_markdown_table(table) for table in report.all_tables()]
    parts += report.notes
    return "\n\n".join(parts)


def _markdown_table(table: Table) -> str:
    lines = [table.columns, tuple("---:" if i else "---" for i in range(len(table.columns))), *table.rows]
    return f"**{table.title}**\n\n" + "\n".join(map(_markdown_row, lines))


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def splice(page: str, name: str, section: str) -> str:
    """The page with the measurement's section replaced.

    Raises:
        ServerError: If the page has no place for it.
    """
    begin, end = f"<!-- begin bench {name} -->", f"<!-- end bench {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ServerError(f"the page has no place for the tables: put the lines {begin} and {end} into it")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"
