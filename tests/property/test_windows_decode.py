"""States read many at once are those read one by one, damaged ones included."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import View
from streaming.windows.errors import StateCorrupt
from streaming.windows.plan import WindowPlan
from streaming.windows.state import Stored, TileState, decode, decode_many, encode
from streaming.windows.stream import apply
from tests.property.test_windows_oracle import HOP_US, History, as_batch, histories, plan_of, views


def _stored(plan: WindowPlan, chunks: dict[bytes, bytes], order: random.Random) -> Stored:
    entry = Stored()
    names = list(chunks)
    order.shuffle(names)
    for name in names:
        place = name.removeprefix(b"w:%b:" % plan.view.encode())
        if place == b"h":
            entry.head = chunks[name]
        elif place.startswith(b"d"):
            entry.add_other(name, chunks[name])
        else:
            bits, number = place.split(b":")
            entry.add(int(bits), int(number), chunks[name])
    assert entry.chunks(plan) == chunks
    return entry


def _same(one: TileState, other: TileState) -> bool:
    return (one.data, one.firsts, one.refs, one.sets) == (other.data, other.firsts, other.refs, other.sets)


@settings(max_examples=100, deadline=None)
@given(views(), histories, st.randoms(use_true_random=False))
def test_many_states_are_those_read_alone(view: View, history: History, order: random.Random) -> None:
    """Whatever the aggregations, in whatever order the store gives the chunks, those of other entities beside them."""
    plan = plan_of(view)
    now_us = max([0, *(row[1] for row in history)]) + HOP_US
    states = apply(plan, [TileState.empty(plan)] * 3, as_batch(plan, history), now_us).states
    chunks = [encode(plan, state) for state in states]
    found = decode_many(plan, [_stored(plan, part, order) for part in chunks])
    for one, part, state in zip(found, chunks, states, strict=True):
        assert _same(one, decode(plan, part))
        assert _same(one, state)


@settings(max_examples=100, deadline=None)
@given(views(), histories, st.data())
def test_a_damaged_chunk_is_found_among_many(view: View, history: History, data: st.DataObject) -> None:
    """What is refused alone is refused among others, and nothing else is."""
    plan = plan_of(view)
    now_us = max([0, *(row[1] for row in history)]) + HOP_US
    states = apply(plan, [TileState.empty(plan)] * 3, as_batch(plan, history), now_us).states
    chunks = [encode(plan, state) for state in states]
    name = data.draw(st.sampled_from(sorted(chunks[1])))
    whole = chunks[1][name]
    cut = data.draw(st.integers(0, len(whole)))
    chunks[1][name] = data.draw(
        st.sampled_from([whole[:cut], whole[:cut] + b"\xff" + whole[cut + 1 :], whole + b"\x00"])
    )
    entries = [_stored(plan, part, random.Random(0)) for part in chunks]
    try:
        expected = [decode(plan, part) for part in chunks]
    except StateCorrupt:
        with pytest.raises(StateCorrupt):
            decode_many(plan, entries)
    else:
        for one, other in zip(decode_many(plan, entries), expected, strict=True):
            assert _same(one, other)
