"""Files of past events and of batch rows, brought into the form that the stream uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from decision.schema import Catalog, Feature, JoinKey, ValueType, View
from online.keys import EntityKeys, feature_field
from online.store import connect
from online.values import decode_value
from online.write import RowWriter
from streaming.batch_views import load_batch_view
from streaming.errors import SourceFileError
from streaming.events import EventSchema
from streaming.history import Past, history_frame
from tests.support.valkey import start_valkey

SCHEMA = EventSchema.parse(
    """
customer: account
types:
  pay:
    properties:
      amount: {type: double}
      units: {type: int64}
      gift: {type: bool}
"""
)
AT = datetime(2024, 5, 1, tzinfo=UTC)


def _events(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "event_id": ["b", "a", "a"],
        "event_type": ["pay", "pay", "pay"],
        "customer_id": [7, 7, 7],
        "event_time": [AT.replace(hour=2), AT, AT],
        "amount": [1, 2, 2],
        "units": [None, 2**60 + 1, 2**60 + 1],
    } | changes
    return pa.table({name: pa.array(values) for name, values in columns.items() if values is not ...})


def test_history_counts_each_event_once_in_order() -> None:
    """A repeated event id of a customer is dropped, numbers keep all their bits, absent properties are empty."""
    frame = history_frame(_events(), SCHEMA)
    assert frame["event_id"].tolist() == ["a", "b"]
    assert frame["customer_id"].tolist() == ["7", "7"]
    assert frame["units"].tolist() == [2**60 + 1, pd.NA]
    assert frame["gift"].isna().all()
    assert str(frame["event_time"].dtype) == "datetime64[us, UTC]"


def test_ids_of_history_differ_behind_a_zero_byte(tmp_path: Path) -> None:
    """Whether all of it is in memory or some at a time."""
    table = _events(customer_id=["a", "a\0b", "a\0b"], event_id=["x\0y", "x\0y", "x\0y"])
    kept = {"a", "a\0b"}
    assert set(history_frame(table, SCHEMA)["customer_id"]) == kept
    pq.write_table(table, tmp_path / "past.parquet")
    with Past.of_file(tmp_path / "past.parquet", SCHEMA).reading(tmp_path, lambda _: None) as (_, frames):
        assert set(pd.concat(frames)["customer_id"]) == kept


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"event_id": ...}, "no column 'event_id'"),
        ({"event_id": ["a", None, "b"]}, "'event_id' has 1 empty values"),
        ({"event_time": [AT.replace(tzinfo=None)] * 3}, "must be a timestamp with a zone"),
        ({"event_type": ["pay", "pay", "steal"]}, "'steal' is not declared"),
        ({"colour": ["red"] * 3}, "'colour' is no property"),
        ({"units": ["x", "y", "z"]}, "column 'units'"),
    ],
)
def test_history_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """The column or type is named."""
    with pytest.raises(SourceFileError, match=said):
        history_frame(_events(**changes), SCHEMA)
    pq.write_table(_events(**changes), tmp_path / "events.parquet")
    past = Past.of_file(tmp_path / "events.parquet", SCHEMA)
    with pytest.raises(SourceFileError, match=said), past.reading(tmp_path / "spill", lambda _: None):
        pass


@pytest.mark.parametrize("at_once", [1, 7, 1_000])
def test_history_read_piece_by_piece_is_the_history(tmp_path: Path, at_once: int) -> None:
    """In as many files and groups of rows as one likes, repeated events wherever they stand; nothing is left behind."""
    rng = np.random.default_rng(at_once)
    folder = tmp_path / "events"
    folder.mkdir()
    tables = [
        _events(
            event_id=[f"e{number}" for number in rng.integers(0, 30, 40)],
            event_type=["pay"] * 40,
            customer_id=rng.integers(0, 3, 40),
            event_time=[AT.replace(minute=minute) for minute in rng.integers(0, 60, 40).tolist()],
            amount=rng.random(40),
            units=rng.integers(0, 9, 40),
        )
        for _ in range(3)
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=11)
    together = pa.concat_tables(tables)
    whole = history_frame(together, SCHEMA)
    past = Past.of_file(folder, SCHEMA, at_once)
    seen: list[int] = []
    with past.reading(tmp_path / "spill", seen.append) as (newest_us, frames):
        pieces = list(frames)
    assert past.count == seen[-1] == 120
    assert newest_us == together["event_time"].to_pandas().max().value // 1000
    assert len(pieces) > 1 or at_once > 120
    found = pd.concat(pieces).sort_values(["event_time", "event_id", "customer_id"], ignore_index=True)
    pd.testing.assert_frame_equal(
        found, whole.sort_values(["event_time", "event_id", "customer_id"], ignore_index=True)
    )
    assert not list((tmp_path / "spill").iterdir())


def test_folders_around_a_file_name_nothing_of_it(tmp_path: Path) -> None:
    """One day's file of a folder per day is that file alone; the folder of all of them has what their names say."""
    file = tmp_path / "gift=true" / "events.parquet"
    file.parent.mkdir()
    pq.write_table(_events(), file)
    for path, gifts in ((file, [pd.NA, pd.NA]), (tmp_path, [True, True])):
        with Past.of_file(path, SCHEMA).reading(tmp_path / ".spill", lambda _: None) as (_, frames):
            assert [gift for frame in frames for gift in frame["gift"].tolist()] == gifts


