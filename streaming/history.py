"""Past events, brought into the form that the stream's events have: all at once, or some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from streaming.arrow import TIMESTAMP
from streaming.errors import SourceFileError
from streaming.events import EventSchema, PropertyType
from streaming.numbering import repeated
from streaming.spill import Spill, part_of, text_hashes
from streaming.windows.batch import microseconds

EVENTS_AT_ONCE = 250_000
"""About so many events of the past are in memory."""
NO_TIME_US = int(np.iinfo(np.int64).min)

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
    frame = _frame(_typed(table, schema))
    frame = frame.sort_values(["event_time", "event_id"], kind="stable", ignore_index=True)
    return frame.loc[~_repeated(frame)].reset_index(drop=True)


def _typed(table: pa.Table, schema: EventSchema) -> pa.Table:
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
    return typed


def _frame(typed: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = typed.to_pandas(types_mapper=_NULLABLE.get)
    return frame


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


Seen = Callable[[int], None]
"""Told how many events were seen."""


@dataclass(frozen=True)
class Past:
    """Past events that are taken some at a time, each (customer, event id) once.

    Attributes:
        count: How many there are, repeated ones included.
        reading: Looks through all of them; gives the time of the last one in microseconds, and the frames that
            transformations take, in any order. It gets a folder for temporary files.
        at_once: About how many events a frame has.
    """

    count: int
    reading: Callable[[Path, Seen], AbstractContextManager[tuple[int, Iterator[pd.DataFrame]]]]
    at_once: int = EVENTS_AT_ONCE

    @staticmethod
    def of_frame(frame: pd.DataFrame, at_once: int = EVENTS_AT_ONCE) -> Past:
        """Events in memory, columns as in `streaming.frame.events_frame`, each once."""
        newest_us = int(microseconds(frame["event_time"]).max(initial=NO_TIME_US))
        starts = range(0, len(frame), at_once)
        return Past(
            count=len(frame),
            reading=lambda _folder, _seen: nullcontext(
                (
                    newest_us,
                    (frame.iloc[at : at + at_once].reset_index(drop=True) for at in starts),
                )
            ),
            at_once=at_once,
        )

    @staticmethod
    def of_file(path: Path, schema: EventSchema, at_once: int = EVENTS_AT_ONCE) -> Past:
        """Events of a Parquet file, as `history_frame` takes them; reading them raises what that raises.

        Raises:
            OSError: If there is no such file.
        """
        # Folders around a single file name nothing of it.
        partitioning = "hive" if path.is_dir() else None
        file = _PastFile(ds.dataset(path, format="parquet", partitioning=partitioning), schema, at_once)
        return Past(file.count, file.reading, at_once)


class _PastFile:
    def __init__(self, source: ds.Dataset, schema: EventSchema, at_once: int) -> None:
        self.count = source.count_rows()
        self._source = source
        self._schema = schema
        self._at_once = at_once

    @contextmanager
    def reading(self, folder: Path, seen: Seen) -> Iterator[tuple[int, Iterator[pd.DataFrame]]]:
        """Put the events apart, so that all that one id names lie together, and take them so."""
        count, newest_us = 0, NO_TIME_US
        with Spill(folder, max(1, round(self.count / self._at_once))) as spill:
            for table in self._tables():
                typed = _typed(table, self._schema).combine_chunks()
                newest_us = max(newest_us, pc.max(typed["event_time"].cast(pa.int64())).as_py())
                for batch in typed.to_batches():
                    spill.add(batch, part_of(_hashes(batch), spill.part_count))
                count += len(table)
                seen(count)
            yield newest_us, self._frames(spill)

    def _frames(self, spill: Spill) -> Iterator[pd.DataFrame]:
        for part in range(spill.part_count):
            if spill.row_count(part):
                yield _frame(_distinct(pa.Table.from_batches(spill.read(part)).combine_chunks()))

    def _tables(self) -> Iterator[pa.Table]:
        for fragment in self._source.get_fragments():
            named = ds.get_partition_keys(fragment.partition_expression)
            # The scanner of a fragment has a row group in memory, and a file may be a single one.
            with pq.ParquetFile(fragment.path, pre_buffer=False) as file:
                for batch in file.iter_batches(self._at_once):
                    if not batch.num_rows:
                        continue
                    table = pa.Table.from_batches([batch])
                    for name, value in named.items():
                        table = table.append_column(name, pa.repeat(value, len(table)))
                    yield table


def _hashes(events: pa.RecordBatch | pa.Table) -> npt.NDArray[np.uint64]:
    columns = [events["customer_id"], events["event_id"]]
    return text_hashes([c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns])


def _distinct(table: pa.Table) -> pa.Table:
    """Of events with the same customer and id the first by event time."""
    hashes = _hashes(table)
    _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(sizes[group] > 1)
    if not len(suspects):
        return table
    some = table.select(["customer_id", "event_id", "event_time"]).take(pa.array(suspects)).to_pandas()
    some = some.sort_values(["event_time", "event_id"], kind="stable")
    kept = np.ones(len(table), dtype=np.bool_)
    kept[suspects[some.index[_repeated(some)].to_numpy()]] = False
    return table.filter(pa.array(kept))


def _repeated(events: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which events are of the same customer and id as one before them."""
    return repeated(*(events[name].to_numpy(dtype=object) for name in ("customer_id", "event_id")))
