"""Which events of a batch count, compared with a plain walk over its records."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming import admit as admitting
from streaming import recent
from streaming.admit import Admitted, Customers, admit, forget_recent, would_count
from streaming.entity import EntityState, recent_bucket_us
from streaming.events import EventRecord, Events
from streaming.log import Records

NOW_US = 10_000_000
CEILING_US = NOW_US + 60
LATENESS_US = 40
TIMES = st.integers(NOW_US - 100, NOW_US + 100)
EVENTS = st.none() | st.tuples(st.integers(0, 2), st.integers(0, 9), TIMES)
"""A tick, or an event: number of its customer, id and time."""
BATCHES = st.lists(st.lists(st.tuples(TIMES, EVENTS), max_size=30), max_size=3)


def _records(batch: list[tuple[int, tuple[int, int, int] | None]], first: int) -> Records:
    events = [event for _, event in batch if event is not None]
    records = [EventRecord(f"e{name}", "buy", f"c{owner}", at, {}) for owner, name, at in events]
    times = np.array([time_us for time_us, _ in batch], dtype=np.int64)
    rows = np.array([row for row, (_, event) in enumerate(batch) if event is not None], dtype=np.int64)
    return Records(np.arange(first, first + len(batch)), times, times, Events.of(records), rows)


def _walk(
    batch: list[tuple[int, tuple[int, int, int] | None]], known: list[dict[int, int]], first: int, now_us: int
) -> tuple[dict[str, list[int]], int, int]:
    """Events by what they are, how many are repeated, and the clock."""
    kinds: dict[str, list[int]] = {"rows": [], "late": [], "ahead": [], "crowded": []}
    repeated, number = 0, -1
    for position, (time_us, event) in enumerate(batch, first):
        moved_us = min(time_us, CEILING_US)
        if event is not None:
            owner, name, at_us = event
            number += 1
            if at_us > CEILING_US:
                kinds["ahead"].append(number)
            elif at_us < max(now_us, moved_us) - LATENESS_US:
                kinds["late"].append(number)
            elif name in known[owner]:
                if known[owner][name] == position:
                    kinds["rows"].append(number)
                else:
                    repeated += 1
            elif len(known[owner]) == recent.MAX_RECENT_IDS:
                kinds["crowded"].append(number)
            else:
                known[owner][name] = position
                kinds["rows"].append(number)
            if at_us <= CEILING_US:
                moved_us = max(moved_us, at_us)
        now_us = max(now_us, moved_us)
    return kinds, repeated, now_us


def _customers(records: Records, states: list[EntityState]) -> Customers:
    return Customers(
        np.array([int(name[1:]) for name in records.events.customer_ids], dtype=np.int64), states
    )


def _admit(records: Records, states: list[EntityState], now_us: int) -> Admitted:
    customers = _customers(records, states)
    return admit(records, customers, now_us=now_us, lateness_us=LATENESS_US, ceiling_us=CEILING_US)


def _would_count(records: Records, states: list[EntityState], now_us: int) -> npt.NDArray[np.int64]:
    customers = _customers(records, states)
    return would_count(records, customers, now_us=now_us, lateness_us=LATENESS_US, ceiling_us=CEILING_US)


@settings(deadline=None)
@given(BATCHES, st.integers(1, 6), st.sampled_from([0, 3, 64]), st.booleans())
def test_events_count_as_a_plain_walk_finds(
    batches: list[list[tuple[int, tuple[int, int, int] | None]]], most: int, by_hand: int, replayed: bool
) -> None:
    """In batches of any size, whether a batch is read again or not, and however many ids are kept.

    Each by itself is told before, without a trace.
    """
    states = [EntityState() for _ in range(3)]
    known: list[dict[int, int]] = [{} for _ in states]
    now_us, first = NOW_US, 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recent, "MAX_RECENT_IDS", most)
        patched.setattr(admitting, "MOST_BY_HAND", by_hand)
        for batch in [batch for batch in batches for _ in range(1 + replayed)]:
            alone = [
                row
                for row, (_, event) in enumerate(batch)
                if event is not None
                and _walk([batch[row]], [dict(ids) for ids in known], first + row, now_us)[0]["rows"]
            ]
            records = _records(batch, first)
            assert records.event_rows[_would_count(records, states, now_us)].tolist() == alone
            found = _admit(records, states, now_us)
            kinds, repeated, now_us = _walk(batch, known, first, now_us)
            assert {name: getattr(found, name).tolist() for name in kinds} == kinds
            assert (found.duplicate_count, found.now_us) == (repeated, now_us)
            first += 0 if replayed else len(batch)


def test_ids_go_once_nothing_can_repeat_them_in_time() -> None:
    """Behind the checkpoint by more than the lateness bound, and not before."""
    lateness_us = 8_000_000
    width_us = recent_bucket_us(lateness_us)
    state, empty = EntityState(), EntityState()
    for number, bucket in enumerate((7, 5, 6)):
        assert state.recent.note_one(bucket, number, number) == recent.NEW
    for first, left in ((5, 3), (6, 2), (7, 1), (8, 0)):
        forget_recent([state, empty], first * width_us + lateness_us, lateness_us)
        assert len(state.recent) == left
    assert empty.recent_ids is None
