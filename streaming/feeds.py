"""What a backfill makes of events, on disk until its entities' turn has come.

Rows of one entity are all in one part, and a part is about as many rows as fit into memory. Where an entity has more
than that, its part is taken in slices of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.spill import Spill, apart, packed, part_of, text_hashes, unpacked
from streaming.windows.inputs import Inputs, Prepared
from streaming.windows.plan import Carrier, WindowPlan

IntArray = npt.NDArray[np.int64]
_TYPES: dict[Carrier, pa.DataType] = {
    Carrier.FLOAT: pa.float64(),
    Carrier.INT: pa.int64(),
    Carrier.BOOL: pa.bool_(),
    Carrier.STRING: pa.large_string(),
    Carrier.BYTES: pa.large_binary(),
    Carrier.TIME: pa.int64(),
}
_KEY = "key"
_CODE = "code"
TIME = "event_us"
SAMPLE = 1_000
"""Times looked at for each slice of a part."""


class Feed:
    """Rows of entities, put apart by entity.

    Args:
        folder: For temporary files.
        part_count: Into how many parts.
    """

    def __init__(self, folder: Path, part_count: int) -> None:
        self._folder = folder
        self.part_count = part_count
        with ExitStack() as stack:
            self._keys = stack.enter_context(Spill(folder, part_count))
            self._rows = stack.enter_context(Spill(folder, part_count))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Give the room on the disk back."""
        self._stack.close()

    def add(self, keys: Sequence[bytes], codes: IntArray, rows: pa.RecordBatch) -> None:
        """Take rows in.

        Args:
            keys: Distinct entity keys, each with a row.
            codes: Index into `keys` for each row.
            rows: With the column `event_us`.
        """
        if not len(codes):
            return
        named = pa.array(keys, type=pa.binary())
        part = part_of(text_hashes([named]), self.part_count)
        key_order, key_starts = apart(part, self.part_count)
        place = np.empty(len(keys), dtype=np.int64)
        place[key_order] = np.arange(len(keys)) - np.repeat(key_starts[:-1], np.diff(key_starts))
        row_order, row_starts = apart(part[codes], self.part_count)
        self._keys.append_runs(pa.record_batch([named.take(pa.array(key_order))], names=[_KEY]), key_starts)
        coded = rows.append_column(_CODE, pa.array(place[codes]))
        self._rows.append_runs(coded.take(pa.array(row_order)), row_starts)

    def append(self, keys: pa.RecordBatch, rows: pa.RecordBatch, parts: IntArray) -> None:
        """Take rows in as they are on disk, into the parts of these numbers; each part gets all of the keys."""
        for part in np.unique(parts).tolist():
            self._keys.append(keys, part)
        self._rows.add(rows, parts)

    def row_count(self, part: int) -> int:
        """How many rows a part has."""
        return self._rows.row_count(part)

    def read(self, part: int) -> Iterator[tuple[list[bytes], IntArray, pa.RecordBatch]]:
        """A part, piece by piece, in the order in which it came: keys, codes and rows as they were given to `add`."""
        for keys, rows in zip(self._keys.read(part), self._rows.read(part), strict=True):
            yield keys[_KEY].to_pylist(), rows[_CODE].to_numpy(), rows

    def edges(self, part: int, slice_count: int) -> IntArray:
        """Times, ascending, that cut a part into so many slices of about as many rows each, or fewer."""
        step = max(1, self.row_count(part) // (SAMPLE * slice_count))
        times = [rows[TIME].to_numpy()[::step] for rows in self._rows.read(part)]
        sample = np.sort(np.concatenate(times))
        return np.unique(sample[[len(sample) * number // slice_count for number in range(1, slice_count)]])

    def sliced(self, part: int, edges: IntArray) -> Feed:
        """A part's rows, put apart by time: slice `i` holds what is before `edges[i]`, the last one the rest."""
        made = Feed(self._folder, len(edges) + 1)
        try:
            for keys, rows in zip(self._keys.read(part), self._rows.read(part), strict=True):
                made.append(keys, rows, np.searchsorted(edges, rows[TIME].to_numpy(), side="right"))
        except BaseException:
            made.close()
            raise
        return made


class Numbers:
    """Numbers of entity keys, by first appearance."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._number)

    @property
    def keys(self) -> list[bytes]:
        """The keys in the order of their numbers."""
        return list(self._number)

    def of(self, keys: Sequence[bytes]) -> IntArray:
        """The number of each key; new ones are added."""
        number = self._number
        return np.fromiter((number.setdefault(key, len(number)) for key in keys), np.int64, len(keys))


def window_rows(plan: WindowPlan, rows: Prepared) -> pa.RecordBatch:
    """Prepared rows as columns; `prepared_rows` reads them back."""
    inputs = rows.inputs
    columns: dict[str, pa.Array] = {TIME: pa.array(rows.event_us)}
    if plan.ordered:
        columns["event_id"] = pa.array(rows.event_ids, type=pa.large_string())
    if inputs.valid.shape[1]:
        columns["valid"] = packed(inputs.valid)
    if inputs.lanes.shape[1]:
        columns["lanes"] = packed(inputs.lanes)
    for (column, carrier), values in inputs.carried.items():
        empty = inputs.valid[:, column] == 0
        columns[f"carried {column} {carrier}"] = pa.array(values, type=_TYPES[carrier], mask=empty)
    for column, values in inputs.hashes.items():
        columns[f"hashes {column}"] = pa.array(values)
    return pa.record_batch(columns)


def prepared_rows(plan: WindowPlan, entity: IntArray, pieces: Sequence[pa.RecordBatch]) -> Prepared:
    """What `window_rows` made of pieces, as one; rows have these entities."""

    def joined(read: Any) -> Any:
        return np.concatenate([read(piece) for piece in pieces])

    def table(name: str, dtype: npt.DTypeLike, width: int) -> Any:
        if not width:
            return np.empty((len(entity), 0), dtype=dtype)
        return joined(lambda piece: unpacked(piece[name], dtype, width))

    ids: list[str] = []
    if plan.ordered:
        ids = [event_id for piece in pieces for event_id in piece["event_id"].to_pylist()]
    return Prepared(
        entity=entity,
        event_us=joined(lambda piece: piece[TIME].to_numpy()),
        event_ids=ids,
        inputs=Inputs(
            valid=table("valid", np.uint8, len(plan.columns)),
            lanes=table("lanes", np.int64, len(plan.lanes)),
            carried={
                (column, carrier): joined(
                    lambda piece, name=f"carried {column} {carrier}": _values(piece[name])
                )
                for column, carrier in plan.carried
            },
            hashes={
                each.column: joined(lambda piece, name=f"hashes {each.column}": piece[name].to_numpy())
                for each in plan.distincts
            },
        ),
    )


def _values(column: pa.Array) -> npt.NDArray[Any]:
    """Values of a carried column; filler where NULL."""
    if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type):
        filled = column
    else:
        filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    values: npt.NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return values
