"""Timers of which memory holds only the earliest fall due as if it held them all."""

from __future__ import annotations

from typing import Any, cast

import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.entity import NEVER_US
from streaming.timers import Member, Timers, member_text


class Index:
    """The sorted set, without a store."""

    def __init__(self) -> None:
        self.entries: dict[Member, int] = {}

    def zrange(self, _key: str, start: int, stop: int, *, withscores: bool) -> list[tuple[bytes, float]]:
        assert withscores
        held = sorted((float(due_us), member_text(member)) for member, due_us in self.entries.items())
        return [(text, score) for score, text in held[start : stop + 1]]


MEMBERS = st.integers(0, 30).map(lambda number: ("customer_id", b"%d" % number))
ANNOUNCED = st.dictionaries(MEMBERS, st.integers(0, 40), max_size=8)


@settings(deadline=None)
@given(
    ANNOUNCED,
    st.integers(1, 4),
    st.lists(st.tuples(ANNOUNCED, st.integers(0, 12), st.integers(1, 5), st.integers(0, 30)), max_size=12),
)
def test_timers_fall_due_whatever_memory_holds(
    first: dict[Member, int], most_held: int, rounds: list[tuple[dict[Member, int], int, int, int]]
) -> None:
    """Every entry that is due is given once, none is given early, and none is left behind."""
    index = Index()
    index.entries = dict(first)
    timers = Timers(cast("redis.Redis", index), "timers", most_held=most_held)
    timers.load()
    now_us = 0
    for announced, passed_us, limit, ahead_us in rounds:
        earlier = {m: t for m, t in announced.items() if t < index.entries.get(m, NEVER_US)}
        index.entries |= earlier
        timers.remember(earlier)
        now_us += passed_us
        assert timers.next_due_us() <= min(index.entries.values(), default=NEVER_US)
        due = timers.due(now_us, limit)
        expected = sum(due_us <= now_us for due_us in index.entries.values())
        assert len(set(due)) == len(due) == min(limit, expected)
        assert all(index.entries[member] <= now_us for member in due)
        latest = max((index.entries[member] for member in due), default=0)
        left = [due_us for member, due_us in index.entries.items() if member not in due]
        assert not due or not left or latest <= min(left)
        _settle(index, timers, due, now_us + ahead_us)
    assert len(cast("Any", timers)._heap) <= 2 * most_held + len(index.entries)


def _settle(index: Index, timers: Timers, due: list[Member], again_us: int) -> None:
    """Of those that were due, every other one is due again; the others never."""
    settled = dict.fromkeys(due[::2], again_us)
    for member in due[1::2]:
        del index.entries[member]
    index.entries |= settled
    timers.remember(settled)


def test_timers_hold_few_of_many() -> None:
    """A million entries in the index are not a million in memory."""
    index = Index()
    index.entries = {("customer_id", b"%d" % number): number for number in range(5_000)}
    timers = Timers(cast("redis.Redis", index), "timers", most_held=100)
    timers.load()
    timers.remember({("customer_id", b"x%d" % number): number for number in range(3_000)})
    assert len(cast("Any", timers)._due) <= 200
    index.entries |= {("customer_id", b"x%d" % number): number for number in range(3_000)}
    assert len(timers.due(10_000, 100_000)) == 8_000
    assert timers.next_due_us() == NEVER_US


def test_timers_told_again_take_no_room() -> None:
    """Most events leave an entity's time as it is: what is known already is not held twice."""
    index = Index()
    timers = Timers(cast("redis.Redis", index), "timers")
    timers.load()
    entries = {("customer_id", b"%d" % number): number for number in range(1_000)}
    for _ in range(5):
        timers.remember(entries)
    assert len(cast("Any", timers)._heap) == 1_000
