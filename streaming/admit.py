"""Which records of a batch count: in time, and not seen before.

A duplicate is decided on the customer's own state, where each recent event id stands with the position that first
brought it. So a replay of the same record decides the same: its position is the one that stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streaming.entity import EntityState, recent_bucket_us
from streaming.events import EventRecord
from streaming.log import LogRecord
from streaming.recent import MAX_RECENT_IDS, id_hash


@dataclass(slots=True)
class Admitted:
    """What a batch of records comes down to.

    Attributes:
        records: Records with an event that counts, in log order.
        late: Records whose event came later than the lateness bound.
        ahead: Records whose event lies ahead of the clock by more than the schema allows.
        crowded: Records of customers with as many recent ids as are kept.
        duplicate_count: Records whose event id their customer had already brought.
        now_us: Logical time after the batch.
    """

    records: list[LogRecord] = field(default_factory=list)
    late: list[LogRecord] = field(default_factory=list)
    ahead: list[LogRecord] = field(default_factory=list)
    crowded: list[LogRecord] = field(default_factory=list)
    duplicate_count: int = 0
    now_us: int = 0


def admit(
    records: Sequence[LogRecord],
    customers: Mapping[str, EntityState],
    *,
    now_us: int,
    lateness_us: int,
    ceiling_us: int,
) -> Admitted:
    """Sort a batch into what counts and what does not, and note the new event ids on the customers' states.

    Args:
        records: In log order.
        customers: State of each record's customer, by customer id; `recent` is changed in place.
        now_us: Logical time before the batch.
        lateness_us: Bound on how much later than its event time an event may arrive.
        ceiling_us: Time does not move past it, whatever the records say: one server whose clock is ahead must not
            make everybody's events late.
    """
    admitted = Admitted(now_us=now_us)
    bucket_us = recent_bucket_us(lateness_us)
    for record in records:
        now_us = max(now_us, min(record.time_us, ceiling_us))
        event = record.event
        if event is None:
            continue
        event_us = event.event_us
        if event_us > ceiling_us:
            admitted.ahead.append(record)
            continue
        if event_us < now_us - lateness_us:
            admitted.late.append(record)
            continue
        # Clients may be ahead of the server by the tolerance the schema allows; time never runs behind an event.
        now_us = max(now_us, event_us)
        recent = customers[event.customer_id].recent
        hashed = id_hash(event.event_id)
        first = recent.position(hashed)
        if first is None:
            if len(recent) >= MAX_RECENT_IDS:
                admitted.crowded.append(record)
                continue
            recent.note(event_us // bucket_us, hashed, record.position)
        elif first != record.position:
            admitted.duplicate_count += 1
            continue
        admitted.records.append(record)
    admitted.now_us = now_us
    return admitted


def note_recent(state: EntityState, event: EventRecord, position: int, lateness_us: int) -> None:
    """Note which position brought an event id to its customer."""
    state.recent.note(event.event_us // recent_bucket_us(lateness_us), id_hash(event.event_id), position)


def forget_recent(state: EntityState, checkpoint_us: int, lateness_us: int) -> None:
    """Drop event ids that no record behind the checkpoint can repeat in time."""
    if state.recent_ids is not None:
        state.recent_ids.forget((checkpoint_us - lateness_us) // recent_bucket_us(lateness_us))
