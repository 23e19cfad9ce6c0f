"""What a step says it changed, put over what was stored, is the state as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Aggregation, Feature, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.changes import Changes, changes
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState, decode, encode
from streaming.windows.stream import apply
from tests.property.test_online_view_words import words
from tests.property.test_windows_oracle import HOP_US, History, as_batch, histories, plan_of, views


@settings(max_examples=150, deadline=None)
@given(views(), histories, st.data())
def test_changes_give_the_whole_state(view: View, history: History, data: st.DataObject) -> None:
    """Stored chunks, less what is dropped and with what is put, are the chunks of the new state, and no more is put."""
    plan = plan_of(view)
    states = [TileState.empty(plan)] * 3
    stored: list[dict[bytes, bytes]] = [{}, {}, {}]
    now_us, rest = -4 * HOP_US, data.draw(st.permutations(history))
    while True:
        size = data.draw(st.integers(0, max(len(rest), 1)))
        part, rest = rest[:size], rest[size:]
        now_us = max(
            [now_us + data.draw(st.sampled_from([0, HOP_US, 60 * HOP_US])), *(row[1] for row in part)]
        )
        applied = apply(plan, states, as_batch(plan, part), now_us)
        fresh = np.array([not fields for fields in stored], dtype=np.int64)
        _follow(plan, stored, changes(plan, states, applied, fresh), applied.states)
        states = [decode(plan, fields) for fields in stored]
        if not rest:
            break


def _follow(
    plan: WindowPlan, stored: list[dict[bytes, bytes]], found: Changes, states: list[TileState]
) -> None:
    for number, (fields, state) in enumerate(zip(stored, states, strict=True)):
        put, drop = words(found.put.row(number)), words(found.drop.row(number))
        assert (len(put), len(drop)) == (found.put.sizes[number], found.drop.sizes[number])
        pairs = dict(zip(put[::2], put[1::2], strict=True))
        assert all(fields.get(name) != value for name, value in pairs.items())
        assert set(drop) <= set(fields)
        for name in drop:
            del fields[name]
        fields.update(pairs)
        assert fields == encode(plan, state)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4000), st.floats(-1e6, 1e6)), max_size=400), max_size=5),
    st.integers(0, 2500),
)
def test_changes_of_many_tiles(parts: list[list[tuple[int, float]]], step: int) -> None:
    """States of many chunks, which fill up, are halved, and lose their oldest tiles."""
    functions = ("sum", "count", "min")
    view = View(
        name="wide",
        join_keys=(),
        features=tuple(
            Feature(name=f, value_type=ValueType.INT64 if f == "count" else ValueType.DOUBLE)
            for f in functions
        ),
        aggregations=tuple(
            Aggregation(feature=f, column="x", function=f, window_s=3000 * 60) for f in functions
        ),
        hop_s=60,
    )
    plan = WindowPlan.compile(view)
    stored: list[dict[bytes, bytes]] = [{}]
    states, now_us = [TileState.empty(plan)], 4000 * HOP_US
    for part in parts:
        at = np.array([k * HOP_US for k, _ in part], dtype=np.int64)
        xs = np.array([x for _, x in part], dtype=float)
        batch = Batch(np.zeros(len(at), dtype=np.int64), at, (), {"x": xs})
        applied = apply(plan, states, batch, now_us)
        fresh = np.array([not stored[0]], dtype=np.int64)
        _follow(plan, stored, changes(plan, states, applied, fresh), applied.states)
        states, now_us = applied.states, now_us + step * HOP_US


@pytest.mark.parametrize("seed", range(6))
def test_changes_amid_many_tiles(seed: int) -> None:
    """Late rows of all sizes, some in tiles of their own: chunks grow, are halved, and become whole again."""
    rng = np.random.default_rng(seed)
    view = View(
        name="dense",
        join_keys=(),
        features=(Feature(name="sum", value_type=ValueType.DOUBLE),),
        aggregations=(Aggregation(feature="sum", column="x", function="sum", window_s=1000 * 60),),
        hop_s=60,
    )
    plan = WindowPlan.compile(view)
    stored: list[dict[bytes, bytes]] = [{}]
    states, now_us = [TileState.empty(plan)], 1000 * HOP_US
    held = rng.choice(1000, rng.integers(300, 600), replace=False)
    counts = set()
    for size in [len(held), *[1] * 400]:
        at = held if size > 1 else rng.choice(np.append(held, rng.integers(0, 1000)), 1)
        xs = np.full(size, 1e-6) if size > 1 else rng.choice([1.0, 1e9, 1e9, -1e9], 1)
        batch = Batch(np.zeros(size, dtype=np.int64), at * HOP_US, (), {"x": xs})
        applied = apply(plan, states, batch, now_us)
        fresh = np.array([not stored[0]], dtype=np.int64)
        _follow(plan, stored, changes(plan, states, applied, fresh), applied.states)
        states = applied.states
        counts.add(len(stored[0]))
    assert len(counts) > 1
