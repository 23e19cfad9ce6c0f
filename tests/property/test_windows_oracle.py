"""Stream, sweep and the slow reference agree at every prefix, and order never matters."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Aggregation, Feature, Scalar, Value, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.inputs import prepared
from streaming.windows.plan import NEVER_US, WindowPlan
from streaming.windows.state import CHUNK_BYTES, TileState, decode, encode
from streaming.windows.stream import NO_EXPIRY, Applied, apply
from streaming.windows.sweep import Held, Sweep, sweep, sweep_chunks
from tests.oracle.windows import Event, change_times, feature_values, next_expiry, value_time

HOP_S = 60
HOP_US = HOP_S * 1_000_000
V = ValueType
CHOICES: list[tuple[str, str, ValueType]] = [
    ("x", "sum", V.DOUBLE),
    ("x", "mean", V.FLOAT),
    ("x", "min", V.DOUBLE),
    ("x", "max", V.DOUBLE),
    ("x", "count", V.INT64),
    ("*", "count", V.INT32),
    ("", "count", V.INT64),
    ("n", "sum", V.INT64),
    ("n", "sum", V.DOUBLE),
    ("n", "mean", V.DOUBLE),
    ("n", "min", V.INT64),
    ("n", "max", V.INT64),
    ("at", "min", V.UNIX_TIMESTAMP),
    ("at", "max", V.UNIX_TIMESTAMP),
    ("at", "last", V.UNIX_TIMESTAMP),
    ("s", "count", V.INT64),
    ("s", "first", V.STRING),
    ("s", "last", V.STRING),
    ("s", "last_k(3)", V.STRING_LIST),
    ("b", "last", V.BOOL),
    ("b", "first", V.BOOL),
    ("x", "last", V.DOUBLE),
    ("x", "first", V.DOUBLE),
    ("n", "last_k(2)", V.INT64_LIST),
    ("at", "last_k(2)", V.UNIX_TIMESTAMP_LIST),
    ("s", "count_distinct", V.INT64),
    ("n", "count_distinct", V.INT32),
    ("x", "count_distinct", V.INT64),
    ("at", "count_distinct", V.INT64),
    ("b", "count_distinct", V.INT64),
]
EXACT_BELOW = 4
"""So that few rows are many values."""
WIDTHS_S = [HOP_S, 2 * HOP_S, 5 * HOP_S, 60 * HOP_S, None]


@st.composite
def views(draw: st.DrawFn) -> View:
    """A view with a few aggregations, or with all of them."""
    choices = draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=7) | st.just(CHOICES))
    aggregations = [
        Aggregation(
            feature=f"f{i}", column=column, function=function, window_s=draw(st.sampled_from(WIDTHS_S))
        )
        for i, (column, function, _) in enumerate(choices)
    ]
    features = [Feature(name=f"f{i}", value_type=kind) for i, (_, _, kind) in enumerate(choices)]
    return View(
        name="v",
        join_keys=(),
        features=tuple(features),
        aggregations=tuple(aggregations),
        hop_s=HOP_S,
        stream=True,
    )


floats = st.one_of(
    st.none(),
    st.sampled_from([math.nan, -0.0, 0.0, 5e-7, 1.5e-6, -2.5e-6, 0.1, 1e-300, 9_007_199_254.740993]),
    st.floats(min_value=-1e9, max_value=1e9),
)
moments = st.one_of(
    st.integers(min_value=-3 * HOP_US, max_value=12 * HOP_US),
    st.integers(min_value=-3, max_value=12).map(lambda k: k * HOP_US),
    st.integers(min_value=-3, max_value=12).map(lambda k: k * HOP_US - 1),
    st.integers(min_value=-3, max_value=70).map(lambda k: k * HOP_US),
)
rows = st.fixed_dictionaries(
    {
        "x": floats,
        "n": st.none() | st.integers(min_value=-1000, max_value=1000) | st.just(2**40),
        "at": st.none() | st.integers(min_value=-(10**12), max_value=10**15),
        "s": st.none() | st.text(max_size=3),
        "b": st.none() | st.booleans(),
    }
)
ids = st.text(alphabet="ab\u00e9\U0001f600z", min_size=1, max_size=4)
histories = st.lists(
    st.tuples(st.integers(0, 2), moments, ids, rows), max_size=14, unique_by=lambda row: row[:3]
)
History = Sequence[tuple[int, int, str, dict[str, Scalar | None]]]


def plan_of(view: View) -> WindowPlan:
    return replace(WindowPlan.compile(view), distinct_exact_below=EXACT_BELOW)


def extension(values: list[Any], dtype: Any) -> Any:
    return pd.array(values, dtype=dtype)


def as_batch(plan: WindowPlan, history: History, nullable: bool = False) -> Batch:
    """Rows as pandas gives them: object strings, floats with NaN, nullable or object integers."""
    frame = pd.DataFrame(
        {
            "event_time": pd.to_datetime([us for _, us, _, _ in history], unit="us", utc=True),
            "event_id": extension([event_id for _, _, event_id, _ in history], dtype=object),
            "x": np.array([math.nan if r["x"] is None else r["x"] for *_, r in history], dtype=np.float64),
            "n": extension([r["n"] for *_, r in history], dtype="Int64" if nullable else object),
            "at": pd.to_datetime(
                extension([r["at"] for *_, r in history], dtype="Int64"), unit="us", utc=True
            ),
            "s": extension([r["s"] for *_, r in history], dtype="string" if nullable else object),
            "b": extension([r["b"] for *_, r in history], dtype="boolean" if nullable else object),
        }
    )
    return Batch.from_frame(frame, np.array([e for e, *_ in history], dtype=np.int64), plan)


def events_of(history: History, entity: int, until_us: int) -> list[Event]:
    return [Event(us, event_id, row) for e, us, event_id, row in history if e == entity and us <= until_us]


def exact(value: Value) -> object:
    """A value that compares −0.0 and 0.0, True and 1 as different."""
    if isinstance(value, tuple):
        return tuple(exact(item) for item in value)
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


def same(left: dict[str, Value], right: dict[str, Value]) -> bool:
    return {k: exact(v) for k, v in left.items()} == {k: exact(v) for k, v in right.items()}


def check(view: View, history: History, applied: Applied, now_us: int) -> None:
    for entity in range(3):
        events = events_of(history, entity, now_us)
        got = {name: column[entity] for name, column in applied.values.items()}
        assert same(got, feature_values(view, events, now_us, EXACT_BELOW))
        due = next_expiry(view, events, now_us)
        assert applied.next_expiry_us[entity] == (NO_EXPIRY if due is None else due)
        at = value_time(view, events, now_us)
        assert applied.value_us[entity] == (NEVER_US if at is None else at)


@settings(max_examples=150, deadline=None)
@given(views(), histories, st.data())
def test_windows_stream_equals_oracle_at_every_prefix(
    view: View, history: History, data: st.DataObject
) -> None:
    """After any micro-batch at any logical time, values, timestamps and due times are the oracle's."""
    plan = plan_of(view)
    states = [TileState.empty(plan)] * 3
    now_us = -4 * HOP_US
    seen: list[tuple[int, int, str, dict[str, Scalar | None]]] = []
    rest = data.draw(st.permutations(history))
    while True:
        size = data.draw(st.integers(0, max(len(rest), 1)))
        part, rest = rest[:size], rest[size:]
        seen = [*seen, *part]
        ahead = data.draw(st.sampled_from([0, 1, HOP_US, 7 * HOP_US]))
        now_us = max([now_us + ahead, *(row[1] for row in part)])
        applied = apply(plan, states, as_batch(plan, part, nullable=size % 2 == 0), now_us)
        check(view, seen, applied, now_us)
        states = [decode(plan, encode(plan, state)) for state in applied.states]
        if not rest:
            break


