"""What became of what was shown."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from entities import customer, offer
from feast import Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Int64, String, UnixTimestamp
from sources import event_stream
from transforms import portable, source_of

DAY = timedelta(days=1)
WEEK = timedelta(days=7)


@portable
def offer_outcomes_rows(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each impression and click, whoever saw it."""
    rows = events.loc[events["event_type"].isin(["impression", "click"])]
    shown = rows["event_type"] == "impression"
    clicked = rows["event_type"] == "click"
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_time": rows["event_time"],
            "offer_id": rows["offer_id"],
            "impression": shown.astype("float64").where(shown),
            "click": clicked.astype("float64").where(clicked),
        }
    )


offer_outcomes = StreamFeatureView(
    name="offer_outcomes",
    entities=[offer],
    ttl=timedelta(0),
    schema=[
        Field(name="offer_id", dtype=String),
        Field(name="impressions_7d", dtype=Int64, description="Times shown in 7 days."),
        Field(name="clicks_7d", dtype=Int64, description="Clicks in 7 days."),
    ],
    source=event_stream("offer_outcomes"),
    mode="pandas",
    udf=offer_outcomes_rows,
    udf_string=source_of(offer_outcomes_rows),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="impression", function="count", time_window=WEEK, name="impressions_7d"),
        Aggregation(column="click", function="count", time_window=WEEK, name="clicks_7d"),
    ],
    enable_tiling=True,
    tiling_hop_size=timedelta(hours=1),
    description="How an offer does over all customers.",
    owner="marketing@shop.example",
    tags={"team": "marketing", "tier": "stream"},
)


@portable
def customer_offer_rows(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each impression and click."""
    rows = events.loc[events["event_type"].isin(["impression", "click"])]
    shown = rows["event_type"] == "impression"
    clicked = rows["event_type"] == "click"
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_time": rows["event_time"],
            "customer_id": rows["customer_id"],
            "offer_id": rows["offer_id"],
            "impression": shown.astype("float64").where(shown),
            "click": clicked.astype("float64").where(clicked),
            "shown_at": rows["event_time"].where(shown),
        }
    )


customer_offer = StreamFeatureView(
    name="customer_offer",
    entities=[customer, offer],
    ttl=timedelta(0),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="offer_id", dtype=String),
        Field(name="impressions_1d", dtype=Int64, description="Times shown to the customer in 1 day."),
        Field(name="impressions_7d", dtype=Int64, description="Times shown to the customer in 7 days."),
        Field(name="clicks_7d", dtype=Int64, description="Clicks of the customer in 7 days."),
        Field(name="last_shown_at", dtype=UnixTimestamp, description="Last time shown to the customer."),
    ],
    source=event_stream("customer_offer"),
    mode="pandas",
    udf=customer_offer_rows,
    udf_string=source_of(customer_offer_rows),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="impression", function="count", time_window=DAY, name="impressions_1d"),
        Aggregation(column="impression", function="count", time_window=WEEK, name="impressions_7d"),
        Aggregation(column="click", function="count", time_window=WEEK, name="clicks_7d"),
        Aggregation(column="shown_at", function="max", name="last_shown_at"),
    ],
    enable_tiling=True,
    tiling_hop_size=timedelta(hours=1),
    description="How often a customer saw an offer: what frequency caps count.",
    owner="marketing@shop.example",
    tags={"team": "marketing", "tier": "stream"},
)
