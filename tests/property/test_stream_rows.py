"""Rows keyed by entity many at once, compared with keys made one by one, and read back as columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Feature, JoinKey, ValueType, View
from online.errors import KeyEncodingError
from online.keys import EntityKeys
from streaming.arrow import KeyColumns
from streaming.errors import TransformError
from streaming.events import EventRecord, Events
from streaming.frame import events_frame
from streaming.plan import SourceEvents, ViewPlan, ViewRows
from tests.support.stream_world import SCHEMA, TRANSFORMS, stream_plan

TYPES: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.STRING: st.text(max_size=6),
    ValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    ValueType.INT32: st.integers(-(2**31), 2**31 - 1),
}
KINDS = st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=3)


def _events(customers: list[str]) -> SourceEvents:
    events = [EventRecord(f"e{number}", "t", name, number, {}) for number, name in enumerate(customers)]
    return SourceEvents.of(events_frame(Events.of(events), {}))


def _plan(kinds: list[ValueType], customer_key: str = "k0") -> ViewPlan:
    keys = tuple(JoinKey(name=f"k{number}", value_type=kind) for number, kind in enumerate(kinds))
    view = View(name="v", join_keys=keys, features=(Feature(name="x", value_type=ValueType.INT64),))
    return ViewPlan(view, None, None, EntityKeys("p", keys), customer_key, "v")


@settings(deadline=None)
@given(KINDS, st.integers(0, 12), st.data())
def test_rows_are_keyed_as_one_by_one(kinds: list[ValueType], count: int, data: st.DataObject) -> None:
    """Each row has the key of its values; rows with a NULL among them are left out, and no key is there twice."""
    few = [
        st.sampled_from(data.draw(st.lists(TYPES[kind], min_size=1, max_size=3))) | st.none()
        for kind in kinds
    ]
    rows = [[data.draw(values) for values in few] for _ in range(count)]
    events = _events(["c"] * count)
    are_declared = data.draw(st.booleans())
    frame = pd.DataFrame(
        {
            # Whole numbers come as the events' properties do, or as a transformation may leave them.
            f"k{n}": pd.array([row[n] for row in rows], dtype="Int64")
            if are_declared and kind is not ValueType.STRING
            else np.array([row[n] for row in rows] or [], dtype=object)
            for n, kind in enumerate(kinds)
        }
    ).assign(x=range(count))
    plan = _plan(kinds)
    made = ViewPlan(plan.view, lambda _: frame, None, plan.keys, "k0", "v").transformed(events)
    found = plan.rows(made)
    own = [number for number, row in enumerate(rows) if None not in row]
    expected = [plan.keys.encode({f"k{n}": value for n, value in enumerate(rows[number])}) for number in own]
    assert [found.keys[code] for code in found.codes] == expected
    assert len(set(found.keys)) == len(found.keys)
    assert found.source.tolist() == own


@settings(deadline=None)
@given(KINDS, st.data())
def test_keys_are_read_back_as_columns(kinds: list[ValueType], data: st.DataObject) -> None:
    """The offline log has the values that were put into the keys, of whatever types and in whatever order."""
    plan = _plan(kinds)
    rows = data.draw(st.lists(st.tuples(*(TYPES[kind] for kind in kinds)), max_size=5))
    entities = [plan.keys.encode({f"k{n}": value for n, value in enumerate(row)}) for row in rows]
    columns = KeyColumns.of(plan.keys, entities)
    for number, key in enumerate(plan.view.join_keys):
        assert columns.column(key).to_pylist() == [row[number] for row in rows]


@pytest.mark.parametrize(
    ("index", "source"),
    [
        (pd.Index([2, 0], dtype="uint32"), [2, 0]),
        (pd.Index([1], dtype="int8"), [1]),
        (pd.Index([3], dtype="uint64"), None),
        (pd.Index([-1]), None),
        (pd.DatetimeIndex(["2026-01-01"]), None),
        (pd.DatetimeIndex([]), []),
        (pd.Index([], dtype=object), []),
    ],
)
def test_rows_are_those_of_the_events_that_their_index_names(
    index: pd.Index[Any], source: list[int] | None
) -> None:
    """Integers of any type; what is left of no event may have any index."""
    plan = _plan([ValueType.STRING])
    frame = pd.DataFrame({"k0": ["a"] * len(index), "x": [1] * len(index)}, index=index)
    feed = ViewPlan(plan.view, lambda _: frame, None, plan.keys, "k0", "v")
    if source is None:
        with pytest.raises(TransformError, match="must keep the index of the events"):
            feed.transformed(_events(["c"] * 3))
    else:
        assert feed.transformed(_events(["c"] * 3)).source.tolist() == source


@given(st.binary(max_size=60))
def test_keys_of_others_are_refused(key: bytes) -> None:
    """What is no key of these join keys and this project is an error, whatever its bytes."""
    keys = _plan([ValueType.STRING]).keys
    whole = keys.encode({"k0": "a"})
    for wrong in (key, whole + key + b"!", whole[:-1], whole[:5] + key + whole[5:] + b"?"):
        with pytest.raises(KeyEncodingError):
            KeyColumns.of(keys, [whole, wrong])


def test_the_events_customer_stands_in_for_a_missing_key() -> None:
    """A transformation that leaves the customer out is keyed by the event's own, row by row."""
    plan = _plan([ValueType.STRING])
    events = _events(["ada", "bob", "ada"])
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=[2, 1, 2])
    made = ViewPlan(plan.view, lambda _: frame, None, plan.keys, "k0", "v").transformed(events)
    found = plan.rows(made)
    assert [found.keys[code] for code in found.codes] == [
        plan.keys.encode({"k0": name}) for name in ("ada", "bob", "ada")
    ]
    assert made.event_ids.tolist() == ["e2", "e1", "e2"]
    with pytest.raises(TransformError, match="keep the index"):
        ViewPlan(
            plan.view, lambda _: frame.set_index(pd.Index([2, 3, 0])), None, plan.keys, "k0", "v"
        ).transformed(events)


