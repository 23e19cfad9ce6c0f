"""Feature values, timestamps and join keys as Arrow columns, the types that the offline log has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from decision.schema import JoinKey, Value, ValueType, View
from online.keys import US_PER_SECOND, EntityKeys
from online.words import join_spans
from streaming.windows.read import Column

IntArray = npt.NDArray[np.int64]

TIMESTAMP = pa.timestamp("us", tz="UTC")
_SCALARS: dict[ValueType, pa.DataType] = {
    ValueType.BYTES: pa.binary(),
    ValueType.STRING: pa.string(),
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.FLOAT: pa.float32(),
    ValueType.BOOL: pa.bool_(),
    ValueType.UNIX_TIMESTAMP: TIMESTAMP,
}
_TEXTS = ("JSON", "UUID", "TIME_UUID", "DECIMAL")
_SCALARS |= {ValueType[name]: pa.string() for name in _TEXTS}


def arrow_type(value_type: ValueType) -> pa.DataType:
    """The Parquet column type of a Feast value type; sets are stored as lists.

    Raises:
        ValueError: The type has no column of its own (maps, structs, nested collections, zoned instants).
    """
    element = _SCALARS.get(value_type)
    if element is not None:
        return element
    name = value_type.name.removesuffix("_LIST").removesuffix("_SET")
    scalar = _SCALARS.get(ValueType[name]) if name in ValueType.__members__ else None
    if scalar is None or name == value_type.name:
        raise ValueError(f"{value_type.name} has no column type in the offline log")
    return pa.list_(scalar)


@cache
def value_type_of(kind: pa.DataType) -> ValueType:
    """A value type that has such a column.

    Raises:
        ValueError: None has.
    """
    for value_type in ValueType:
        with suppress(ValueError):
            if arrow_type(value_type) == kind:
                return value_type
    raise ValueError(f"{kind} is no column type of the offline log")


def view_schema(view: View) -> pa.Schema:
    """Columns of a view's offline log: join keys, features, event timestamp, and when the row became readable.

    They go by the names that the view's source gives them, so that Feast reads them as it reads the rest of it.
    """
    columns = [(key.name, arrow_type(key.value_type)) for key in view.join_keys]
    columns += [(feature.name, arrow_type(feature.value_type)) for feature in view.features]
    columns += [(view.timestamp_column, TIMESTAMP), (view.created_column, TIMESTAMP)]
    return pa.schema([(view.source_column(name), kind) for name, kind in columns])


class KeyColumns:
    """Join keys of entities as columns.

    Args:
        keys: Their join keys.
        data: Entity keys, one after another.
        at: Where each begins; one more at the end.

    Raises:
        KeyEncodingError: A key is of another entity or project.
    """

    def __init__(self, keys: EntityKeys, data: bytes, at: IntArray) -> None:
        self._data = data
        self._first, self._stop = keys.split(data, at)
        self._places = {key.name: place for place, key in enumerate(keys.join_keys)}

    @staticmethod
    def of(keys: EntityKeys, entities: Sequence[bytes]) -> KeyColumns:
        """Those of entity keys given one by one."""
        at = np.zeros(len(entities) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, entities), dtype=np.int64, count=len(entities)), out=at[1:])
        return KeyColumns(keys, b"".join(entities), at)

    def column(self, key: JoinKey) -> pa.Array:
        """The values of one join key."""
        place = self._places[key.name]
        column = slice(place, place + 1)
        first, stop = (
            np.ascontiguousarray(self._first[:, column]),
            np.ascontiguousarray(self._stop[:, column]),
        )
        values, begins, _ = join_spans(np.frombuffer(self._data, dtype=np.uint8), first, stop)
        kind = arrow_type(key.value_type)
        if key.value_type in {ValueType.STRING, ValueType.BYTES}:
            return pa.Array.from_buffers(
                kind, len(first), [None, _offsets(begins, len(values)), pa.py_buffer(values)]
            )
        if key.value_type is ValueType.INT32:
            return pa.array(values.view("<i4"), type=kind)
        numbers = values.view("<i8")
        if key.value_type is ValueType.UNIX_TIMESTAMP:
            return timestamp_array(numbers * US_PER_SECOND)
        return pa.array(numbers, type=kind)


def _offsets(begins: IntArray, stop: int) -> pa.Buffer:
    return pa.py_buffer(np.append(begins, stop).astype(np.int32))


def column_array(column: Column, kind: pa.DataType) -> pa.Array:
    """Values of a feature as a column."""
    if column.offsets is not None:
        return pa.ListArray.from_arrays(pa.array(column.offsets), pa.array(column.values)).cast(kind)
    values = column.values.view("datetime64[us]") if kind == TIMESTAMP else column.values
    return pa.array(values, type=kind, mask=column.null if column.null.any() else None)


def value_array(values: Sequence[Value], kind: pa.DataType) -> pa.Array:
    """Plain values as a column: timestamps are microseconds since the epoch, None is NULL."""
    if pa.types.is_timestamp(kind):
        return pa.array(values, type=pa.int64()).cast(kind)
    return pa.array(values, type=kind)


def plain_values(column: pa.ChunkedArray) -> list[Value]:
    """A column of the offline log as plain values, the other way round."""
    if column.type == TIMESTAMP:
        column = column.cast(pa.int64())
    elif column.type == pa.list_(TIMESTAMP):
        column = column.cast(pa.list_(pa.int64()))
    values: list[Value] = column.to_pylist()
    return values


def timestamp_array(micros: IntArray) -> pa.Array:
    """Microseconds since the epoch as a timestamp column."""
    return pa.Array.from_buffers(TIMESTAMP, len(micros), [None, pa.py_buffer(np.ascontiguousarray(micros))])