def test_batch_rows_keep_nulls_and_whole_numbers(tmp_path: Path) -> None:
    """The newest row of each entity goes online, as pandas writes such files: nanoseconds, floats for integers."""
    view = View(
        name="crm",
        join_keys=(JoinKey(name="account", value_type=ValueType.INT64),),
        features=(
            Feature(name="age", value_type=ValueType.INT64),
            Feature(name="joined_at", value_type=ValueType.UNIX_TIMESTAMP),
            Feature(name="tags", value_type=ValueType.STRING_LIST),
        ),
        offline_path=str(tmp_path / "crm" / "*.parquet"),
    )
    catalog = Catalog(project="p", views=(view,))
    (tmp_path / "crm").mkdir()
    rows = pd.DataFrame(
        {
            "account": [1, 1, 2],
            "age": [30.0, 31.0, None],
            "joined_at": pd.to_datetime(["2020-01-01", "2020-01-02", None], utc=True),
            "tags": [["x"], ["y", "z"], None],
            "event_timestamp": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01"], utc=True),
        }
    )
    pq.write_table(pa.Table.from_pandas(rows), tmp_path / "crm" / "rows.parquet")
    with start_valkey(tmp_path / "valkey") as url, connect(url) as client:
        until_us = int(AT.timestamp()) * 1_000_000
        assert load_batch_view(RowWriter(client), catalog, view, until_us, lambda *_: None) == 2
        stored: list[Any] = [
            client.hgetall(EntityKeys("p", view.join_keys).encode({"account": account})) for account in (1, 2)
        ]
    found = [
        [decode_value(f.value_type, row[feature_field("crm", f.name)]) for f in view.features]
        for row in stored
    ]
    joined_us = int(datetime(2020, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
    assert found == [[31, joined_us, ("y", "z")], [None, None, None]]


def test_batch_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """The file and the column are named."""
    view = View(
        name="crm",
        join_keys=(JoinKey(name="account", value_type=ValueType.INT64),),
        features=(Feature(name="age", value_type=ValueType.INT64),),
        offline_path=str(tmp_path / "*.parquet"),
    )
    table = pa.table({"account": [1], "event_timestamp": [AT]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(SourceFileError, match=r"rows\.parquet has no column 'age'"):
        load_batch_view(
            RowWriter(redis.Redis()), Catalog(project="p", views=(view,)), view, 2**60, lambda *_: None
        )


def test_batch_rows_of_one_instant_are_ranked_by_when_they_were_created(tmp_path: Path) -> None:
    """As Feast materializes: of rows that share key and event timestamp the one counts that was created last."""
    view = View(
        name="crm",
        join_keys=(JoinKey(name="account", value_type=ValueType.INT64),),
        features=(Feature(name="age", value_type=ValueType.INT64),),
        offline_path=str(tmp_path / "*.parquet"),
        created_column="known_at",
    )
    known_at = [AT, AT - timedelta(hours=1)]
    table = pa.table({"account": [1, 1], "age": [40, 41], "event_timestamp": [AT, AT], "known_at": known_at})
    pq.write_table(table, tmp_path / "b.parquet")
    pq.write_table(table.drop_columns("known_at").slice(1), tmp_path / "a.parquet")
    catalog = Catalog(project="p", views=(view,))
    with start_valkey(tmp_path / "valkey") as url, connect(url) as client:
        until_us = int(AT.timestamp()) * 1_000_000
        assert load_batch_view(RowWriter(client), catalog, view, until_us, lambda *_: None) == 1
        stored: Any = client.hgetall(EntityKeys("p", view.join_keys).encode({"account": 1}))
    assert decode_value(ValueType.INT64, stored[feature_field("crm", "age")]) == 40