@settings(max_examples=100, deadline=None)
@given(views(), histories, st.data())
def test_windows_state_bytes_do_not_depend_on_arrival(
    view: View, history: History, data: st.DataObject
) -> None:
    """Any split and permutation of the same events gives the same bytes at the same logical time."""
    plan = plan_of(view)
    end_us = data.draw(st.sampled_from([71, 75, 140])) * HOP_US
    whole = apply(plan, [TileState.empty(plan)] * 3, as_batch(plan, history), end_us)
    order = data.draw(st.permutations(history))
    cut = data.draw(st.integers(0, len(order)))
    states = [TileState.empty(plan)] * 3
    middle_us = data.draw(st.integers(70, 71)) * HOP_US
    for part, now_us in ((order[:cut], middle_us), (order[cut:], end_us)):
        states = apply(plan, states, as_batch(plan, part), now_us).states
    assert [encode(plan, state) for state in states] == [encode(plan, state) for state in whole.states]


def sweep_rows(swept: Sweep) -> list[tuple[int, int, int, dict[str, Value]]]:
    columns = {name: column.to_list() for name, column in swept.columns.items()}
    return [
        (int(entity), int(at), int(value), {name: columns[name][i] for name in columns})
        for i, (entity, at, value) in enumerate(
            zip(swept.entity, swept.event_us, swept.value_us, strict=True)
        )
    ]


