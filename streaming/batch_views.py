"""Views that a batch source alone feeds (a CRM export): their newest rows, brought online."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from decision.schema import Catalog, Value, View
from online.keys import EntityKeys, feature_field
from online.values import encoder
from online.write import RowWrite, RowWriter
from streaming.arrow import TIMESTAMP, arrow_type
from streaming.errors import SourceFileError
from streaming.sink import source_files

ROWS_PER_WRITE = 2000
ROW = "__row"
PLACE = "__place"
Progress = Callable[[str, int, int], None]


def batch_views(catalog: Catalog) -> list[View]:
    """Views that no stream feeds, that are not computed on demand and that have a file to read.

    Views with opaque features are left to `feast materialize`, which knows how their types lie in a file.
    """
    return [
        view
        for view in catalog.views
        if not view.stream
        and not view.on_demand
        and view.tag("waypost.role") != "segments"
        and view.offline_path
        and not any(feature.value_type.opaque for feature in view.features)
    ]


def load_batch_view(
    writer: RowWriter, catalog: Catalog, view: View, until_us: int, progress: Progress
) -> int:
    """Write the newest row of each entity as of `until_us`; a newer row in the store stays.

    Returns:
        How many entities the source has.
    """
    rows = _newest_rows(view, until_us)
    keys = EntityKeys(catalog.project, view.join_keys)
    encoders = [
        (f.name, feature_field(view.stored_name, f.name), encoder(f.value_type)) for f in view.features
    ]
    records = rows.to_pylist()
    for start in range(0, len(records), ROWS_PER_WRITE):
        chunk = records[start : start + ROWS_PER_WRITE]
        writer.apply(
            [
                RowWrite(
                    key=keys.encode(record),
                    view=view.stored_name,
                    values={field: encode(_plain(record[name])) for name, field, encode in encoders},
                    event_us=record[view.timestamp_column],
                )
                for record in chunk
            ]
        )
        progress(f"online {view.name}", start + len(chunk), len(records))
    return len(records)


def _plain(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value


def _newest_rows(view: View, until_us: int) -> pa.Table:
    """The newest row of each entity, typed as the view says, timestamps as microseconds.

    Of rows with one event timestamp the latest created counts, where the files say when, and then the last.

    Raises:
        SourceFileError: If a file lacks a column, or a column cannot be read as its feature's type; names both.
    """
    kinds = {key.name: arrow_type(key.value_type) for key in view.join_keys}
    kinds |= {feature.name: arrow_type(feature.value_type) for feature in view.features}
    kinds[view.timestamp_column] = TIMESTAMP
    tables = [_read(view, file, kinds) for file in source_files(view)]
    if not tables:
        return pa.table({name: pa.array([], type=pa.int64()) for name in kinds})
    table = pa.concat_tables(tables, promote_options="default")
    row = pa.array(np.arange(len(table)))
    table = table.append_column(ROW, row).filter(pc.field(view.timestamp_column) <= until_us)
    latest = [
        name for name in (view.timestamp_column, view.created_column, ROW) if name in table.column_names
    ]
    newest = table.sort_by([(name, "descending") for name in latest])
    if not view.join_keys:
        return newest.slice(0, 1)
    firsts = newest.append_column(PLACE, pa.array(np.arange(len(newest))))
    places = firsts.group_by(list(view.key_names)).aggregate([(PLACE, "min")])[f"{PLACE}_min"]
    return newest.take(places)


def _read(view: View, file: Path, kinds: dict[str, pa.DataType]) -> pa.Table:
    table = _mapped(view, pq.read_table(file))
    if view.created_column in table.column_names:
        kinds = kinds | {view.created_column: TIMESTAMP}
    columns = []
    for name, kind in kinds.items():
        source = view.source_column(name)
        if name not in table.column_names:
            raise SourceFileError(f"view {view.name}: {file} has no column {source!r}")
        try:
            # Files written by pandas carry nanoseconds; what lies below a microsecond is dropped.
            column = table[name].cast(kind, safe=not _holds_instants(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceFileError(f"view {view.name}: column {source!r} of {file}: {error}") from error
        columns.append(column.cast(_plain_type(kind)))
    return pa.table(columns, names=list(kinds))


def _mapped(view: View, table: pa.Table) -> pa.Table:
    """The file's columns under the view's names; as with Feast, a file may have these already."""
    mapped = {column: name for name, column in view.source_columns if column in table.column_names}
    kept = [name for name in table.column_names if name not in mapped.values()]
    return table.select(kept).rename_columns([mapped.get(name, name) for name in kept])


def _holds_instants(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind.value_type if pa.types.is_list(kind) else kind))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Instants as integers, everything else as it is."""
    if not _holds_instants(kind):
        return kind
    return pa.list_(pa.int64()) if pa.types.is_list(kind) else pa.int64()
