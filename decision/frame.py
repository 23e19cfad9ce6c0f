"""The values that a decision is made on: one block for the customer, one for the candidates.

A block is columnar. Every cell has a value, a status and an event time; only PRESENT and STALE cells carry a value,
and a NaN is NULL. What is missing stays missing: nothing here invents a default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from decision.errors import FrameError
from decision.schema import Status, Value

_CARRIES_VALUE = frozenset({Status.PRESENT, Status.STALE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Features over rows, column-major.

    Attributes:
        rows: Names of the rows: the offers of the candidates' block; the customer's block has one row, of any name.
        names: Names of the columns as `view.feature`.
        values: `values[column][row]`.
        statuses: As `values`.
        event_us: As `values`: event time in microseconds since the epoch, 0 where nothing is stored.

    Raises:
        FrameError: If the shapes disagree or a name occurs twice.
    """

    rows: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    statuses: tuple[tuple[Status, ...], ...]
    event_us: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(set(self.rows)) != len(self.rows) or len(set(self.names)) != len(self.names):
            raise FrameError("names of rows and of columns must be unique in a block")
        for part in (self.values, self.statuses, self.event_us):
            self._check_shape(part)

    def _check_shape(self, part: tuple[tuple[object, ...], ...]) -> None:
        if len(part) != len(self.names) or any(len(column) != len(self.rows) for column in part):
            raise FrameError(
                f"a block of {len(self.names)} columns and {len(self.rows)} rows has another shape"
            )

    @classmethod
    def empty(cls, rows: tuple[str, ...]) -> Block:
        """A block without columns, as where nothing needs to be read."""
        return cls(rows=rows, names=(), values=(), statuses=(), event_us=())

    def clean_rows(self) -> dict[str, dict[str, Value]]:
        """Values by row and column name, NULL where a cell carries no value."""
        rows: dict[str, dict[str, Value]] = {row: {} for row in self.rows}
        targets = tuple(rows.values())
        for name, values, statuses in zip(self.names, self.values, self.statuses, strict=True):
            for target, value, status in zip(targets, values, statuses, strict=True):
                target[name] = clean(value, status)
        return rows

    def view_statuses(self) -> Iterator[tuple[str, tuple[Status, ...]]]:
        """Each column's view with the column's statuses."""
        for name, statuses in zip(self.names, self.statuses, strict=True):
            yield view_of(name), statuses

    def newest_us_by_view(self) -> dict[str, int]:
        """Newest event time read of each view, 0 where nothing is stored."""
        newest: dict[str, int] = {}
        for name, column in zip(self.names, self.event_us, strict=True):
            view = view_of(name)
            newest[view] = max(newest.get(view, 0), max(column, default=0))
        return newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What was fetched for one decision.

    Attributes:
        customer: Exactly one row.
        candidates: One row per offer; offers without a row and columns that were left out read as NULL.

    Raises:
        FrameError: If the customer's block has not one row.
    """

    customer: Block
    candidates: Block

    def __post_init__(self) -> None:
        if len(self.customer.rows) != 1:
            raise FrameError(f"the customer's block must have one row, not {len(self.customer.rows)}")

    def customer_row(self) -> Mapping[str, Value]:
        """The customer's values by column name."""
        return self.customer.clean_rows()[self.customer.rows[0]]


def clean(value: Value, status: Status) -> Value:
    """The value that rules and models see: NULL unless the cell carries one, and NULL for NaN."""
    if status not in _CARRIES_VALUE or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def view_of(name: str) -> str:
    """The view of a canonical `view.feature`."""
    return name.partition(".")[0]
