"""What a read is asked of: rows of join keys, or the same as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decision.schema import Value

Row = Mapping[str, Value]


@dataclass(slots=True, eq=False)
class KeyColumns:
    """Rows as columns, which is cheaper where there are many; never changed, but not frozen, as `Replies`.

    Attributes:
        values: The join keys' values by name, one per row; other columns are ignored.
        count: Rows.
    """

    values: Mapping[str, Sequence[Value]]
    count: int

    def __len__(self) -> int:
        return self.count


Rows = Sequence[Row] | KeyColumns


def key_columns(rows: Rows, names: Sequence[str]) -> list[Sequence[Value]]:
    """Some columns of the rows; None where a row lacks one."""
    if isinstance(rows, KeyColumns):
        return [rows.values[name] if name in rows.values else [None] * len(rows) for name in names]
    return [[row.get(name) for row in rows] for name in names]
