"""When entities must be looked at again though nothing arrives.

The index in the store is a superset of what is due: an entry is made before the write that needs it, and whoever finds
it due recomputes the entity, so an entry too many costs a computation and never a wrong value.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

import redis

from streaming.advance import NEVER_US

Member = tuple[str, bytes]
"""Name of the entity kind and the entity's key."""


class Timers:
    """Timers of one partition, one entry per entity: a heap in memory beside the sorted set that the owner writes."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._due: dict[Member, int] = {}
        self._heap: list[tuple[int, Member]] = []

    def load(self) -> None:
        """Read the index from the store, forgetting what memory holds."""
        entries: Any = self._client.zrange(self._key, 0, -1, withscores=True)
        self._due = {parse_member(member): int(score) for member, score in entries}
        self._heap = [(due_us, member) for member, due_us in self._due.items()]
        heapq.heapify(self._heap)

    def next_due_us(self) -> int:
        """The earliest entry, or `NEVER_US`."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER_US

    def due(self, now_us: int, limit: int) -> list[Member]:
        """At most `limit` entities due by `now_us`; each stays in the store's index until it is settled."""
        members: list[Member] = []
        while len(members) < limit and self.next_due_us() <= min(now_us, NEVER_US - 1):
            _, member = heapq.heappop(self._heap)
            del self._due[member]
            members.append(member)
        return members

    def earlier(self, wanted: Mapping[Member, int]) -> dict[Member, int]:
        """What must be in the index before a write that wants these: an earlier entry is kept where there is one."""
        return {
            member: due_us
            for member, due_us in wanted.items()
            if due_us != NEVER_US and due_us < self._due.get(member, NEVER_US)
        }

    def remember(self, entries: Mapping[Member, int]) -> None:
        """Note entries that the index has now."""
        for member, due_us in entries.items():
            self._due[member] = due_us
            heapq.heappush(self._heap, (due_us, member))


def member_text(member: Member) -> bytes:
    """An entry of the index as the store keeps it."""
    kind, key = member
    return kind.encode() + b"\0" + key


def parse_member(text: bytes) -> Member:
    """Read an entry of the index back."""
    kind, _, key = text.partition(b"\0")
    return kind.decode(), key
