"""DuckDB recomputes the windows from the raw events with SQL: equal."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd

from decision.schema import Aggregation, Feature, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.plan import WindowPlan
from streaming.windows.sweep import sweep

HOP_S = 3600
DAY_S = 86_400
V = ValueType
FEATURES = [
    ("spend_30d", "amount", "sum", 30 * DAY_S, V.DOUBLE),
    ("orders_7d", "*", "count", 7 * DAY_S, V.INT64),
    ("mean_30d", "amount", "mean", 30 * DAY_S, V.DOUBLE),
    ("lowest_7d", "amount", "min", 7 * DAY_S, V.DOUBLE),
    ("highest_ever", "amount", "max", None, V.DOUBLE),
    ("items_1d", "items", "sum", DAY_S, V.INT64),
    ("first_30d", "shop", "first", 30 * DAY_S, V.STRING),
    ("last_7d", "shop", "last", 7 * DAY_S, V.STRING),
    ("shops", "shop", "last_k(3)", 30 * DAY_S, V.STRING_LIST),
    ("shops_7d", "shop", "count_distinct", 7 * DAY_S, V.INT64),
    ("amounts_30d", "amount", "count_distinct", 30 * DAY_S, V.INT64),
    ("counts_ever", "items", "count_distinct", None, V.INT64),
]
QUERY = """
select r.entity, r.at_us,
  coalesce(sum(cast(amount as decimal(18, 6))) filter (us >= edge - 30 * day), 0)::double as spend_30d,
  count(*) filter (us >= edge - 7 * day) as orders_7d,
  sum(cast(amount as decimal(18, 6))) filter (us >= edge - 30 * day)::double
    / count(amount) filter (us >= edge - 30 * day) as mean_30d,
  min(amount) filter (us >= edge - 7 * day) as lowest_7d,
  max(amount) as highest_ever,
  coalesce(sum(items) filter (us >= edge - day), 0)::bigint as items_1d,
  first(shop order by us, event_id) filter (us >= edge - 30 * day and shop is not null) as first_30d,
  last(shop order by us, event_id) filter (us >= edge - 7 * day and shop is not null) as last_7d,
  coalesce(list(shop order by us desc, event_id desc)
    filter (us >= edge - 30 * day and shop is not null), [])[:3] as shops,
  count(distinct shop) filter (us >= edge - 7 * day) as shops_7d,
  count(distinct amount) filter (us >= edge - 30 * day) as amounts_30d,
  count(distinct items) as counts_ever
from (select entity, at_us, at_us // 3600000000 * 3600000000 as edge, 86400000000 as day from instants) r
join events e on e.entity = r.entity and e.us <= r.at_us
group by all order by 1, 2
"""


def test_windows_sweep_equals_duckdb() -> None:
    """On random purchases with ties, NULLs and gaps, every feature at every instant equals the SQL."""
    rng = np.random.default_rng(7)
    n = 2000
    us = rng.integers(0, 120 * 24, n) * HOP_S * 1_000_000 + rng.choice([0, 0, 1, 1_800_000_000], n)
    events = pd.DataFrame(
        {
            "entity": rng.integers(0, 40, n),
            "us": us,
            "event_time": pd.to_datetime(us, unit="us", utc=True),
            "event_id": [f"e{i}" for i in rng.permutation(n)],
            "amount": np.where(rng.random(n) < 0.1, np.nan, rng.integers(1, 99_999, n) / 100),
            "items": pd.array(rng.integers(1, 9, n), dtype="Int64"),
            "shop": rng.choice(np.array(["north", "süd", "west", None], dtype=object), n),
        }
    )
    view = View(
        name="shopping",
        join_keys=(),
        features=tuple(Feature(name=name, value_type=kind) for name, *_, kind in FEATURES),
        aggregations=tuple(
            Aggregation(feature=name, column=column, function=function, window_s=window_s)
            for name, column, function, window_s, _ in FEATURES
        ),
        hop_s=HOP_S,
    )
    plan = WindowPlan.compile(view)
    swept = sweep(
        plan,
        Batch.from_frame(events, events["entity"].to_numpy(), plan),
        40,
        int(us.max()) + 40 * DAY_S * 10**6,
    )
    instants = pd.DataFrame({"entity": swept.entity, "at_us": swept.event_us})
    events["amount"] = events["amount"].astype(object).where(events["amount"].notna(), None)
    with duckdb.connect() as connection:
        connection.register("events", events.drop(columns="event_time").astype({"amount": "Float64"}))
        connection.register("instants", instants)
        expected = connection.sql(QUERY).fetchall()
    got = zip(
        swept.entity.tolist(),
        swept.event_us.tolist(),
        *(column.to_list() for column in swept.columns.values()),
        strict=True,
    )
    assert len(expected) == len(swept) > 3000
    for left, right in zip(got, expected, strict=True):
        assert left == tuple(tuple(value) if isinstance(value, list) else value for value in right)
