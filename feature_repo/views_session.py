"""What a customer does right now."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from entities import customer
from feast import Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Float64, Int64, String, UnixTimestamp
from sources import event_stream
from transforms import portable, source_of

HALF_HOUR = timedelta(minutes=30)


@portable
def session_rows(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each view, cart add and purchase; each fills only the columns that it is about."""
    rows = events.loc[events["event_type"].isin(["view", "add_to_cart", "purchase"])]
    viewed = rows["event_type"] == "view"
    added = rows["event_type"] == "add_to_cart"
    bought = rows["event_type"] == "purchase"
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_time": rows["event_time"],
            "customer_id": rows["customer_id"],
            "browsed_category": rows["product_category"].where(viewed),
            "view": viewed.astype("float64").where(viewed),
            "cart_add": added.astype("float64").where(added),
            "cart_value": rows["sales_value"].where(added),
            "added_at": rows["event_time"].where(added),
            "purchased_at": rows["event_time"].where(bought),
        }
    )


session = StreamFeatureView(
    name="session",
    entities=[customer],
    ttl=timedelta(0),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(
            name="last_browsed_category", dtype=String, description="Category of the last view, however old."
        ),
        Field(name="views_30m", dtype=Int64, description="Views in 30 minutes."),
        Field(name="cart_adds_30m", dtype=Int64, description="Additions to the cart in 30 minutes."),
        Field(
            name="cart_value_30m", dtype=Float64, description="Put into the cart in 30 minutes, in dollars."
        ),
        Field(name="last_cart_at", dtype=UnixTimestamp, description="Time of the last addition to the cart."),
        Field(name="last_purchase_at", dtype=UnixTimestamp, description="Time of the last purchase."),
    ],
    source=event_stream("session"),
    mode="pandas",
    udf=session_rows,
    udf_string=source_of(session_rows),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="browsed_category", function="last", name="last_browsed_category"),
        Aggregation(column="view", function="count", time_window=HALF_HOUR, name="views_30m"),
        Aggregation(column="cart_add", function="count", time_window=HALF_HOUR, name="cart_adds_30m"),
        Aggregation(column="cart_value", function="sum", time_window=HALF_HOUR, name="cart_value_30m"),
        Aggregation(column="added_at", function="max", name="last_cart_at"),
        Aggregation(column="purchased_at", function="max", name="last_purchase_at"),
    ],
    enable_tiling=True,
    tiling_hop_size=timedelta(minutes=1),
    description="The customer's current visit. Never an input of a model: browsing is derived in the example data.",
    owner="data@shop.example",
    tags={"team": "shop", "tier": "stream"},
)
