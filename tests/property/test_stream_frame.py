"""Events as a frame of finished blocks, compared with one that pandas makes column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.events import EventRecord, Events, PropertyType
from streaming.frame import events_frame

_TIMES = st.integers(-(2**52), 2**52)
_VALUES: dict[PropertyType, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=4),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "timestamp": _TIMES,
}
_SERIES: dict[PropertyType, str] = {
    "string": "object",
    "double": "float64",
    "int64": "Int64",
    "bool": "boolean",
    "timestamp": "datetime64[us, UTC]",
}
_TYPES = st.dictionaries(st.text("abc", min_size=1), st.sampled_from(list(_VALUES)), max_size=6)


@st.composite
def _events(draw: st.DrawFn) -> tuple[Events, dict[str, PropertyType]]:
    types = draw(_TYPES)
    records = [
        EventRecord(
            draw(st.text(max_size=3)),
            draw(st.sampled_from(["view", "purchase"])),
            draw(st.text(max_size=3)),
            draw(_TIMES),
            {name: draw(st.none() | _VALUES[kind]) for name, kind in types.items() if draw(st.booleans())},
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    return Events.of(records), types


def _by_column(events: Events, types: dict[str, PropertyType]) -> pd.DataFrame:
    columns = {
        "event_id": pd.Series(list(events.event_ids), dtype=object),
        "event_type": pd.Series(list(events.event_types), dtype=object),
        "customer_id": pd.Series(list(events.customer_ids), dtype=object),
        "event_time": _times(events.event_us.tolist()),
    }
    for name, kind in types.items():
        values = [properties.get(name) for properties in events.properties]
        columns[name] = _times(values) if kind == "timestamp" else pd.Series(values, dtype=_SERIES[kind])
    return pd.DataFrame(columns)


def _times(micros: list[Any]) -> pd.Series[Any]:
    moments = [pd.NaT if value is None else pd.Timestamp(value, unit="us", tz="UTC") for value in micros]
    return pd.Series(moments, dtype="datetime64[us, UTC]")


@settings(deadline=None)
@given(_events(), st.data())
def test_a_frame_of_blocks_is_that_of_columns(
    made: tuple[Events, dict[str, PropertyType]], data: st.DataObject
) -> None:
    """The same values and types, whole and cut, and with a column more."""
    events, types = made
    frame, expected = events_frame(events, types), _by_column(events, types)
    pd.testing.assert_frame_equal(frame, expected)
    kept = np.array([data.draw(st.booleans()) for _ in range(len(events))], dtype=bool)
    pd.testing.assert_frame_equal(frame.loc[kept], expected.loc[kept])
    pd.testing.assert_frame_equal(frame.assign(more=1.5), expected.assign(more=1.5))
    for name in expected.columns:
        pd.testing.assert_series_equal(frame[name], expected[name])


def test_what_a_transformation_changes_in_place_is_its_own() -> None:
    """Neither the events nor the frames made after it are changed with a frame."""
    events = Events.of([EventRecord("e", "view", "c", 5, {"x": "a", "y": 1.0, "z": "b"})])
    types: dict[str, PropertyType] = {"x": "string", "y": "double", "z": "string"}
    frame = events_frame(events, types)
    frame.loc[0, ["event_time", "x", "y"]] = [pd.Timestamp(7, unit="s", tz="UTC"), "other", 2.0]
    frame.columns.name = "columns"
    frame.columns.values[0] = "name"
    frame["z"] = "other"
    assert events.event_us.tolist() == [5]
    pd.testing.assert_frame_equal(events_frame(events, types), _by_column(events, types))
