"""Views that a batch source alone feeds (a CRM export): their newest rows, brought online."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pyarrow.parquet as pq

from decision.schema import Catalog, View
from online.keys import EntityKeys, feature_field
from online.values import encoder
from online.write import RowWrite, RowWriter
from streaming.advance import plain
from streaming.sink import source_files

ROWS_PER_WRITE = 2000
Progress = Callable[[str, int, int], None]


def batch_views(catalog: Catalog) -> list[View]:
    """Views that no stream feeds, that are not computed on demand and that have a file to read."""
    return [
        view
        for view in catalog.views
        if not view.stream
        and not view.on_demand
        and view.tag("waypost.role") != "segments"
        and view.offline_path
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
    encoders = [(f.name, feature_field(view.name, f.name), encoder(f.value_type)) for f in view.features]
    records = rows.to_dict("records")
    for start in range(0, len(records), ROWS_PER_WRITE):
        chunk = records[start : start + ROWS_PER_WRITE]
        writer.apply(
            [
                RowWrite(
                    key=keys.encode({name: plain(record[name]) for name in view.key_names}),
                    view=view.name,
                    values={field: encode(plain(record[name])) for name, field, encode in encoders},
                    event_us=record[view.timestamp_column].value // 1000,
                )
                for record in chunk
            ]
        )
        progress(f"online {view.name}", start + len(chunk), len(records))
    return len(records)


def _newest_rows(view: View, until_us: int) -> pd.DataFrame:
    files = source_files(view)
    if not files:
        return pd.DataFrame(columns=[*view.key_names, view.timestamp_column])
    columns = [*view.key_names, *(feature.name for feature in view.features), view.timestamp_column]
    frame = pd.concat([pq.read_table(file, columns=columns).to_pandas() for file in files], ignore_index=True)
    frame[view.timestamp_column] = pd.to_datetime(frame[view.timestamp_column], utc=True)
    frame = frame.loc[frame[view.timestamp_column] <= pd.Timestamp(until_us, unit="us", tz="UTC")]
    frame = frame.sort_values(view.timestamp_column, kind="stable")
    return frame.drop_duplicates(list(view.key_names), keep="last") if view.join_keys else frame.tail(1)
