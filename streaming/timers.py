"""When entities must be looked at again though nothing arrives.

The index in the store is a superset of what is due: an entry is made before the write that needs it, and whoever finds
it due recomputes the entity, so an entry too many costs a computation and never a wrong value. Memory holds only the
earliest entries: those before a horizon, which moves on as they run out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import redis

from streaming.entity import NEVER_US

Member = tuple[str, bytes]
"""Name of the entity kind and the entity's key."""

MOST_HELD = 10_000
"""Entries that are read from the index at once, while events wait; in memory there are at most twice as many."""


class Timers:
    """Timers of one partition, one entry per entity: all in the sorted set that the owner writes, the earliest here.

    Args:
        client: Connection to the store.
        key: Of the sorted set.
        await_index: Returns once the index has what was announced; what it lacks when it is read is forgotten.
        most_held: As `MOST_HELD`.
    """

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        await_index: Callable[[], None] = lambda: None,
        most_held: int = MOST_HELD,
    ) -> None:
        self._client = client
        self._key = key
        self._await_index = await_index
        self._most_held = most_held
        self._due: dict[Member, int] = {}
        self._heap: list[tuple[int, Member]] = []
        self._horizon_us = NEVER_US

    def load(self) -> None:
        """Read the earliest entries from the store, forgetting what memory holds."""
        self._load(set())

    def next_due_us(self) -> int:
        """No entry is earlier; `NEVER_US` where there is none."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else self._horizon_us

    def due(self, now_us: int, limit: int) -> list[Member]:
        """At most `limit` entities due by `now_us`; each stays in the store's index until it is settled."""
        members: list[Member] = []
        until_us = min(now_us, NEVER_US - 1)
        while len(members) < limit and self.next_due_us() <= until_us:
            if not self._heap:
                self._load(set(members))
                continue
            _, member = heapq.heappop(self._heap)
            del self._due[member]
            members.append(member)
        return members

    def remember(self, entries: Mapping[Member, int]) -> None:
        """Note entries that the index has, or has once `await_index` returns."""
        for member, due_us in entries.items():
            if due_us < self._horizon_us:
                if self._due.get(member) == due_us:
                    continue
                self._due[member] = due_us
                heapq.heappush(self._heap, (due_us, member))
            else:
                self._due.pop(member, None)
        if len(self._heap) > 2 * self._most_held:
            self._shrink()

    def _load(self, taken: set[Member]) -> None:
        """Read the earliest entries but those that are taken and not settled yet."""
        self._await_index()
        count = self._most_held + len(taken)
        entries: Any = self._client.zrange(self._key, 0, count - 1, withscores=True)
        self._horizon_us = NEVER_US if len(entries) < count else int(entries[-1][1])
        held = {parse_member(member): int(score) for member, score in entries}
        self._hold({member: due_us for member, due_us in held.items() if member not in taken})

    def _shrink(self) -> None:
        """Leave the later half to the store."""
        held = sorted(self._due.items(), key=lambda entry: entry[1])
        if len(held) > self._most_held:
            self._horizon_us = min(self._horizon_us, held[self._most_held][1])
        self._hold({member: due_us for member, due_us in held if due_us < self._horizon_us})

    def _hold(self, held: dict[Member, int]) -> None:
        self._due = held
        self._heap = [(due_us, member) for member, due_us in held.items()]
        heapq.heapify(self._heap)


def member_text(member: Member) -> bytes:
    """An entry of the index as the store keeps it."""
    kind, key = member
    return kind.encode() + b"\0" + key


def parse_member(text: bytes) -> Member:
    """Read an entry of the index back."""
    kind, _, key = text.partition(b"\0")
    return kind.decode(), key
