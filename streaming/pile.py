"""Rows that come a few at a time and are written many at once."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

MOST_SMALL = 16
"""After so many tables they become one: thousands of small ones take long to write and to free, all at once."""


class Pile:
    """Tables of one schema, one behind another; put together a few at a time while they come."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._small: list[pa.Table] = []
        self.row_count = 0

    def add(self, table: pa.Table) -> None:
        """Have rows behind all others."""
        self.row_count += len(table)
        self._small.append(table)
        if len(self._small) >= MOST_SMALL:
            self._tables.append(pa.concat_tables(self._small).combine_chunks())
            self._small.clear()

    def take(self) -> list[pa.Table]:
        """Everything, in order; other rows come from now on."""
        taken = [*self._tables, *self._small]
        self._tables, self._small, self.row_count = [], [], 0
        return taken

    def give_back(self, tables: Sequence[pa.Table]) -> None:
        """Have what was taken last before all that came since."""
        self._tables = [*tables, *self._tables]
        self.row_count += sum(map(len, tables))
