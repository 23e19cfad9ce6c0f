"""Three views over purchases: by customer, by customer and category, by category; twelve windows, hop one hour."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, Field, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

DATA = Path(os.environ["BENCH_DATA"])
DAY = timedelta(days=1)

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
category = Entity(name="category", join_keys=["product_category"], value_type=ValueType.STRING)


def purchases(events: pd.DataFrame) -> pd.DataFrame:
    """One row for each purchase."""
    return pd.DataFrame(events.loc[events["event_type"] == "purchase"])


purchases.__module__ = "__main__"  # so that Feast stores it by value: its registry is read without this file


def view(name: str, entities: list[Entity], features: dict[str, tuple[str, int]]) -> StreamFeatureView:
    """A view of sums and counts of what was paid, by feature: function and days."""
    keys = [Field(name=entity.join_key, dtype=String) for entity in entities]
    values = [
        Field(name=feature, dtype=Float64 if function == "sum" else Int64)
        for feature, (function, _) in features.items()
    ]
    log = FileSource(
        name=f"{name}_log",
        path=str(DATA / "offline" / name / "*.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    return StreamFeatureView(
        name=name,
        entities=entities,
        ttl=timedelta(0),
        schema=[*keys, *values],
        source=PushSource(name=f"{name}_stream", batch_source=log),
        mode="pandas",
        udf=purchases,
        udf_string="purchases",
        timestamp_field="event_timestamp",
        aggregations=[
            Aggregation(column="sales_value", function=function, time_window=days * DAY, name=feature)
            for feature, (function, days) in features.items()
        ],
        enable_tiling=True,
        tiling_hop_size=timedelta(hours=1),
    )


by_customer = view("by_customer", [customer], {f"spend_{days}d": ("sum", days) for days in (1, 7, 30, 90)})
by_customer_category = view(
    "by_customer_category",
    [customer, category],
    {
        "spend_30d": ("sum", 30),
        "spend_90d": ("sum", 90),
        "bought_30d": ("count", 30),
        "bought_90d": ("count", 90),
    },
)
by_category = view(
    "by_category",
    [category],
    {
        "spend_7d": ("sum", 7),
        "spend_30d": ("sum", 30),
        "bought_7d": ("count", 7),
        "bought_30d": ("count", 30),
    },
)
