"""Who a customer is and what they bought."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from entities import customer
from feast import FeatureView, Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Bool, Float64, Int64, String, UnixTimestamp
from sources import event_stream, value_log
from transforms import portable, source_of

DAY = timedelta(days=1)

demographics = FeatureView(
    name="demographics",
    entities=[customer],
    ttl=timedelta(days=400),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="age", dtype=String, description="Age band of the head of the household."),
        Field(name="income", dtype=String, description="Yearly income band."),
        Field(
            name="home_ownership", dtype=String, description="Homeowner, renter or probable; NULL is unknown."
        ),
        Field(name="marital_status", dtype=String, description="Married or unmarried; NULL is unknown."),
        Field(name="household_size", dtype=String, description="Persons, 5+ at the top."),
        Field(name="household_comp", dtype=String, description="Adults and children in words."),
        Field(name="kids_count", dtype=String, description="Children, 3+ at the top."),
    ],
    source=value_log("demographics"),
    description="What the CRM knows about a household; about a third of the customers have it.",
    owner="crm@shop.example",
    tags={"team": "crm", "tier": "batch"},
)


@portable
def purchase_history_rows(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each purchase line; `order` and `basket_total` only on a basket's first line."""
    rows = events.loc[events["event_type"] == "purchase"]
    first = rows["basket_first"].fillna(False).astype(bool)
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_time": rows["event_time"],
            "customer_id": rows["customer_id"],
            "sales_value": rows["sales_value"],
            "order": first.astype("float64").where(first),
            "basket_total": rows["basket_total"].where(first),
            "purchased_at": rows["event_time"],
        }
    )


purchase_history = StreamFeatureView(
    name="purchase_history",
    entities=[customer],
    ttl=timedelta(0),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="spend_1d", dtype=Float64, description="Spend in 1 day, in dollars."),
        Field(name="spend_7d", dtype=Float64, description="Spend in 7 days, in dollars."),
        Field(name="last_month_total", dtype=Float64, description="Spend in 30 days, in dollars."),
        Field(name="spend_90d", dtype=Float64, description="Spend in 90 days, in dollars."),
        Field(name="orders_1d", dtype=Int64, description="Baskets in 1 day."),
        Field(name="orders_7d", dtype=Int64, description="Baskets in 7 days."),
        Field(name="orders_30d", dtype=Int64, description="Baskets in 30 days."),
        Field(name="orders_90d", dtype=Int64, description="Baskets in 90 days."),
        Field(name="orders_total", dtype=Int64, description="Baskets ever."),
        Field(name="average_basket_90d", dtype=Float64, description="Mean basket in 90 days, in dollars."),
        Field(name="last_purchase_at", dtype=UnixTimestamp, description="Time of the last purchase."),
    ],
    source=event_stream("purchase_history"),
    mode="pandas",
    udf=purchase_history_rows,
    udf_string=source_of(purchase_history_rows),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="sales_value", function="sum", time_window=DAY, name="spend_1d"),
        Aggregation(column="sales_value", function="sum", time_window=7 * DAY, name="spend_7d"),
        Aggregation(column="sales_value", function="sum", time_window=30 * DAY, name="last_month_total"),
        Aggregation(column="sales_value", function="sum", time_window=90 * DAY, name="spend_90d"),
        Aggregation(column="order", function="count", time_window=DAY, name="orders_1d"),
        Aggregation(column="order", function="count", time_window=7 * DAY, name="orders_7d"),
        Aggregation(column="order", function="count", time_window=30 * DAY, name="orders_30d"),
        Aggregation(column="order", function="count", time_window=90 * DAY, name="orders_90d"),
        Aggregation(column="order", function="count", name="orders_total"),
        Aggregation(column="basket_total", function="mean", time_window=90 * DAY, name="average_basket_90d"),
        Aggregation(column="purchased_at", function="max", name="last_purchase_at"),
    ],
    enable_tiling=True,
    tiling_hop_size=timedelta(hours=1),
    description="How much and how often a customer buys.",
    owner="data@shop.example",
    tags={"team": "shop", "tier": "stream"},
)

segments = FeatureView(
    name="segments",
    entities=[customer],
    ttl=timedelta(0),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="big_spender", dtype=Bool, description="Spent more than $500 in 30 days."),
        Field(
            name="cart_abandoner", dtype=Bool, description="Filled a cart and did not buy within 30 minutes."
        ),
        Field(name="high_intent", dtype=Bool, description="Browses and fills the cart right now."),
        Field(name="lapsed", dtype=Bool, description="Bought before, but not in the last 30 days."),
        Field(name="loyal", dtype=Bool, description="Bought at least 24 times in 90 days."),
    ],
    source=event_stream("segments"),
    description="Membership in the segments of policy/segments.policy, written whenever one flips.",
    owner="marketing@shop.example",
    tags={"team": "marketing", "tier": "stream", "waypost.role": "segments"},
)
