"""What sells, to whom."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from entities import category, customer
from feast import Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Float64, Int64, String, UnixTimestamp
from sources import event_stream
from transforms import portable, source_of

DAY = timedelta(days=1)


@portable
def customer_category_rows(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each purchase line whose category is known."""
    rows = events.loc[(events["event_type"] == "purchase") & events["product_category"].notna()]
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_time": rows["event_time"],
            "customer_id": rows["customer_id"],
            "product_category": rows["product_category"],
            "sales_value": rows["sales_value"],
            "purchased_at": rows["event_time"],
        }
    )


customer_category = StreamFeatureView(
    name="customer_category",
    entities=[customer, category],
    ttl=timedelta(0),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="product_category", dtype=String),
        Field(name="spend_30d", dtype=Float64, description="Spend on the category in 30 days, in dollars."),
        Field(name="spend_90d", dtype=Float64, description="Spend on the category in 90 days, in dollars."),
        Field(name="purchases_30d", dtype=Int64, description="Lines of the category bought in 30 days."),
        Field(name="purchases_90d", dtype=Int64, description="Lines of the category bought in 90 days."),
        Field(name="purchases_total", dtype=Int64, description="Lines of the category ever bought."),
        Field(name="last_purchase_at", dtype=UnixTimestamp, description="Last purchase in the category."),
    ],
    source=event_stream("customer_category"),
    mode="pandas",
    udf=customer_category_rows,
    udf_string=source_of(customer_category_rows),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="sales_value", function="sum", time_window=30 * DAY, name="spend_30d"),
        Aggregation(column="sales_value", function="sum", time_window=90 * DAY, name="spend_90d"),
        Aggregation(column="sales_value", function="count", time_window=30 * DAY, name="purchases_30d"),
        Aggregation(column="sales_value", function="count", time_window=90 * DAY, name="purchases_90d"),
        Aggregation(column="sales_value", function="count", name="purchases_total"),
        Aggregation(column="purchased_at", function="max", name="last_purchase_at"),
    ],
    enable_tiling=True,
    tiling_hop_size=DAY,
    description="What a customer buys of a category.",
    owner="data@shop.example",
    tags={"team": "shop", "tier": "stream"},
)


@portable
def category_popularity_rows(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each purchase line whose category is known, whoever bought it."""
    rows = events.loc[(events["event_type"] == "purchase") & events["product_category"].notna()]
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_time": rows["event_time"],
            "product_category": rows["product_category"],
            "sales_value": rows["sales_value"],
        }
    )


category_popularity = StreamFeatureView(
    name="category_popularity",
    entities=[category],
    ttl=timedelta(0),
    schema=[
        Field(name="product_category", dtype=String),
        Field(name="purchases_7d", dtype=Int64, description="Lines sold in 7 days."),
        Field(name="purchases_30d", dtype=Int64, description="Lines sold in 30 days."),
        Field(name="spend_7d", dtype=Float64, description="Sales in 7 days, in dollars."),
        Field(name="spend_30d", dtype=Float64, description="Sales in 30 days, in dollars."),
    ],
    source=event_stream("category_popularity"),
    mode="pandas",
    udf=category_popularity_rows,
    udf_string=source_of(category_popularity_rows),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="sales_value", function="count", time_window=7 * DAY, name="purchases_7d"),
        Aggregation(column="sales_value", function="count", time_window=30 * DAY, name="purchases_30d"),
        Aggregation(column="sales_value", function="sum", time_window=7 * DAY, name="spend_7d"),
        Aggregation(column="sales_value", function="sum", time_window=30 * DAY, name="spend_30d"),
    ],
    enable_tiling=True,
    tiling_hop_size=DAY,
    description="How a category sells over all customers.",
    owner="data@shop.example",
    tags={"team": "shop", "tier": "stream"},
)
