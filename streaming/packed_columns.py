"""One column of rows as spans of bytes: a few copies to make, and many rows' spans put together are a column again."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from online.words import ByteArray, join_spans
from streaming.arrow import column_array
from streaming.windows.read import Column

AnyArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Given = Column | Sequence[Any]
"""Values of a column: as the windows give them, or in Python, None for NULL."""


class Packing(Protocol):
    """How a column of one type is packed.

    Attributes:
        span_count: Spans that a column takes; each is that of the rows one after another.
    """

    @property
    def span_count(self) -> int: ...

    def pack(self, column: Given, rows: IntArray | None = None) -> list[bytes]:
        """The spans of a column; of some rows alone where `rows` names them."""

    def keep(self, spans: Sequence[bytes], kept: BoolArray) -> list[bytes]:
        """The spans of those rows that are kept."""

    def array(self, spans: Sequence[ByteArray]) -> pa.Array:
        """The column."""


class Numbers:
    """Numbers, bools and instants: the values, filler where NULL, and a byte each that says whether it is NULL."""

    span_count = 2

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._dtype = np.dtype(np.int64 if pa.types.is_timestamp(kind) else kind.to_pandas_dtype())
        self._given = np.dtype(np.float64) if pa.types.is_floating(kind) else self._dtype

    def pack(self, column: Given, rows: IntArray | None = None) -> list[bytes]:
        if not isinstance(column, Column):
            column = self._column(column)
        values, null = column.values, column.null
        if rows is not None:
            values, null = values[rows], null[rows]
        if values.dtype != self._dtype:
            with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as online
                values = values.astype(self._dtype)
        return [values.tobytes(), null.tobytes()]

    def _column(self, values: Sequence[Any]) -> Column:
        filled = [0 if value is None else value for value in values]
        null = np.array([value is None for value in values], dtype=np.bool_)
        return Column(np.array(filled, dtype=self._given), null)

    def keep(self, spans: Sequence[bytes], kept: BoolArray) -> list[bytes]:
        values, null = spans
        return [
            np.frombuffer(values, dtype=self._dtype)[kept].tobytes(),
            np.frombuffer(null, dtype=np.bool_)[kept].tobytes(),
        ]

    def array(self, spans: Sequence[ByteArray]) -> pa.Array:
        values, null = spans
        return column_array(Column(values.view(self._dtype), null.view(np.bool_)), self._kind)


class Texts:
    """Texts and bytes: the length of each, -1 for NULL, and the bytes, those of texts in UTF-8."""

    span_count = 2

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._is_text = pa.types.is_string(kind)

    def pack(self, column: Given, rows: IntArray | None = None) -> list[bytes]:
        items = _items(column, rows)
        if self._is_text:
            items = [None if item is None else item.encode() for item in items]
        if None in items:
            lengths = array("i", [-1 if item is None else len(item) for item in items])
            return [lengths.tobytes(), b"".join([item for item in items if item is not None])]
        return [array("i", map(len, items)).tobytes(), b"".join(items)]

    def keep(self, spans: Sequence[bytes], kept: BoolArray) -> list[bytes]:
        lengths, ends = lengths_of(spans[0])
        first, stop = ends[:-1][kept], ends[1:][kept]
        data, _, _ = join_spans(np.frombuffer(spans[1], dtype=np.uint8), first[None], stop[None])
        return [lengths[kept].tobytes(), data.tobytes()]

    def array(self, spans: Sequence[ByteArray]) -> pa.Array:
        lengths, ends = lengths_of(spans[0])
        null = lengths < 0
        valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
        buffers = [valid, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(spans[1])]
        return pa.Array.from_buffers(self._kind, len(lengths), buffers)


class Lists:
    """Lists: the length of each, -1 for NULL, and what the column of all their items takes."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._items = packing(kind.value_type)
        self.span_count = 1 + self._items.span_count

    def pack(self, column: Given, rows: IntArray | None = None) -> list[bytes]:
        lists = _items(column, rows)
        lengths = array("i", [-1 if own is None else len(own) for own in lists])
        items = list(chain.from_iterable([own for own in lists if own is not None]))
        return [lengths.tobytes(), *self._items.pack(items)]

    def keep(self, spans: Sequence[bytes], kept: BoolArray) -> list[bytes]:
        lengths, ends = lengths_of(spans[0])
        return [lengths[kept].tobytes(), *self._items.keep(spans[1:], np.repeat(kept, np.diff(ends)))]

    def array(self, spans: Sequence[ByteArray]) -> pa.Array:
        lengths, ends = lengths_of(spans[0])
        null = lengths < 0
        return pa.ListArray.from_arrays(
            pa.array(ends.astype(np.int32)),
            self._items.array(spans[1:]),
            type=self._kind,
            mask=pa.array(null) if null.any() else None,
        )


@cache
def packing(kind: pa.DataType) -> Packing:
    """How a column of an Arrow type that the offline log has is packed."""
    if pa.types.is_list(kind):
        return Lists(kind)
    return Texts(kind) if pa.types.is_string(kind) or pa.types.is_binary(kind) else Numbers(kind)


def _items(column: Given, rows: IntArray | None) -> Sequence[Any]:
    items = column.to_list() if isinstance(column, Column) else column
    return items if rows is None else [items[row] for row in rows.tolist()]


def lengths_of(span: bytes | ByteArray) -> tuple[AnyArray, IntArray]:
    """Lengths of texts or lists, -1 for NULL, and where each begins among what follows; one more at the end."""
    lengths = np.frombuffer(span, dtype=np.int32)
    ends = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(np.maximum(lengths, 0), out=ends[1:])
    return lengths, ends
