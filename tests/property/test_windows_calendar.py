"""Clocks that are put forward and back, leap days, and the edges of hops and windows: windows know UTC alone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Aggregation, Feature, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState, decode, encode
from streaming.windows.stream import apply
from streaming.windows.sweep import sweep
from tests.oracle.windows import change_times, feature_values
from tests.property.test_windows_oracle import History, check, events_of, ids, same, sweep_rows

HOUR_S, DAY_S = 3600, 86_400
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
MOMENTS = [
    datetime(2024, 3, 31, 1, tzinfo=UTC),  # Berlin puts its clocks forward
    datetime(2024, 10, 27, 1, tzinfo=UTC),  # and back: local times come twice
    datetime(2024, 11, 3, 6, tzinfo=UTC),  # New York
    datetime(2024, 4, 6, 15, tzinfo=UTC),  # Lord Howe Island, by half an hour
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2023, 3, 1, tzinfo=UTC),  # no leap day before it
    datetime(2000, 2, 29, 12, tzinfo=UTC),
    datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC),  # a leap second follows, which no clock here knows
    datetime(1969, 12, 31, 23, tzinfo=UTC),
]
AGGREGATIONS = [
    ("x", "sum", ValueType.DOUBLE),
    ("*", "count", ValueType.INT64),
    ("x", "max", ValueType.DOUBLE),
    ("x", "first", ValueType.DOUBLE),
    ("x", "last_k(2)", ValueType.DOUBLE_LIST),
    ("x", "count_distinct", ValueType.INT64),
]


def _us(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


@st.composite
def worlds(draw: st.DrawFn) -> tuple[View, History, int, str]:
    """A view, events about one moment, at hop and window edges and a microsecond beside them, that moment, a zone."""
    hop_s = draw(st.sampled_from([HOUR_S, DAY_S]))
    widths = draw(st.lists(st.sampled_from([1, 2, 24, 30]), min_size=1, max_size=3, unique=True))
    names = [f"f{number}" for number in range(len(AGGREGATIONS) * len(widths))]
    chosen = [(*each, hops * hop_s) for each in AGGREGATIONS for hops in widths]
    view = View(
        name="v",
        join_keys=(),
        features=tuple(
            Feature(name=name, value_type=kind) for name, (_, _, kind, _) in zip(names, chosen, strict=True)
        ),
        aggregations=tuple(
            Aggregation(feature=name, column=column, function=function, window_s=window_s)
            for name, (column, function, _, window_s) in zip(names, chosen, strict=True)
        ),
        hop_s=hop_s,
        stream=True,
    )
    base_us = _us(draw(st.sampled_from(MOMENTS)))
    edges = st.builds(
        lambda hops, off: base_us // (hop_s * 1_000_000) * hop_s * 1_000_000 + hops * hop_s * 1_000_000 + off,
        st.integers(-3, 3) | st.sampled_from([-30, -24, 24, 30]),
        st.sampled_from([0, 0, -1, 1, 1_800_000_000]),
    )
    near = st.integers(-2 * HOUR_S, 2 * HOUR_S).map(lambda second: base_us + second * 1_000_000)
    rows = st.tuples(
        st.integers(0, 2), edges | near, ids, st.fixed_dictionaries({"x": st.sampled_from([0.1, 2.5, -1.0])})
    )
    history = draw(st.lists(rows, max_size=12, unique_by=lambda row: row[:3]))
    return view, history, base_us, draw(st.sampled_from(ZONES))


def _batch(plan: WindowPlan, history: History, zone: str) -> Batch:
    """Rows whose times are told in a zone, as a function of the repo may do."""
    times = pd.to_datetime([us for _, us, _, _ in history], unit="us", utc=True).tz_convert(zone)
    frame = pd.DataFrame(
        {
            "event_time": times,
            "event_id": np.array([event_id for _, _, event_id, _ in history], dtype=object),
            "x": np.array([row["x"] for *_, row in history], dtype=np.float64),
        }
    )
    return Batch.from_frame(frame, np.array([e for e, *_ in history], dtype=np.int64), plan)


@settings(max_examples=120, deadline=None)
@given(worlds(), st.data())
def test_stream_equals_oracle_about_calendar_moments(
    world: tuple[View, History, int, str], data: st.DataObject
) -> None:
    """At every prefix, at times that are window edges themselves, whatever zone the times are told in."""
    view, history, base_us, zone = world
    plan = WindowPlan.compile(view)
    hop_us = view.hop_s * 1_000_000
    states, seen = [TileState.empty(plan)] * 3, []
    rest = data.draw(st.permutations(history))
    now_us = base_us // hop_us * hop_us - 40 * hop_us
    while True:
        size = data.draw(st.integers(0, max(len(rest), 1)))
        part, rest = rest[:size], rest[size:]
        seen += part
        ahead_us = data.draw(st.sampled_from([0, 1, hop_us - 1, hop_us, 24 * hop_us, 31 * hop_us]))
        now_us = max([now_us + ahead_us, *(row[1] for row in part)])
        applied = apply(plan, states, _batch(plan, part, zone), now_us)
        check(view, seen, applied, now_us)
        states = [decode(plan, encode(plan, state)) for state in applied.states]
        if not rest:
            break


@settings(max_examples=80, deadline=None)
@given(worlds())
def test_sweep_equals_oracle_about_calendar_moments(world: tuple[View, History, int, str]) -> None:
    """A row at exactly the instants of change: events, and the boundaries at which they leave a window."""
    view, history, base_us, zone = world
    plan = WindowPlan.compile(view)
    until_us = base_us + 70 * view.hop_s * 1_000_000
    swept = sweep(plan, _batch(plan, history, zone), 3, until_us)
    got = sweep_rows(swept)
    for entity in range(3):
        events = events_of(history, entity, until_us)
        own = [row for row in got if row[0] == entity]
        assert [row[1] for row in own] == change_times(view, events, until_us)
        assert all(same(values, feature_values(view, events, at)) for _, at, _, values in own)
    check(view, history, swept.final, until_us)


@pytest.mark.parametrize("zone", ZONES)
def test_a_day_has_24_hours_whatever_the_clocks_do(zone: str) -> None:
    """An event leaves a window of one day, in hops of an hour, with the hour that ends 24 hours after its own."""
    view = View(
        name="v",
        join_keys=(),
        features=(Feature(name="n", value_type=ValueType.INT64),),
        aggregations=(Aggregation(feature="n", column="*", function="count", window_s=DAY_S),),
        hop_s=HOUR_S,
    )
    plan = WindowPlan.compile(view)
    for moment in MOMENTS:
        at = moment.astimezone(ZoneInfo(zone))
        frame = pd.DataFrame({"event_time": pd.to_datetime([at]), "event_id": np.array(["e"], dtype=object)})
        batch = Batch.from_frame(frame, np.zeros(1, dtype=np.int64), plan)
        edge_us = (_us(moment) // 3_600_000_000 + 25) * 3_600_000_000
        state = apply(plan, [TileState.empty(plan)], batch, _us(moment))
        assert state.next_expiry_us.tolist() == [edge_us]
        nothing = Batch.empty(plan)
        assert apply(plan, state.states, nothing, edge_us - 1).values == {"n": [1]}
        assert apply(plan, state.states, nothing, edge_us).values == {"n": [0]}
