"""The log: the seam between those who publish events and those who apply them.

A log has a fixed number of partitions. A record's partition is fixed by its customer, positions grow within a
partition, and a record is durable once `append` has returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import mmh3

from streaming.events import EventRecord


def partition_of(customer_id: str, partition_count: int) -> int:
    """The partition of a customer's records: murmur3_32 of the id's UTF-8 bytes, modulo the count."""
    return mmh3.hash(customer_id.encode(), signed=False) % partition_count


class LogRecord(NamedTuple):
    """What a reader gets.

    Attributes:
        position: Grows within the partition.
        time_us: Logical time at which the record was appended.
        arrived_us: Wall time at which it was appended; for measuring freshness alone.
        event: The event, or None for a tick, which only moves logical time.
    """

    position: int
    time_us: int
    arrived_us: int
    event: EventRecord | None


class EventLog(Protocol):
    """Appending, for the server."""

    async def append(self, records: Sequence[EventRecord], now_us: int) -> list[str]:
        """Append events and return their positions, in order. All or nothing per partition.

        Raises:
            LogFull: If a partition has reached its bound.
        """

    async def tick(self, now_us: int) -> None:
        """Append a tick to every partition."""


class PartitionReader(Protocol):
    """Reading one partition in order, for its one owner."""

    def read(self, after: int, count: int, wait_ms: int) -> list[LogRecord]:
        """At most `count` records behind position `after`, waiting up to `wait_ms` for the first."""

    def tick(self, now_us: int) -> None:
        """Append a tick to this partition."""

    def trim(self, until: int) -> None:
        """Forget records up to and including position `until`."""
