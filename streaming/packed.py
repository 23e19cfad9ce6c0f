"""Rows of one batch as bytes: cheap to make, to keep and to write down, and made Arrow when they are many.

A batch of the stream has a few rows of each view. As an Arrow table of their own they cost more than what was computed
of them, and thousands of such tables hold up whatever comes when they are freed. So the columns of a batch are copied
behind one another as they lie, under a head that says where each ends, and a table is made of thousands at once.

A part is `MARK`, five int64 (its size, number of rows, logical time, creation time, and the size of what follows), the
layout of its columns as JSON, an int64 for the size of each span, and the spans (`streaming/packed_columns.py`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import groupby, islice, pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from decision.schema import JoinKey, ValueType, View
from online.keys import EntityKeys
from online.words import ByteArray, join_spans
from streaming.arrow import KeyColumns, arrow_type, timestamp_array
from streaming.errors import StreamingError
from streaming.packed_columns import Given, Packing, Texts, lengths_of, packing

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MARK = b"wprows1\n"
"""What a part begins with; another layout of the bytes gets another."""
PIECE_BYTES = 2**20
"""About how much becomes a table at once: whoever computes meanwhile waits for no single step of it."""
_PREFIX = struct.Struct("<8s5q")
_SIZE, _ROWS, _AT, _CREATED = 1, 2, 3, 4
"""Their places in the head, counted in words of 8 bytes."""
_WORD_BYTES = 8
_Span = TypeVar("_Span", bytes, ByteArray)
_ENTITIES = Texts(pa.binary())


class Source(IntEnum):
    """Where the values of a column lie."""

    VALUES = 0
    JOIN_KEY = 1
    """In the entities' keys."""
    AT = 2
    """They are the part's logical time."""
    CREATED = 3
    """They are the time at which the part was made."""


_PLACES = {Source.AT: _AT, Source.CREATED: _CREATED}


class Field(NamedTuple):
    """A column of the table that packed rows become.

    Attributes:
        join_key: Which one it is of; empty for values.
    """

    name: str
    kind: ValueType
    source: Source = Source.VALUES
    join_key: str = ""


class _Head(NamedTuple):
    """What a part begins with."""

    mark: bytes
    size: int
    row_count: int
    at_us: int
    created_us: int
    text_size: int


