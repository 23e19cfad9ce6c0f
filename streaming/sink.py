"""The offline side: feature rows and events as Parquet parts, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from decision.schema import Value, ValueType, View

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
    """Collects the offline rows of one batch."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self._views = views
        self._rows: dict[str, list[tuple[Value, ...]]] = {}
        self._entities: dict[str, list[bytes]] = {}

    def add(
        self,
        view: str,
        entity: bytes,
        keys: Mapping[str, Value],
        values: Mapping[str, Value],
        at_us: int,
        created_us: int,
    ) -> None:
        """Log one feature row, readable from logical time `at_us`; views without an offline log are passed over."""
        defined = self._views.get(view)
        if defined is None:
            return
        row = (
            *(keys[name] for name in defined.key_names),
            *(values[feature.name] for feature in defined.features),
            at_us,
            created_us,
        )
        self._rows.setdefault(view, []).append(row)
        self._entities.setdefault(view, []).append(entity)

    def tables(self) -> dict[str, pa.Table]:
        """The rows by view; the last column, `ENTITY`, says whose they are."""
        return {
            view: _table(view_schema(self._views[view]), rows).append_column(
                ENTITY, pa.array(self._entities[view], type=pa.binary())
            )
            for view, rows in self._rows.items()
        }


class OfflineSink:
    """Collects the rows of one partition and writes them as one part per view.

    Not thread-safe. Rows are held in memory until `flush`; whoever moves the checkpoint flushes first.
    """

    def __init__(self, views: Sequence[View], partition: int) -> None:
        self._views = {view.name: view for view in views if view.offline_path}
        self._tables: dict[str, list[pa.Table]] = {}
        self._partition = partition
        self.row_count = 0

    def batch(self) -> BatchRows:
        """A collector for the rows of a batch; they count once they are given to `extend`."""
        return BatchRows(self._views)

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


def _table(schema: pa.Schema, rows: Sequence[tuple[Value, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [value_array(list(column), field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def value_array(values: Sequence[Value], kind: pa.DataType) -> pa.Array:
    """Plain values as a column: timestamps are microseconds since the epoch, None is NULL."""
    if pa.types.is_timestamp(kind):
        return pa.array(values, type=pa.int64()).cast(kind)
    return pa.array(values, type=kind)


def timestamp_array(micros: np.ndarray) -> pa.Array:
    """Microseconds since the epoch as a timestamp column."""
    return pa.array(micros, type=pa.int64()).cast(TIMESTAMP)
