"""What the stream itself holds of a customer beside the entities: events in the log, timers, changes, dead letters.

Events that were published and not yet applied would bring an erased customer back. So the customer's partition is
brought to a point first (`settle`): everything published before it is applied and behind the checkpoint, where no crash
reads it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from online.errors import KeyEncodingError, StoreUnavailableError
from online.keys import StoredKey, parse_key
from streaming.archive import remove_unfinished_before
from streaming.dead_letters import names_customer
from streaming.errors import StreamingError
from streaming.events import EventRecord
from streaming.file_locks import outlast_writers
from streaming.keys import PartitionKeys, partition_count_key, refused_key
from streaming.log import partition_of
from streaming.positions import pack_position
from streaming.redis_log import EVENT, TOUCH, RedisPartitionReader
from streaming.timers import parse_member

ENTRIES_PER_READ = 1_000
POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """How many entries there were, or are."""

    events: int
    changes: int
    dead_letters: int
    timers: int

    @property
    def total(self) -> int:
        return self.events + self.changes + self.dead_letters + self.timers


class CustomerTraces:
    """The log's part of one customer."""

    def __init__(self, client: redis.Redis, project: str, customer_key: str, customer_id: str) -> None:
        self._client: Any = client
        self._customer_key = customer_key
        self._customer_id = customer_id
        with _store_errors():
            settled: Any = client.get(partition_count_key(project))
        count = int(settled or 0)
        self._partitions = [PartitionKeys(project, number) for number in range(count)]
        self._own = self._partitions[partition_of(customer_id, count)] if count else None
        self._refused = refused_key(project)

    def settle(self, wait_s: float) -> None:
        """Wait until everything published so far in the customer's partition is applied and checkpointed.

        Raises:
            StreamingError: The materializer did not get there in time.
        """
        if self._own is None:
            return
        with _store_errors():
            if not self._client.exists(self._own.log) and not self._client.exists(self._own.checkpoint):
                return
            RedisPartitionReader(self._client, self._own).tick(self._last_time_us(self._own))
            (newest, _), *_ = self._client.xrevrange(self._own.log, count=1)
            give_up_at = time.monotonic() + wait_s
            while self._checkpoint(self._own) < pack_position(newest):
                if time.monotonic() > give_up_at:
                    raise StreamingError(
                        f"the materializer of partition {self._own.partition} does not come to its end within "
                        f"{wait_s:g} s: is one running, and can it write its data folder? Wait longer with --wait-s; "
                        "with --offline nothing is waited for, when none runs"
                    )
                time.sleep(POLL_S)

    def check_delivered(self) -> None:
        """See that no materializer died with writes of the customer's partition under way; for where none runs.

        Raises:
            StreamingError: One did; the next to start would come back to the customer's entities.
        """
        if self._own is None:
            return
        with _store_errors():
            delivered = int(self._client.hget(self._own.checkpoint, "intent") or 0)
            if self._client.xrange(self._own.journal, min=f"({delivered}-0", count=1):
                raise StreamingError(
                    f"the materializer of partition {self._own.partition} ended with writes under way: start it, so "
                    "that it delivers them, and erase while it runs"
                )

    def outlast_writers(self, archive: Path) -> None:
        """See that no former owner of the partition can still leave a file of events; half of one is removed.

        Raises:
            FilesHeld: One stands still while it writes.
        """
        if self._own is None:
            return
        with _store_errors():
            fence = int(self._client.get(self._own.fence) or 0)
        outlast_writers(archive, self._own.partition)
        remove_unfinished_before(archive, self._own.partition, fence)

    def remove(self, wanted: Callable[[StoredKey], bool], *, apply: bool) -> Traces:
        """Remove the customer's entries; or, without `apply`, count them.

        Args:
            wanted: Which entities are the customer's; for the timers.
            apply: Whether to remove.
        """
        with _store_errors():
            timers = sum(self._timers(keys, wanted, apply=apply) for keys in self._partitions)
            if self._own is None:
                return Traces(events=0, changes=0, dead_letters=0, timers=timers)
            own = self._own
            return Traces(
                events=self._events(own, wanted, apply=apply),
                changes=self._entries(own.changes, self._is_change, apply=apply),
                dead_letters=self._entries(own.dead_letters, self._is_dead_letter, apply=apply)
                + self._entries(self._refused, self._is_refused, apply=apply),
                timers=timers,
            )

    def _last_time_us(self, keys: PartitionKeys) -> int:
        newest = self._client.xrevrange(keys.log, count=1)
        applied = self._client.hget(keys.checkpoint, "time_us")
        return max(int(newest[0][1][b"t"]) if newest else 0, int(applied or 0))

    def _checkpoint(self, keys: PartitionKeys) -> int:
        return int(self._client.hget(keys.checkpoint, "position") or 0)

    def _events(self, keys: PartitionKeys, wanted: Callable[[StoredKey], bool], *, apply: bool) -> int:
        """Remove events and touches from the log; those never applied are counted as if they had been."""
        position = self._checkpoint(keys)
        unapplied = removed = 0

        def is_own(fields: dict[bytes, bytes]) -> bool:
            return self._is_event(fields) or (TOUCH in fields and _belongs(fields[TOUCH], wanted))

        for stream_ids in self._matching(keys.log, is_own):
            removed += len(stream_ids)
            unapplied += sum(pack_position(stream_id) > position for stream_id in stream_ids)
            if apply:
                self._client.xdel(keys.log, *stream_ids)
        if apply and unapplied:
            # Lag is what was appended less what was applied, and these will never be.
            for counter in (keys.checkpoint, keys.applied):
                self._client.hincrby(counter, "record_count", unapplied)
        return removed

    def _entries(self, stream: str, wanted: Callable[[dict[bytes, bytes]], bool], *, apply: bool) -> int:
        removed = 0
        for stream_ids in self._matching(stream, wanted):
            removed += len(stream_ids)
            if apply:
                self._client.xdel(stream, *stream_ids)
        return removed

    def _matching(self, stream: str, wanted: Callable[[dict[bytes, bytes]], bool]) -> Iterator[list[bytes]]:
        after = b"-"
        while entries := self._client.xrange(stream, min=after, count=ENTRIES_PER_READ):
            found = [stream_id for stream_id, fields in entries if wanted(fields)]
            if found:
                yield found
            after = b"(" + entries[-1][0]

    def _timers(self, keys: PartitionKeys, wanted: Callable[[StoredKey], bool], *, apply: bool) -> int:
        members = [
            member
            for member, _ in self._client.zscan_iter(keys.timers, count=ENTRIES_PER_READ)
            if _belongs(member, wanted)
        ]
        for part in _parts(members):
            if apply:
                self._client.zrem(keys.timers, *part)
        return len(members)

    def _is_event(self, fields: dict[bytes, bytes]) -> bool:
        data = fields.get(EVENT)
        return data is not None and EventRecord.from_bytes(data).customer_id == self._customer_id

    def _is_dead_letter(self, fields: dict[bytes, bytes]) -> bool:
        return EventRecord.from_bytes(fields[b"event"]).customer_id == self._customer_id

    def _is_refused(self, fields: dict[bytes, bytes]) -> bool:
        return names_customer(fields, self._customer_id)

    def _is_change(self, fields: dict[bytes, bytes]) -> bool:
        return str(json.loads(fields[b"entity"]).get(self._customer_key)) == self._customer_id


def _belongs(member: bytes, wanted: Callable[[StoredKey], bool]) -> bool:
    _, key = parse_member(member)
    try:
        return wanted(parse_key(key))
    except KeyEncodingError:
        return False


def _parts(members: list[bytes]) -> Iterable[list[bytes]]:
    return (members[start : start + ENTRIES_PER_READ] for start in range(0, len(members), ENTRIES_PER_READ))


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailableError(f"the store stopped answering: {error}") from error