class Layout:
    """The columns of packed rows.

    Args:
        fields: Columns of the table.
        keys: What keys of entities are made of; None where no column lies in them.
        has_entities: Whether it is kept whose each row is.
    """

    def __init__(
        self, fields: Sequence[Field], keys: EntityKeys | None = None, *, has_entities: bool = False
    ) -> None:
        self._fields = tuple(fields)
        self._keys = keys
        self.has_entities = has_entities
        self.schema = pa.schema([(field.name, arrow_type(field.kind)) for field in fields])
        self._packings = tuple(packing(arrow_type(f.kind)) for f in fields if f.source is Source.VALUES)
        self.text = self._text()
        self._packed = (_ENTITIES, *self._packings) if has_entities else self._packings
        self._span_count = sum(column.span_count for column in self._packed)
        self._sizes = struct.Struct(f"<{self._span_count}q")
        self._head_size = _PREFIX.size + len(self.text) + self._sizes.size

    @staticmethod
    def of_view(view: View, keys: EntityKeys) -> Layout:
        """The columns of a view's offline log (`streaming.arrow.view_schema`), values those of its features."""
        named = view.source_column
        instant = ValueType.UNIX_TIMESTAMP
        return Layout(
            [
                *(Field(named(k.name), k.value_type, Source.JOIN_KEY, k.name) for k in view.join_keys),
                *(Field(named(feature.name), feature.value_type) for feature in view.features),
                Field(named(view.timestamp_column), instant, Source.AT),
                Field(named(view.created_column), instant, Source.CREATED),
            ],
            keys,
            has_entities=True,
        )

    def _text(self) -> bytes:
        keys = self._keys
        said = [
            None if keys is None else [keys.project, [(key.name, key.value_type) for key in keys.join_keys]],
            self.has_entities,
            self._fields,
        ]
        text = json.dumps(said, separators=(",", ":")).encode()
        return text.ljust(-(-len(text) // _WORD_BYTES) * _WORD_BYTES)

    @staticmethod
    @lru_cache(1024)
    def parse(text: bytes) -> Layout:
        """Read what `text` says."""
        keys, has_entities, fields = json.loads(text)
        return Layout(
            [Field(name, ValueType(kind), Source(source), key) for name, kind, source, key in fields],
            None
            if keys is None
            else EntityKeys(
                keys[0], [JoinKey(name=name, value_type=ValueType(kind)) for name, kind in keys[1]]
            ),
            has_entities=has_entities,
        )

    def pack(
        self,
        row_count: int,
        columns: Iterable[Given],
        *,
        entities: Sequence[bytes] | None = None,
        rows: IntArray | None = None,
        at_us: int = 0,
        created_us: int = 0,
    ) -> bytes:
        """Make a part.

        Args:
            row_count: Its rows.
            columns: Of the fields that are values, in order.
            entities: Whose the rows are.
            rows: Which rows of the columns to take; None for all.
            at_us: Logical time.
            created_us: Wall time.
        """
        spans = [] if entities is None else _ENTITIES.pack(entities)
        for column, given in zip(self._packings, columns, strict=True):
            spans += column.pack(given, rows)
        return self._joined(row_count, at_us, created_us, spans)

    def _joined(self, row_count: int, at_us: int, created_us: int, spans: Sequence[bytes]) -> bytes:
        sizes = [*map(len, spans)]
        size = self._head_size + sum(sizes)
        prefix = _PREFIX.pack(MARK, size, row_count, at_us, created_us, len(self.text))
        return b"".join((prefix, self.text, self._sizes.pack(*sizes), *spans))

    def spans(self, part: bytes) -> list[bytes]:
        """The spans of one part."""
        place, spans = self._head_size, []
        for size in self._sizes.unpack_from(part, place - self._sizes.size):
            spans.append(part[place : place + size])
            place += size
        return spans

    def keep(self, part: bytes, kept: BoolArray) -> bytes:
        """Those rows of a part that are kept."""
        head, spans, made = _head(part), iter(self.spans(part)), list[bytes]()
        for column in self._packed:
            made += column.keep(_taken(spans, column), kept)
        return self._joined(int(kept.sum()), head.at_us, head.created_us, made)

    def table(self, parts: Sequence[bytes]) -> pa.Table:
        """The rows of parts of this layout, one part behind another."""
        heads = np.frombuffer(b"".join([part[: self._head_size] for part in parts]), dtype=np.int64)
        heads = heads.reshape(len(parts), -1)
        spans = self._joined_spans(heads, parts)
        keys = None
        if self.has_entities:
            lengths, data = _taken(spans, _ENTITIES)
            if self._keys is not None:
                keys = KeyColumns(self._keys, data.tobytes(), lengths_of(lengths)[1])
        packings = iter(self._packings)
        columns = []
        for field in self._fields:
            if field.source is Source.VALUES:
                column = next(packings)
                columns.append(column.array(_taken(spans, column)))
            elif field.source is Source.JOIN_KEY:
                assert keys is not None
                columns.append(keys.column(JoinKey(name=field.join_key, value_type=field.kind)))
            else:
                columns.append(timestamp_array(np.repeat(heads[:, _PLACES[field.source]], heads[:, _ROWS])))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _joined_spans(self, heads: IntArray, parts: Sequence[bytes]) -> Iterator[ByteArray]:
        """Each span, that of all parts."""
        data = np.frombuffer(b"".join(parts), dtype=np.uint8)
        sizes = np.ascontiguousarray(heads[:, heads.shape[1] - self._span_count :].T)
        begins = np.cumsum(heads[:, _SIZE]) - heads[:, _SIZE] + self._head_size
        first = begins + np.cumsum(sizes, axis=0) - sizes
        stop = first + sizes
        for span in range(self._span_count):
            yield join_spans(data, first[span : span + 1], stop[span : span + 1])[0]


def row_count(part: bytes) -> int:
    """How many rows a part has."""
    return _head(part).row_count


def entities_of(part: bytes) -> list[bytes]:
    """Whose the rows of a part are."""
    lengths, data, *_ = _layout(part).spans(part)
    places = lengths_of(lengths)[1].tolist()
    return [data[first:stop] for first, stop in pairwise(places)]


def without(part: bytes, gone: Collection[bytes]) -> bytes:
    """A part without the rows of some entities."""
    kept = np.array([entity not in gone for entity in entities_of(part)], dtype=np.bool_)
    return part if kept.all() else _layout(part).keep(part, kept)


def split(data: bytes) -> list[bytes]:
    """Parts that stand one behind another."""
    parts = []
    while data:
        size = _head(data).size
        parts.append(data[:size])
        data = data[size:]
    return parts


def tables(parts: Iterable[bytes]) -> Iterator[pa.Table]:
    """The rows of parts, in order; each table of about `PIECE_BYTES`, and of one layout."""
    for layout, own in groupby(parts, key=_layout):
        piece, size = list[bytes](), 0
        for part in own:
            piece.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                yield layout.table(piece)
                piece, size = [], 0
        if piece:
            yield layout.table(piece)


def _head(part: bytes) -> _Head:
    if part[: len(MARK)] != MARK:
        raise StreamingError(f"{part[: len(MARK)]!r}… are no rows of this version: go on with a later one")
    return _Head(*_PREFIX.unpack_from(part))


def _layout(part: bytes) -> Layout:
    return Layout.parse(part[_PREFIX.size : _PREFIX.size + _head(part).text_size])


def _taken(spans: Iterator[_Span], column: Packing) -> list[_Span]:
    return list(islice(spans, column.span_count))
