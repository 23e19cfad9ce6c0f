"""A file of past events, brought into the form that the stream's events have."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from streaming.errors import SourceFileError
from streaming.events import EventSchema, PropertyType
from streaming.sink import TIMESTAMP

ENVELOPE: dict[str, pa.DataType] = {
    "event_id": pa.string(),
    "event_type": pa.string(),
    "customer_id": pa.string(),
    "event_time": TIMESTAMP,
}
_TYPES: dict[PropertyType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": TIMESTAMP,
}
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def history_frame(table: pa.Table, schema: EventSchema) -> pd.DataFrame:
    """Past events as the frame that transformations take, each (customer, event id) once, in order of event time.

    Args:
        table: Columns `event_id`, `event_type`, `customer_id`, `event_time` (with a zone) and properties; a property
            that no row has may be left out, and integers may stand for `customer_id`.
        schema: The repo's event types.

    Raises:
        SourceFileError: If a column is missing, unknown or of another type, or an event type is not declared.
    """
    kinds = ENVELOPE | {name: _TYPES[kind] for name, kind in schema.property_types.items()}
    unknown = sorted(set(table.column_names) - set(kinds))
    if unknown:
        raise SourceFileError(
            f"column {unknown[0]!r} is no property of any event type; declare it or leave it out"
        )
    typed = pa.table({name: _column(table, name, kind) for name, kind in kinds.items()})
    for name in ENVELOPE:
        if typed[name].null_count:
            raise SourceFileError(
                f"column {name!r} has {typed[name].null_count} empty values; every event needs one"
            )
    undeclared = sorted(set(pc.unique(typed["event_type"]).to_pylist()) - set(schema.types))
    if undeclared:
        raise SourceFileError(f"event type {undeclared[0]!r} is not declared in events.yaml")
    frame: pd.DataFrame = typed.to_pandas(types_mapper=_NULLABLE.get)
    frame = frame.sort_values(["event_time", "event_id"], kind="stable", ignore_index=True)
    return frame.drop_duplicates(["customer_id", "event_id"], ignore_index=True)


def _column(table: pa.Table, name: str, kind: pa.DataType) -> Any:
    if name not in table.column_names:
        if name in ENVELOPE:
            raise SourceFileError(f"there is no column {name!r}; every event needs one")
        return pa.nulls(table.num_rows, kind)
    column = table[name]
    if kind == TIMESTAMP and (not pa.types.is_timestamp(column.type) or column.type.tz is None):
        raise SourceFileError(
            f"column {name!r} is {column.type}; it must be a timestamp with a zone, such as UTC"
        )
    try:
        # Files written by pandas carry nanoseconds; what lies below a microsecond is dropped.
        return column.cast(kind, safe=kind != TIMESTAMP)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceFileError(f"column {name!r} is {column.type} and not {kind}: {error}") from error