def _made(transform: Any, events: SourceEvents) -> ViewRows:
    plan = replace(_plan([ValueType.STRING], "customer_id"), transform=transform)
    return plan.rows(plan.transformed(events))


def test_rows_that_are_dropped_in_place_are_gone() -> None:
    """The rest are those of their events still."""

    def drop(events: pd.DataFrame) -> pd.DataFrame:
        events.drop(events.index[events["customer_id"] == "bob"], inplace=True)
        return events.assign(x=1, k0="key")

    rows = _made(drop, _events(["ada", "bob", "eve"]))
    assert rows.source.tolist() == [0, 2]
    assert rows.made.event_ids.tolist() == ["e0", "e2"]


def _twice(events: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([events.assign(x=1, k0="key")] * 2, axis=1)


def _unhashable(events: pd.DataFrame) -> pd.DataFrame:
    return events.assign(x=1, k0=[{} for _ in range(len(events))])


def _ending(_: pd.DataFrame) -> pd.DataFrame:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("transform", "why"),
    [(_twice, "more than one column 'x'"), (_unhashable, "unhashable"), (_ending, "failed: SystemExit")],
)
def test_results_that_cannot_be_taken_are_refused(transform: Any, why: str) -> None:
    """Whatever a function does, it is told as its view's."""
    with pytest.raises(TransformError, match=f"view v: .*{why}"):
        _made(transform, _events(["ada"]))


@pytest.mark.parametrize("first", ["spending", "looked"])
def test_functions_of_views_have_frames_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """What one changes in place is not seen by the other, whichever comes first."""

    def same(events: pd.DataFrame) -> pd.DataFrame:
        return events.assign(bought_at=events["event_time"])

    def changing(events: pd.DataFrame) -> pd.DataFrame:
        events.loc[:, "customer_id"] = "other"
        events["category"].to_numpy()[:] = "other"
        rows = same(events)
        events.columns.values[:] = "other"
        return rows

    for view in ("demand", "taste", "spending", "looked"):
        monkeypatch.setitem(TRANSFORMS, view, changing if view == first else same)
    event = EventRecord("e", "buy", "ada", 5, {"category": "tea", "amount": 1.0})
    rows = stream_plan(tmp_path).rows(
        SourceEvents.of(events_frame(Events.of([event]), SCHEMA.property_types))
    )
    seen = {view: rows[view].made.column("customer_id").tolist() for view in ("spending", "looked")}
    assert seen == {view: ["other" if view == first else "ada"] for view in seen}
    assert rows["looked"].made.column("category").tolist() == ["other" if first == "looked" else "tea"]
