"""Pushed rows on their way into the offline log: one Parquet part per view for all pushes that wait together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from decision.schema import Value, ValueType, View
from online.write import RowWrite
from server.errors import ConditionError
from server.feast.encoding import micros_of
from server.feast.entities import key_column
from server.feast.plain import python_of
from server.feast.protos import Value as ValueMessage
from server.feast.pushed import Pushed
from streaming.arrow import value_array, view_schema
from streaming.sink import parts_folder, write_part

Row = tuple[Value, ...]


@dataclass(slots=True)
class _Batch:
    """Rows that one write takes along."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)


class OfflineLog:
    """Appends rows to the folders that views' batch sources read; a row is on disk when `append` returns.

    Args:
        now_us: When a row became readable: its `created`.
    """

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._next: tuple[_Batch, asyncio.Task[None]] | None = None
        self._writing = asyncio.Lock()

    async def append(self, view: View, writes: Sequence[RowWrite], rows: Pushed) -> None:
        """Log rows of one view.

        Raises:
            ConditionError: The view's batch source is no folder of Parquet parts, or holds a type that those cannot.
            OSError: The part cannot be written.
        """
        refuse_unlogged(view)
        if not writes:
            return
        logged = _rows(view, writes, rows, self._now_us())
        if self._next is None:
            batch = _Batch()
            self._next = batch, asyncio.create_task(self._flush(batch))
        batch, task = self._next
        batch.views[view.name] = view
        batch.rows.setdefault(view.name, []).extend(logged)
        await asyncio.shield(task)  # a caller that leaves takes nobody's rows with it

    async def _flush(self, batch: _Batch) -> None:
        async with self._writing:
            self._next = None
            await asyncio.to_thread(_write, batch, self._now_us())


def _write(batch: _Batch, now_us: int) -> None:
    for name, rows in batch.rows.items():
        view = batch.views[name]
        schema = view_schema(view)
        columns = [
            value_array(list(column), item.type)
            for column, item in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        table = pa.Table.from_arrays(columns, schema=schema)
        write_part(parts_folder(view), f"push-{now_us}-{secrets.token_hex(4)}", table)


def refuse_unlogged(view: View) -> None:
    """Refuse a view whose rows cannot be logged."""
    try:
        parts_folder(view)
        view_schema(view)
    except ValueError as error:
        raise ConditionError(
            "VIEW_NOT_WRITABLE", f"not logged offline: {error}", {"view": view.name}
        ) from error


def _rows(view: View, writes: Sequence[RowWrite], rows: Pushed, now_us: int) -> list[Row]:
    keys = [key_column(rows, key.name, key) for key in view.join_keys]
    cells = [list(write.values.values()) for write in writes]
    plain = [
        tuple(_logged(feature.value_type, cell) for feature, cell in zip(view.features, row, strict=True))
        for row in cells
    ]
    return [
        (*(column[index] for column in keys), *plain[index], write.event_us, now_us)
        for index, write in enumerate(writes)
    ]


def _logged(value_type: ValueType, cell: bytes) -> Value:
    if not cell:
        return None
    plain: Value = _plain(value_type, python_of(ValueMessage.FromString(cell)))
    return plain


def _plain(value_type: ValueType, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list | set):
        return [_plain(value_type, item) for item in value]
    if value_type.name.startswith("UNIX_TIMESTAMP"):
        return micros_of(value)
    return value if isinstance(value, bool | int | float | str | bytes) else str(value)
