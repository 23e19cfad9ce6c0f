"""The offline side: feature rows and events as Parquet parts, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from decision.schema import Value, ValueType, View
from streaming.advance import ViewValues
from streaming.windows.read import Column

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
ENTITY = "__entity"
"""Column of a batch's tables: the key of the row's entity; it stays out of Parquet."""
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


def view_schema(view: View) -> pa.Schema:
    """Columns of a view's offline log: join keys, features, `event_timestamp`, `created`."""
    columns = [(key.name, arrow_type(key.value_type)) for key in view.join_keys]
    columns += [(feature.name, arrow_type(feature.value_type)) for feature in view.features]
    columns += [(view.timestamp_column, TIMESTAMP), ("created", TIMESTAMP)]
    return pa.schema(columns)


def parts_folder(view: View) -> Path:
    """The folder that holds a view's parts.

    Raises:
        ValueError: If the view has no offline source that is a folder of parts.
    """
    path = Path(view.offline_path or "")
    if path.name != "*.parquet":
        message = (
            f"view {view.name}: its batch source must be a FileSource with a path like "
            f"data/offline/{view.name}/*.parquet "
            f"for its values to be logged, got {view.offline_path!r}"
        )
        raise ValueError(message)
    return path.parent


def source_files(view: View) -> list[Path]:
    """The files behind a view's offline source: one file, a folder of them, or a glob in its last part."""
    path = Path(view.offline_path or "")
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return sorted(path.parent.glob(path.name))


def write_part(folder: Path, name: str, table: pa.Table) -> None:
    """Write one Parquet part under a name; readers see all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{name}.{os.getpid()}.tmp"
    try:
        pq.write_table(table, unfinished, coerce_timestamps="us", compression="zstd")
        unfinished.replace(folder / f"{name}.parquet")
    finally:
        unfinished.unlink(missing_ok=True)


class BatchRows:
    """Collects the offline rows of one batch.

    Args:
        views: Views that have an offline log; rows of others are passed over.
        created_us: Wall time of the rows.
    """

    def __init__(self, views: Mapping[str, View], created_us: int) -> None:
        self._views = views
        self._created_us = created_us
        self._rows: dict[int, tuple[ViewValues, list[tuple[int, bytes, int]]]] = {}

    def add(self, shown: ViewValues, number: int, entity: bytes, at_us: int) -> None:
        """Log one row of a view's values, readable from logical time `at_us`."""
        if shown.plan.view.name in self._views:
            self._rows.setdefault(id(shown), (shown, []))[1].append((number, entity, at_us))

    def tables(self) -> dict[str, pa.Table]:
        """The rows by view; the last column, `ENTITY`, says whose they are."""
        tables: dict[str, list[pa.Table]] = {}
        for shown, rows in self._rows.values():
            tables.setdefault(shown.plan.view.name, []).append(_table(shown, rows, self._created_us))
        return {view: pa.concat_tables(parts) for view, parts in tables.items()}


class OfflineSink:
    """Collects the rows of one partition and writes them as one part per view.

    Not thread-safe. Rows are held in memory until `flush`; whoever moves the checkpoint flushes first.
    """

    def __init__(self, views: Sequence[View], partition: int) -> None:
        self._views = {view.name: view for view in views if view.offline_path}
        self._tables: dict[str, list[pa.Table]] = {}
        self._partition = partition
        self.row_count = 0

    def batch(self, created_us: int) -> BatchRows:
        """A collector for the rows of a batch; they count once they are given to `extend`."""
        return BatchRows(self._views, created_us)

    def extend(self, tables: Mapping[str, pa.Table]) -> None:
        """Take rows that are true now; those of views that are no longer defined have nowhere to go."""
        for view, table in tables.items():
            if view in self._views:
                self._tables.setdefault(view, []).append(table.drop_columns([ENTITY]))
                self.row_count += len(table)

    def flush(self, first: int, fence: int) -> None:
        """Write everything collected.

        What is written again after a crash begins with the same intent, so it takes the place of what an owner before
        wrote and did not live to have behind a checkpoint.

        Args:
            first: Number of the first intent that is not behind the checkpoint.
            fence: The owner's number.

        Raises:
            OSError: If a part cannot be written; all rows are kept.
        """
        for view, tables in self._tables.items():
            folder = parts_folder(self._views[view])
            stem = f"live-{self._partition}-{first:012d}"
            write_part(folder, f"{stem}-{fence}", pa.concat_tables(tables))
            for part in folder.glob(f"{stem}-*.parquet"):
                if int(part.stem.rpartition("-")[2]) < fence:
                    part.unlink(missing_ok=True)
        self._tables.clear()
        self.row_count = 0


def _table(shown: ViewValues, rows: Sequence[tuple[int, bytes, int]], created_us: int) -> pa.Table:
    view = shown.plan.view
    numbers, entities, times = zip(*rows, strict=True)
    places = np.array(numbers, dtype=np.int64)
    keys = shown.plan.keys.decode_columns(entities)
    columns = [value_array(keys[key.name], arrow_type(key.value_type)) for key in view.join_keys]
    for feature in view.features:
        kind = arrow_type(feature.value_type)
        column = shown.columns[feature.name]
        if isinstance(column, Column) and column.offsets is None:
            columns.append(column_array(column, kind, places))
        else:
            values = shown.lists[feature.name]
            columns.append(value_array([values[number] for number in numbers], kind))
    columns.append(timestamp_array(np.array(times, dtype=np.int64)))
    columns.append(timestamp_array(np.full(len(rows), created_us, dtype=np.int64)))
    schema = view_schema(view).append(pa.field(ENTITY, pa.binary()))
    return pa.Table.from_arrays([*columns, pa.array(entities, type=pa.binary())], schema=schema)


def column_array(column: Column, kind: pa.DataType, places: npt.NDArray[np.int64] | None = None) -> pa.Array:
    """Values of a feature as a column; of some rows alone where `places` names them."""
    if column.offsets is not None:
        assert places is None, "lists are taken whole"
        return pa.ListArray.from_arrays(pa.array(column.offsets), pa.array(column.values)).cast(kind)
    values, null = column.values, column.null
    if places is not None:
        values, null = values[places], null[places]
    return pa.array(values, mask=null).cast(kind)


def value_array(values: Sequence[Value], kind: pa.DataType) -> pa.Array:
    """Plain values as a column: timestamps are microseconds since the epoch, None is NULL."""
    if pa.types.is_timestamp(kind):
        return pa.array(values, type=pa.int64()).cast(kind)
    return pa.array(values, type=kind)


def timestamp_array(micros: np.ndarray) -> pa.Array:
    """Microseconds since the epoch as a timestamp column."""
    return pa.array(micros, type=pa.int64()).cast(TIMESTAMP)