@settings(max_examples=150, deadline=None)
@given(views(), histories, st.sampled_from([70, 71, 90, 140]))
def test_windows_sweep_equals_oracle_at_every_instant(view: View, history: History, end: int) -> None:
    """A sweep writes a row at exactly the instants of change, with the oracle's values, up to the end."""
    plan = plan_of(view)
    batch, until_us = as_batch(plan, history), end * HOP_US
    swept = sweep(plan, batch, 3, until_us)
    got = sweep_rows(swept)
    for entity in range(3):
        events = events_of(history, entity, until_us)
        own = [row for row in got if row[0] == entity]
        assert [row[1] for row in own] == change_times(view, events, until_us)
        for _, at, value_us, values in own:
            assert value_us == at
            assert same(values, feature_values(view, events, at, EXACT_BELOW))
    check(view, history, swept.final, until_us)
    assert got == sorted(got, key=lambda row: row[:2])


@settings(max_examples=50, deadline=None)
@given(views(), histories, st.integers(1, 20))
def test_windows_sweep_chunks_join_to_the_whole(view: View, history: History, size: int) -> None:
    """Chunks of any size, put together, are the sweep in one piece."""
    plan = plan_of(view)
    batch, until_us = as_batch(plan, history), 90 * HOP_US
    whole = sweep(plan, batch, 3, until_us)
    chunks = list(sweep_chunks(plan, prepared(plan, batch), 3, until_us, size))
    assert repr([row for chunk in chunks for row in sweep_rows(chunk)]) == repr(sweep_rows(whole))
    states = [state for chunk in chunks for state in chunk.final.states]
    assert [encode(plan, s) for s in states] == [encode(plan, s) for s in whole.final.states]


@settings(max_examples=150, deadline=None)
@given(views(), histories, st.lists(moments, min_size=1, max_size=3))
def test_windows_sweep_in_pieces_of_time_is_the_whole(view: View, history: History, cuts: list[int]) -> None:
    """Pieces that go on from what those before have left give, put together, the rows and the states of the whole."""
    plan = plan_of(view)
    until_us = 90 * HOP_US
    whole = sweep(plan, as_batch(plan, history), 3, until_us)
    held, got = None, []
    begin_us = -(2**62)
    for end_us in [*sorted(cuts), until_us + 1]:
        part = [row for row in history if begin_us <= row[1] < end_us]
        piece = sweep(plan, as_batch(plan, part), 3, end_us - 1, held)
        got += sweep_rows(piece)
        held, begin_us = Held(piece.final.states, end_us - 1), end_us
    got.sort(key=lambda row: row[:2])
    assert repr(got) == repr(sweep_rows(whole))
    assert held is not None
    assert [encode(plan, s) for s in held.states] == [encode(plan, s) for s in whole.final.states]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.floats(-1e6, 1e6)), max_size=1500), st.integers(1, 5))
def test_windows_chunks_are_bounded_and_round_trip(tiles: list[tuple[int, float]], copies: int) -> None:
    """Dense or sparse, a state's chunks stay within 2 KB and decode to the same bytes."""
    functions = ("sum", "count", "min", "max", "mean")
    view = View(
        name="wide",
        join_keys=(),
        features=tuple(Feature(name=f, value_type=V.INT64 if f == "count" else V.DOUBLE) for f in functions),
        aggregations=tuple(
            Aggregation(feature=f, column="x", function=f, window_s=4000 * HOP_S) for f in functions
        ),
        hop_s=HOP_S,
    )
    plan = plan_of(view)
    at = np.array([k * HOP_US for k, _ in tiles] * copies, dtype=np.int64)
    batch = Batch(
        np.zeros(len(at), dtype=np.int64),
        at,
        (),
        {"x": np.array([x for _, x in tiles] * copies, dtype=float)},
    )
    state = apply(plan, [TileState.empty(plan)], batch, 4000 * HOP_US).states[0]
    chunks = encode(plan, state)
    assert all(len(data) <= CHUNK_BYTES for data in chunks.values())
    assert all(name.startswith(b"w:wide:") for name in chunks)
    assert encode(plan, decode(plan, chunks)) == chunks
    assert len(state.index) == len({k for k, _ in tiles})


@pytest.mark.parametrize("count", [0, 1])
def test_windows_empty_batch_moves_time_alone(count: int) -> None:
    """With no rows, and even with no entities, time passes."""
    view = View(
        name="v",
        join_keys=(),
        features=(Feature(name="c", value_type=V.INT64),),
        aggregations=(Aggregation(feature="c", column="*", function="count", window_s=HOP_S),),
        hop_s=HOP_S,
    )
    plan = plan_of(view)
    applied = apply(plan, [TileState.empty(plan)] * count, Batch.empty(plan), 5)
    assert applied.values == {"c": [0] * count}
    assert applied.next_expiry_us.tolist() == [NO_EXPIRY] * count
