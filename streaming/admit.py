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


@dataclass(slots=True)
class Admitted:
    """What a batch of records comes down to.

    Attributes:
        records: Records with an event that counts, in log order.
        late: Records whose event came later than the lateness bound.
        ahead: Records whose event lies ahead of the clock by more than the schema allows.
        duplicate_count: Records whose event id their customer had already brought.
        now_us: Logical time after the batch.
    """

    records: list[LogRecord] = field(default_factory=list)
    late: list[LogRecord] = field(default_factory=list)
    ahead: list[LogRecord] = field(default_factory=list)
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
    for record in records:
        admitted.now_us = max(admitted.now_us, min(record.time_us, ceiling_us))
        event = record.event
        if event is None:
            continue
        if event.event_us > ceiling_us:
            admitted.ahead.append(record)
            continue
        if event.event_us < admitted.now_us - lateness_us:
            admitted.late.append(record)
            continue
        # Clients may be ahead of the server by the tolerance the schema allows; time never runs behind an event.
        admitted.now_us = max(admitted.now_us, event.event_us)
        recent = customers[event.customer_id].recent
        first = next((ids[event.event_id] for ids in recent.values() if event.event_id in ids), None)
        if first is not None and first != record.position:
            admitted.duplicate_count += 1
            continue
        note_recent(customers[event.customer_id], event, record.position, lateness_us)
        admitted.records.append(record)
    return admitted


def note_recent(state: EntityState, event: EventRecord, position: int, lateness_us: int) -> None:
    """Note which position brought an event id to its customer."""
    bucket = event.event_us // recent_bucket_us(lateness_us)
    state.recent.setdefault(bucket, {})[event.event_id] = position


def forget_recent(state: EntityState, checkpoint_us: int, lateness_us: int) -> None:
    """Drop event ids that no record behind the checkpoint can repeat in time."""
    bucket_us = recent_bucket_us(lateness_us)
    horizon_us = checkpoint_us - lateness_us
    for bucket in [bucket for bucket in state.recent if (bucket + 1) * bucket_us <= horizon_us]:
        del state.recent[bucket]
