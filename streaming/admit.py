"""Which records of a batch count: in time, and not seen before.

A duplicate is decided on the customer's own state, where each recent event id stands with the position that first
brought it. So a replay of the same record decides the same: its position is the one that stands there.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streaming.admit_kernels import KINDS, judge, put_apart
from streaming.entity import EntityState, recent_bucket_us
from streaming.log import Records
from streaming.recent import SAME, id_hashes

IntArray = npt.NDArray[np.int64]

MOST_BY_HAND = 64
"""Up to so many ids are noted one by one before arrays have put those of each customer side by side."""


class Admitted(NamedTuple):
    """What a batch of records comes down to; everything by number of the event among the batch's events.

    Attributes:
        rows: Events that count, in log order.
        late: Those that came later than the lateness bound.
        ahead: Those that lie ahead of the clock by more than the schema allows.
        crowded: Those of customers with as many recent ids as are kept.
        duplicate_count: How many event ids their customer had already brought.
        hashes: Of the event ids, for every event.
        now_us: Logical time after the batch.
        ceiling_us: What time was not to move past, where that decided anything; else None.
    """

    rows: IntArray
    late: IntArray
    ahead: IntArray
    crowded: IntArray
    duplicate_count: int
    hashes: IntArray
    now_us: int
    ceiling_us: int | None


class Customers(NamedTuple):
    """Whose the events of a batch are.

    Attributes:
        codes: For each event the number of its customer.
        states: Of the customers.
    """

    codes: IntArray
    states: Sequence[EntityState]


def admit(
    records: Records, customers: Customers, *, now_us: int, lateness_us: int, ceiling_us: int
) -> Admitted:
    """Sort a batch into what counts and what does not, and note the new event ids on the customers' states.

    Args:
        records: In log order.
        customers: Whose they are; `recent` of their states is changed in place.
        now_us: Logical time before the batch.
        lateness_us: Bound on how much later than its event time an event may arrive.
        ceiling_us: Time does not move past it, whatever the records say: one server whose clock is ahead must not
            make everybody's events late.
    """
    events = records.events
    marks = np.empty(len(events), dtype=np.uint8)
    timely, order = np.empty((2, len(events)), dtype=np.int64)
    moved_us, count, is_capped = judge(
        records.time_us, records.event_rows, events.event_us, now_us, ceiling_us, lateness_us, marks, timely
    )
    timely, hashes = timely[:count], id_hashes(events.event_ids)
    marks[timely] = note_ids(customers, timely, events.event_us, hashes, records.event_positions, lateness_us)
    stops = np.empty(KINDS, dtype=np.int64)
    put_apart(marks, order, stops)
    counting, repeated, crowded, late, ahead = stops.tolist()
    return Admitted(
        rows=order[:counting],
        late=order[crowded:late],
        ahead=order[late:ahead],
        crowded=order[repeated:crowded],
        duplicate_count=repeated - counting,
        hashes=hashes,
        now_us=moved_us,
        ceiling_us=ceiling_us if is_capped else None,
    )


def would_count(
    records: Records, customers: Customers, *, now_us: int, lateness_us: int, ceiling_us: int
) -> IntArray:
    """Those events of a batch that would count if each came next, and the others had never come; nothing is noted.

    Args:
        records: In log order.
        customers: Whose they are.
        now_us: Logical time before any of them.
        lateness_us: As in `admit`.
        ceiling_us: As there.
    """
    events, positions = records.events, records.event_positions
    moved_us = np.minimum(records.time_us[records.event_rows], ceiling_us)
    earliest_us = np.maximum(now_us, moved_us) - lateness_us
    (timely,) = ((events.event_us <= ceiling_us) & (events.event_us >= earliest_us)).nonzero()
    events_timely = timely.tolist()
    hashes = id_hashes([events.event_ids[event] for event in events_timely]).tolist()
    owners, places = customers.codes[timely].tolist(), positions[timely].tolist()
    known = [customers.states[owner].recent_ids for owner in owners]
    notes = zip(events_timely, known, hashes, places, strict=True)
    return np.array(
        [event for event, recent, *note in notes if recent is None or recent.look_up(*note) <= SAME], np.int64
    )


def counting(
    records: Records,
    refused: Container[int],
    customers: Customers,
    *,
    now_us: int,
    lateness_us: int,
    ceiling_us: int,
) -> IntArray:
    """Those of some refused events that would count; they move no time and leave no id, as the others that count do.

    Args:
        records: In log order.
        refused: Numbers of events.
        customers: Whose the events are; nothing is noted.
        now_us: Logical time before the batch.
        lateness_us: As in `admit`.
        ceiling_us: As there.
    """
    events, positions = records.events, records.event_positions.tolist()
    hashes, owners = id_hashes(events.event_ids).tolist(), customers.codes.tolist()
    known = [state.recent_ids for state in customers.states]
    time_us, event_us = records.time_us.tolist(), events.event_us.tolist()
    event_of = dict(zip(records.event_rows.tolist(), range(len(events)), strict=True))
    seen: set[tuple[int, int]] = set()
    found = []
    for row, record_us in enumerate(time_us):
        moved_us, event = min(record_us, ceiling_us), event_of.get(row, -1)
        if event >= 0 and event_us[event] <= ceiling_us:
            recent, own = known[owners[event]], (owners[event], hashes[event])
            is_late = event_us[event] < max(now_us, moved_us) - lateness_us
            is_new = own not in seen and (
                recent is None or recent.look_up(hashes[event], positions[event]) <= SAME
            )
            if event in refused and is_new and not is_late:
                found.append(event)
                continue
            if not is_late:
                seen.add(own)
            moved_us = max(moved_us, event_us[event])
        now_us = max(now_us, moved_us)
    return np.array(found, dtype=np.int64)


def note_ids(
    customers: Customers,
    rows: IntArray,
    event_us: IntArray,
    hashes: IntArray,
    positions: IntArray,
    lateness_us: int,
) -> npt.NDArray[np.uint8]:
    """Note which positions brought event ids to their customers.

    Args:
        customers: Whose the events are.
        rows: Events to be noted, in log order.
        event_us: Time of each event of the batch.
        hashes: Of the event ids, for every event.
        positions: Of the events.
        lateness_us: Gives the width of the buckets.

    Returns:
        What each of `rows` turned out to be, as `RecentIds.note` says it.
    """
    codes, buckets = customers.codes[rows], event_us[rows] // recent_bucket_us(lateness_us)
    if len(rows) <= MOST_BY_HAND:
        notes = zip(
            codes.tolist(), buckets.tolist(), hashes[rows].tolist(), positions[rows].tolist(), strict=True
        )
        states = customers.states
        return np.array([states[owner].recent.note_one(*note) for owner, *note in notes], dtype=np.uint8)
    order = np.argsort(codes, kind="stable")
    own = rows[order]
    buckets, ids, places = buckets[order], hashes[own], positions[own]
    found = np.empty(len(rows), dtype=np.uint8)
    owners, starts = np.unique(codes[order], return_index=True)
    stops = [*starts[1:].tolist(), len(rows)]
    alone = zip(buckets[starts].tolist(), ids[starts].tolist(), places[starts].tolist(), strict=True)
    for owner, start, stop, one in zip(owners.tolist(), starts.tolist(), stops, alone, strict=True):
        recent = customers.states[owner].recent
        if stop - start == 1:
            found[start] = recent.note_one(*one)
        else:
            found[start:stop] = recent.note(buckets[start:stop], ids[start:stop], places[start:stop])
    marks = np.empty(len(rows), dtype=np.uint8)
    marks[order] = found
    return marks


def forget_recent(states: Sequence[EntityState], checkpoint_us: int, lateness_us: int) -> None:
    """Drop event ids that no record behind the checkpoint can repeat in time."""
    first = (checkpoint_us - lateness_us) // recent_bucket_us(lateness_us)
    for state in states:
        recent = state.recent_ids
        if recent is not None and recent.oldest < first:
            recent.forget(first)
