"""Which records of a batch count: in time, and not seen before.

A duplicate is decided on the customer's own state, where each recent event id stands with the position that first
brought it. So a replay of the same record decides the same: its position is the one that stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.entity import EntityState, recent_bucket_us
from streaming.log import Records
from streaming.recent import CROWDED, REPEATED, id_hashes

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a batch of records comes down to; everything by number of the event among the batch's events.

    Attributes:
        rows: Events that count, in log order.
        late: Those that came later than the lateness bound.
        ahead: Those that lie ahead of the clock by more than the schema allows.
        crowded: Those of customers with as many recent ids as are kept.
        duplicate_count: How many event ids their customer had already brought.
        hashes: Of the event ids, for every event.
        now_us: Logical time after the batch.
    """

    rows: IntArray
    late: IntArray
    ahead: IntArray
    crowded: IntArray
    duplicate_count: int
    hashes: IntArray
    now_us: int


@dataclass(frozen=True, slots=True)
class Customers:
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
    events, event_us = records.events, records.events.event_us
    is_ahead = event_us > ceiling_us
    # Clients may be ahead of the server by the tolerance the schema allows; time never runs behind an event.
    moved_us = np.minimum(records.time_us, ceiling_us)
    arrived_us = moved_us[records.event_rows]
    moved_us[records.event_rows] = np.where(is_ahead, arrived_us, np.maximum(arrived_us, event_us))
    clock_us = np.maximum.accumulate(np.concatenate((np.array([now_us], dtype=np.int64), moved_us)))
    is_late = ~is_ahead & (event_us < np.maximum(clock_us[records.event_rows], arrived_us) - lateness_us)
    timely = np.flatnonzero(~(is_ahead | is_late))
    hashes = id_hashes(events.event_ids)
    marks = note_ids(customers, timely, event_us, hashes, records.positions[records.event_rows], lateness_us)
    return Admitted(
        rows=timely[marks < REPEATED],
        late=np.flatnonzero(is_late),
        ahead=np.flatnonzero(is_ahead),
        crowded=timely[marks == CROWDED],
        duplicate_count=int((marks == REPEATED).sum()),
        hashes=hashes,
        now_us=int(clock_us[-1]),
    )


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
    marks = np.empty(len(rows), dtype=np.uint8)
    if not len(rows):
        return marks
    codes = customers.codes[rows]
    order = np.argsort(codes, kind="stable")
    own = rows[order]
    buckets, ids, places = event_us[own] // recent_bucket_us(lateness_us), hashes[own], positions[own]
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
    marks[order] = found
    return marks


def forget_recent(states: Sequence[EntityState], checkpoint_us: int, lateness_us: int) -> None:
    """Drop event ids that no record behind the checkpoint can repeat in time."""
    first = (checkpoint_us - lateness_us) // recent_bucket_us(lateness_us)
    for state in states:
        if state.recent_ids is not None:
            state.recent_ids.forget(first)
