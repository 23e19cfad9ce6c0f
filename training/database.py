"""The DuckDB connection that a set is built in, and how text gets into its SQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

MEMORY_LIMIT = "2GB"


@contextmanager
def database(thread_count: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty in-memory database, UTC, with bounded memory and threads."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": thread_count,
        "memory_limit": MEMORY_LIMIT,
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def quoted(identifier: str) -> str:
    """An identifier as SQL reads it: `a"b` becomes `"a""b"`."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"
