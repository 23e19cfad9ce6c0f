"""The log: the seam between those who publish events and those who apply them.

A log has a fixed number of partitions. A record's partition is fixed by its customer, positions grow within a
partition, and a record is durable once `append` has returned.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import itemgetter
from typing import NamedTuple, Protocol, overload

import mmh3
import numpy as np
import numpy.typing as npt

from streaming.events import EventRecord, Events
from streaming.timers import Member
from streaming.touch import Touch

IntArray = npt.NDArray[np.int64]


def partition_of(customer_id: str, partition_count: int) -> int:
    """The partition of a customer's records: murmur3_32 of the id's UTF-8 bytes, modulo the count."""
    return mmh3.hash(customer_id.encode(), signed=False) % partition_count


class LogRecord(NamedTuple):
    """What a reader gets.

    Attributes:
        position: Grows within the partition.
        time_us: Logical time at which the record was appended.
        arrived_us: Wall time at which it was appended; for measuring freshness alone.
        event: The event, or None for a tick, which only moves logical time, and for a touch.
    """

    position: int
    time_us: int
    arrived_us: int
    event: EventRecord | None


@dataclass(frozen=True, slots=True, eq=False)
class Records(Sequence[LogRecord]):
    """Records as columns, in order; as a sequence they are `LogRecord`s.

    Attributes:
        positions: int64, as the two that follow, one a record.
        time_us: As in `LogRecord`.
        arrived_us: As there.
        events: Those of the records that have one.
        event_rows: For each event the number of its record.
        touches: Number of the record and entity of each touch.
        is_full: Whether they are as many as are read at once, so that more may be there.
    """

    positions: IntArray
    time_us: IntArray
    arrived_us: IntArray
    events: Events
    event_rows: IntArray
    touches: tuple[tuple[int, Member], ...] = ()
    is_full: bool = False

    @staticmethod
    @cache
    def none() -> Records:
        """Nothing was there."""
        nothing = np.empty(0, dtype=np.int64)
        return Records(nothing, nothing, nothing, Events.of(()), nothing)

    def __len__(self) -> int:
        return len(self.positions)

    def without_events(self, events: IntArray, *, moves_time: bool) -> Records:
        """The same records, some of them without their event.

        Args:
            events: Numbers of the events.
            moves_time: Whether time is moved by their records as it was with the event, or not at all.
        """
        rows, time_us = self.event_rows[events], self.time_us.copy()
        time_us[rows] = np.maximum(time_us[rows], self.events.event_us[events]) if moves_time else 0
        kept = np.delete(np.arange(len(self.events)), events)
        return replace(self, time_us=time_us, events=self.events.take(kept), event_rows=self.event_rows[kept])

    @property
    def event_positions(self) -> IntArray:
        """Position of each event."""
        return self.positions[self.event_rows]

    @overload
    def __getitem__(self, place: int) -> LogRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> LogRecord | Records:
        if isinstance(place, slice):
            return self._part(*place.indices(len(self)))
        row = range(len(self))[place]
        event = int(np.searchsorted(self.event_rows, row))
        return LogRecord(
            position=int(self.positions[row]),
            time_us=int(self.time_us[row]),
            arrived_us=int(self.arrived_us[row]),
            event=self.events.record(event)
            if event < len(self.event_rows) and self.event_rows[event] == row
            else None,
        )

    def _touches_of(self, start: int, stop: int) -> Sequence[tuple[int, Member]]:
        first, last = (bisect_left(self.touches, row, key=itemgetter(0)) for row in (start, stop))
        return self.touches[first:last]

    def _part(self, start: int, stop: int, step: int) -> Records:
        assert step == 1, "records are read in order"
        first, last = np.searchsorted(self.event_rows, [start, stop])
        return Records(
            self.positions[start:stop],
            self.time_us[start:stop],
            self.arrived_us[start:stop],
            self.events.take(np.arange(first, last)),
            self.event_rows[first:last] - start,
            tuple((row - start, member) for row, member in self._touches_of(start, stop)),
        )


class EventLog(Protocol):
    """Appending, for the server."""

    async def append(self, records: Sequence[EventRecord], now_us: int) -> list[str]:
        """Append events and return their positions, in order. All or nothing per partition.

        Raises:
            LogFull: If a partition has reached its bound.
        """

    async def touch(self, touches: Sequence[Touch], now_us: int) -> None:
        """Append touches, as durable as events.

        Raises:
            LogFull: As in `append`.
        """

    async def tick(self, now_us: int) -> None:
        """Append a tick to every partition."""


class PartitionReader(Protocol):
    """Reading one partition in order, for its one owner."""

    def read(self, after: int, count: int, wait_ms: int) -> Records:
        """Records behind position `after`, waiting up to `wait_ms` for the first.

        They are `count` at most, and fewer where they are large: what is read at once is bounded by its bytes too.
        """

    def ask(self, after: int, count: int) -> Callable[[], Records]:
        """As `read` without a wait, beside what follows: the records are had by a call that must come."""

    def tick(self, now_us: int) -> None:
        """Append a tick to this partition."""

    def trim(self, until: int) -> None:
        """Forget records up to and including position `until`."""
