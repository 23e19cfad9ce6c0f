"""Rows on disk, put apart by number, for what does not fit into memory at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.spill_kernels import hash_texts

IntArray = npt.NDArray[np.int64]
_SMALL = 2**16


@dataclass(frozen=True, slots=True)
class _Segment:
    offset: int
    size: int
    rows: int


class Spill:
    """Record batches of one schema in a file that has no name, so that nothing of it outlives the process.

    Args:
        folder: Where the file lies; made where it is not there.
        part_count: Into how many parts rows are put.
    """

    def __init__(self, folder: Path, part_count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` ends it
        self._segments: list[list[_Segment]] = [[] for _ in range(part_count)]
        self._schema: pa.Schema | None = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the room on the disk back."""
        self._file.close()

    @property
    def part_count(self) -> int:
        """How many parts there are."""
        return len(self._segments)

    @property
    def size_bytes(self) -> int:
        """How much was written."""
        return self._end

    def add(self, batch: pa.RecordBatch, parts: IntArray) -> None:
        """Put each row into the part of that number, in order."""
        part_count = len(self._segments)
        if part_count == 1:
            self.append(batch, 0)
            return
        order, starts = apart(parts, part_count)
        self.append_runs(batch.take(pa.array(order)), starts)

    def append_runs(self, batch: pa.RecordBatch, starts: IntArray) -> None:
        """Put rows that lie by part: part `p` takes `starts[p]` to `starts[p + 1]`."""
        for part in np.flatnonzero(np.diff(starts)).tolist():
            first, stop = int(starts[part]), int(starts[part + 1])
            self.append(batch.slice(first, stop - first), part)

    def append(self, batch: pa.RecordBatch, part: int) -> None:
        """Put rows into one part."""
        self._schema = self._schema or batch.schema
        assert batch.schema.equals(self._schema), f"{batch.schema} is not {self._schema}"
        data = batch.serialize()
        self._file.write(memoryview(data))
        self._segments[part].append(_Segment(self._end, data.size, batch.num_rows))
        self._end += data.size

    def row_count(self, part: int) -> int:
        """How many rows a part has."""
        return sum(segment.rows for segment in self._segments[part])

    def read(self, part: int) -> Iterator[pa.RecordBatch]:
        """A part as it was put in, piece by piece, in order."""
        self._file.flush()
        for segment in self._segments[part]:
            data = os.pread(self._file.fileno(), segment.size, segment.offset)
            if len(data) < segment.size:
                raise OSError(f"{len(data)} bytes of a temporary file where {segment.size} were written")
            yield pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)


def apart(parts: IntArray, part_count: int) -> tuple[IntArray, IntArray]:
    """Rows in the order of their parts, and where each part begins, one more at the end."""
    # numpy sorts numbers of 16 bits by radix
    order = np.argsort(parts.astype(np.uint16) if part_count <= _SMALL else parts, kind="stable")
    starts = np.zeros(part_count + 1, dtype=np.int64)
    np.cumsum(np.bincount(parts, minlength=part_count), out=starts[1:])
    return order, starts


def text_hashes(columns: Sequence[pa.Array]) -> npt.NDArray[np.uint64]:
    """64 bits for each row of columns of texts or bytes without nulls."""
    out = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        wide = column.cast(pa.large_binary())
        _, places, data = wide.buffers()
        at = np.frombuffer(places, dtype=np.int64)[wide.offset : wide.offset + len(wide) + 1].copy()
        texts = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
        hash_texts(texts, at, out)
    return out


def part_of(hashes: npt.NDArray[np.uint64], part_count: int) -> IntArray:
    """The part of each hash."""
    return (hashes % np.uint64(part_count)).astype(np.int64)


def packed(table: npt.NDArray[Any]) -> pa.Array:
    """A table of numbers as a column, a row of bytes each."""
    wide = np.ascontiguousarray(table)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(wide.shape[1] * wide.itemsize), len(wide), [None, pa.py_buffer(wide)]
    )


def unpacked(column: pa.Array, dtype: npt.DTypeLike, width: int) -> npt.NDArray[Any]:
    """The inverse of `packed`."""
    data = np.frombuffer(column.buffers()[1], dtype=dtype)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(len(column), width)
