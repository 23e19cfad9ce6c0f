"""The example shop's windows, recomputed by DuckDB from its raw events with SQL that was written by hand: equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from decision.lang.compiler import compile_policy
from demo.data import live_events
from server.repo import load_repo
from server.stream_plans import stream_plan
from streaming.plan import SourceEvents, StreamPlan
from streaming.windows.sweep import Sweep, sweep

pytestmark = pytest.mark.filterwarnings("ignore")

SHOP = Path(__file__).parents[2] / "feature_repo"
CUSTOMERS = 120
MINUTE, HOUR, DAY = 60, 3_600, 86_400
SECOND_US = 1_000_000
EVER = None


@dataclass(frozen=True)
class Feature:
    """A feature in SQL, with `{f}` for the filter of the rows that count: where they are within so many seconds."""

    value: str
    window_s: int | None
    where: str = "true"

    def sql(self, hop_s: int) -> str:
        hop_us = hop_s * SECOND_US
        since = (
            "true"
            if self.window_s is None
            else f"e.us >= i.us // {hop_us} * {hop_us} - {self.window_s * SECOND_US}"
        )
        return self.value.format(f=f"filter (where {since} and {self.where})")


def total(column: str, window_s: int | None, where: str = "true") -> Feature:
    return Feature(f"coalesce(sum(cast({column} as decimal(18, 6))) {{f}}, 0)::double", window_s, where)


def count(window_s: int | None, where: str = "true") -> Feature:
    return Feature("count(e.us) {f}", window_s, where)


def newest(where: str = "true") -> Feature:
    return Feature(f"max(e.us // {SECOND_US} * {SECOND_US}) {{f}}", EVER, where)


@dataclass(frozen=True)
class View:
    """A view in SQL: whose it is, how its windows move, and which events count."""

    keys: tuple[str, ...]
    hop_s: int
    where: str
    features: Mapping[str, Feature]


PURCHASE, KNOWN = "event_type = 'purchase'", "event_type = 'purchase' and product_category is not null"
SHOWN = "event_type in ('impression', 'click')"
VIEWS = {
    "purchase_history": View(
        ("customer_id",),
        HOUR,
        PURCHASE,
        {
            "spend_1d": total("sales_value", DAY),
            "spend_7d": total("sales_value", 7 * DAY),
            "last_month_total": total("sales_value", 30 * DAY),
            "spend_90d": total("sales_value", 90 * DAY),
            "orders_1d": count(DAY, "basket_first"),
            "orders_7d": count(7 * DAY, "basket_first"),
            "orders_30d": count(30 * DAY, "basket_first"),
            "orders_90d": count(90 * DAY, "basket_first"),
            "orders_total": count(EVER, "basket_first"),
            "average_basket_90d": Feature(
                "sum(cast(basket_total as decimal(18, 6))) {f}::double / count(basket_total) {f}",
                90 * DAY,
                "basket_first",
            ),
            "last_purchase_at": newest(),
        },
    ),
    "customer_category": View(
        ("customer_id", "product_category"),
        DAY,
        KNOWN,
        {
            "spend_30d": total("sales_value", 30 * DAY),
            "spend_90d": total("sales_value", 90 * DAY),
            "purchases_30d": count(30 * DAY),
            "purchases_90d": count(90 * DAY),
            "purchases_total": count(EVER),
            "last_purchase_at": newest(),
        },
    ),
    "category_popularity": View(
        ("product_category",),
        DAY,
        KNOWN,
        {
            "purchases_7d": count(7 * DAY),
            "purchases_30d": count(30 * DAY),
            "spend_7d": total("sales_value", 7 * DAY),
            "spend_30d": total("sales_value", 30 * DAY),
        },
    ),
    "offer_outcomes": View(
        ("offer_id",),
        HOUR,
        SHOWN,
        {
            "impressions_7d": count(7 * DAY, "event_type = 'impression'"),
            "clicks_7d": count(7 * DAY, "event_type = 'click'"),
        },
    ),
    "customer_offer": View(
        ("customer_id", "offer_id"),
        HOUR,
        SHOWN,
        {
            "impressions_1d": count(DAY, "event_type = 'impression'"),
            "impressions_7d": count(7 * DAY, "event_type = 'impression'"),
            "clicks_7d": count(7 * DAY, "event_type = 'click'"),
            "last_shown_at": newest("event_type = 'impression'"),
        },
    ),
    "session": View(
        ("customer_id",),
        MINUTE,
        "event_type in ('view', 'add_to_cart', 'purchase')",
        {
            "last_browsed_category": Feature(
                "last(product_category order by e.us, event_id) {f}", EVER, "event_type = 'view'"
            ),
            "views_30m": count(30 * MINUTE, "event_type = 'view'"),
            "cart_adds_30m": count(30 * MINUTE, "event_type = 'add_to_cart'"),
            "cart_value_30m": total("sales_value", 30 * MINUTE, "event_type = 'add_to_cart'"),
            "last_cart_at": newest("event_type = 'add_to_cart'"),
            "last_purchase_at": newest(PURCHASE),
        },
    ),
}


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    """A quarter of some customers, over a change of clocks, with impressions and clicks."""
    frame = live_events(datetime(2017, 9, 15, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC))
    some = sorted(frame["customer_id"].unique())[:CUSTOMERS]
    frame = frame[frame["customer_id"].isin(some)].reset_index(drop=True)
    shown = frame.sample(3_000, random_state=1)
    rng = np.random.default_rng(2)
    shown = shown.assign(
        event_id="shown-" + shown["event_id"],
        event_type=rng.choice(["impression", "click"], len(shown)),
        offer_id=rng.choice(["cheese", "milk", "süß"], len(shown)),
        product_category=None,
    )
    return pd.concat([frame, shown], ignore_index=True)


@pytest.fixture(scope="module")
def plan() -> StreamPlan:
    repo = load_repo(SHOP)
    compiled = compile_policy(repo.policy_sources, repo.catalog)
    assert compiled.policy is not None
    return stream_plan(repo, compiled.policy)


def test_every_windowed_view_is_in_the_comparison(plan: StreamPlan) -> None:
    """A view or feature that is added to the shop is added here."""
    defined = {
        view.view.name: set(view.view.feature_by_name)
        for kind in plan.kinds
        for view in kind.views
        if view.windows
    }
    assert defined == {name: set(view.features) for name, view in VIEWS.items()}


@pytest.mark.parametrize("name", VIEWS)
def test_windows_of_the_shop_are_what_sql_says(plan: StreamPlan, events: pd.DataFrame, name: str) -> None:
    """At instants all over the history, whether an event or time alone moved the windows."""
    kind, planned = next((kind, view) for kind in plan.kinds for view in kind.views if view.view.name == name)
    assert planned.windows is not None
    rows = plan.rows(SourceEvents.of(events))[name]
    until_us = int(events["event_time"].max().value // 1_000) + 100 * DAY * 1_000_000
    swept = sweep(planned.windows, rows.batch(rows.codes, planned.windows), len(rows.keys), until_us)
    picked = np.unique(np.linspace(0, len(swept) - 1, 4_000).astype(int))
    keys = [kind.keys.decode(key) for key in rows.keys]
    expected = _by_sql(VIEWS[name], events, keys, swept, picked)
    columns = {feature: column.to_list() for feature, column in swept.columns.items()}
    got = [tuple(columns[feature][row] for feature in VIEWS[name].features) for row in picked.tolist()]
    assert len(expected) == len(got) > 1_000
    for row, ours, theirs in zip(picked.tolist(), got, expected, strict=True):
        assert ours == theirs, (keys[swept.entity[row]], swept.event_us[row])


def _by_sql(
    view: View, events: pd.DataFrame, keys: Sequence[Mapping[str, object]], swept: Sweep, picked: np.ndarray
) -> list[tuple[object, ...]]:
    """The features at some rows of a sweep."""
    instants = pd.DataFrame([keys[entity] for entity in swept.entity[picked].tolist()])
    instants["us"], instants["number"] = swept.event_us[picked], np.arange(len(picked))
    features = ", ".join(feature.sql(view.hop_s) for feature in view.features.values())
    same = " and ".join(f"e.{key} = i.{key}" for key in view.keys)
    raw = events.assign(
        us=events["event_time"].dt.tz_convert(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    )
    with duckdb.connect() as connection:
        connection.register("instants", instants)
        connection.register("raw", raw)
        counted = connection.sql(f"select * from raw where {view.where}")  # noqa: S608 - ours, above
        connection.register("counted", counted)
        query = f"select {features} from instants i left join counted e on {same} and e.us <= i.us"  # noqa: S608
        return connection.sql(f"{query} group by i.number, i.us order by i.number").fetchall()
