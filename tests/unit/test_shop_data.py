"""The example's data road: the same events in every call, purchases real, browsing derived and labelled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from demo.data import EVENT_SCHEMA, HELD_OUT_START, LIVE_END, history_frame, live_events, write_demographics
from demo.make_offers import offers_text, title

REPO = Path(__file__).parents[2] / "feature_repo"
DTYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}


@pytest.fixture(scope="module")
def live() -> pd.DataFrame:
    return live_events()


@pytest.fixture(scope="module")
def early() -> pd.DataFrame:
    """The first three weeks: enough to see what history looks like."""
    return history_frame(datetime(2017, 1, 22, tzinfo=UTC))


def test_events_have_the_declared_columns() -> None:
    """A frame has exactly the columns of every event and the properties that events.yaml declares, with their types."""
    declared = yaml.safe_load((REPO / "events.yaml").read_text())["types"].values()
    types = {name: DTYPES[item["type"]] for kind in declared for name, item in kind["properties"].items()}
    shared = ["event_id", "event_type", "customer_id", "event_time"]
    assert set(EVENT_SCHEMA.names) == {*shared, *types}
    assert {name: EVENT_SCHEMA.field(name).type for name in types} == types


def test_history_has_one_first_line_per_basket(early: pd.DataFrame) -> None:
    """Each basket has exactly one first line, and that line alone carries the basket's total."""
    baskets = early.groupby("basket_id")
    assert (baskets["basket_first"].sum() == 1).all()
    assert early["basket_total"].notna().equals(early["basket_first"].astype(bool))
    totals = early.loc[early["basket_first"]].set_index("basket_id")["basket_total"]
    assert (baskets["sales_value"].sum() - totals).abs().max() < 0.01


def test_history_ids_are_distinct_and_times_ordered(early: pd.DataFrame) -> None:
    """Event ids repeat nowhere, and rows come in order of event time in UTC microseconds."""
    assert early["event_id"].is_unique
    assert early["event_time"].is_monotonic_increasing
    assert str(early["event_time"].dtype) == "datetime64[us, UTC]"


def test_history_ends_where_it_was_told(early: pd.DataFrame) -> None:
    """No event lies at or behind `until`: nothing of the held-out weeks is in history."""
    assert early["event_time"].max() < datetime(2017, 1, 22, tzinfo=UTC)


def test_live_intervals_join_without_seam(live: pd.DataFrame) -> None:
    """Two adjoining intervals give the same events as the whole."""
    middle = HELD_OUT_START + timedelta(days=3, hours=19, minutes=7)
    parts = [live_events(HELD_OUT_START, middle), live_events(middle, LIVE_END)]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), live)


def test_live_part_is_the_held_out_weeks(live: pd.DataFrame) -> None:
    """The live part starts at the held-out instant and has at most 60,000 purchase lines."""
    assert live["event_time"].min() >= HELD_OUT_START
    assert 50_000 < (live["event_type"] == "purchase").sum() <= 60_000
    assert live["event_id"].is_unique


def test_browsing_is_labelled_and_precedes_its_basket(live: pd.DataFrame) -> None:
    """Views and cart adds say that they are derived; a view comes first, then the cart, then the basket."""
    derived = live["event_type"] != "purchase"
    assert live.loc[derived, "derived"].all()
    assert live.loc[~derived, "derived"].isna().all()
    browsing = live.loc[derived, ["event_id", "event_type", "event_time"]].copy()
    browsing[["basket_id", "step"]] = browsing["event_id"].str.extract(r"^(\d+)-\w+-(\d+)$")
    times = browsing.pivot_table(
        index=["basket_id", "step"], columns="event_type", values="event_time", aggfunc="min"
    )
    times = times.dropna().join(live.loc[~derived].groupby("basket_id")["event_time"].min(), on="basket_id")
    times = times.loc[times["event_time"].notna()]
    assert len(times) > 10_000
    assert (times["view"] < times["add_to_cart"]).all()
    assert (times["add_to_cart"] < times["event_time"]).all()


def test_some_carts_are_left_for_longer_than_half_an_hour(live: pd.DataFrame) -> None:
    """About one cart in ten waits, so that a cart abandoner is somebody."""
    adds = live.loc[live["event_type"] == "add_to_cart"].copy()
    adds["basket_id"] = adds["event_id"].str.partition("-")[0]
    last = adds.groupby("basket_id")["event_time"].max()
    paid = live.loc[live["event_type"] == "purchase"].groupby("basket_id")["event_time"].min()
    wait = (paid - last).dropna()
    assert 0.07 < (wait > pd.Timedelta(minutes=30)).mean() < 0.13


def test_demographics_are_a_value_log(tmp_path: Path) -> None:
    """The CRM file has text ids, microsecond times and NULL for what is unknown."""
    table = pq.read_table(write_demographics(tmp_path / "demographics"))
    assert table.num_rows == 801
    assert table.schema.field("customer_id").type == pa.string()
    assert table.schema.field("event_timestamp").type == table.schema.field("created").type
    assert table.schema.field("created").type == pa.timestamp("us", tz="UTC")
    assert table["home_ownership"].null_count == 233


def test_committed_offers_are_what_the_script_writes() -> None:
    """offers.policy has not drifted from the script and the data."""
    assert (REPO / "policy" / "offers.policy").read_text(encoding="utf-8") == offers_text()


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("FLUID MILK PRODUCTS", "Fluid milk products"),
        ("SALD DRSNG/SNDWCH SPRD", "Salad dressing & sandwich spread"),
        ("BAKED BREAD/BUNS/ROLLS", "Baked bread, buns & rolls"),
        ("VEGETABLES - SHELF STABLE", "Vegetables, shelf stable"),
    ],
)
def test_title_spells_abbreviations_out(category: str, expected: str) -> None:
    """Headings are for people."""
    assert title(category) == expected
