"""The log on Redis Streams.

Durable as far as the store is: with `appendfsync always`, an acknowledged record survives a crash of the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import redis
import redis.asyncio

from online.errors import StoreUnavailableError
from online.exchange import ask, exchange, exchange_async
from online.route import Command
from streaming.errors import LogFull, StreamingError
from streaming.events import EventRecord, Events
from streaming.keys import PartitionKeys, partition_count_key
from streaming.log import Records, partition_of
from streaming.positions import pack_columns, unpack_position
from streaming.timers import member_text, parse_member
from streaming.touch import Touch

RETRY_AFTER_MS = 1000
EVENT = b"e"
TOUCH = b"k"
READ_BYTES = 16 * 2**20
"""About the most that is read at once; what is made of it takes a multiple."""
PIECE_RECORDS = 128
"""Records are asked for in pieces, as the store does not bound an answer by its size."""
FIRST_RECORDS = 16
"""While it is not known how large they are."""
PIECE_BYTES = 4 * 2**20
"""The most of a piece, were its records as large as the largest lately; where they become large at once it is more."""

_Entry = tuple[bytes, list[bytes]]
"""Id, and names and values in turn."""


def record_fields(now_us: int, event: EventRecord | None) -> dict[Any, Any]:
    """A record as fields of a stream entry: an event, or a tick for None, appended at logical time `now_us`."""
    fields: dict[Any, Any] = {b"t": now_us, b"w": time.time_ns() // 1000}
    if event is not None:
        fields[EVENT] = event.to_bytes()
    return fields


class RedisLog:
    """Appends to all partitions; one round trip per batch."""

    def __init__(
        self, client: redis.asyncio.Redis, project: str, partition_count: int, max_records: int
    ) -> None:
        """Make the writer.

        Args:
            client: Connection to the store.
            project: The Feast project.
            partition_count: Fixed for the life of the log.
            max_records: Bound of each partition; an append that finds it reached is refused.
        """
        self._client = client
        self._keys = [PartitionKeys(project, partition) for partition in range(partition_count)]
        self._max_records = max_records
        self._lengths = [0] * partition_count

    async def append(self, records: Sequence[EventRecord], now_us: int) -> list[str]:
        """Append events; returns positions as `partition:ms-seq`, in the order of `records`.

        Raises:
            LogFull: If a partition concerned has reached its bound; nothing was appended.
        """
        partitions = [partition_of(record.customer_id, len(self._keys)) for record in records]
        answers = await self._append(partitions, (record_fields(now_us, record) for record in records))
        return [
            f"{partition}:{stream_id.decode()}"
            for partition, stream_id in zip(partitions, answers, strict=True)
        ]

    async def touch(self, touches: Sequence[Touch], now_us: int) -> None:
        """Append touches; one round trip.

        Raises:
            LogFull: If a partition concerned has reached its bound; nothing was appended.
        """
        partitions = [partition_of(touch.owner, len(self._keys)) for touch in touches]
        tick = record_fields(now_us, None)
        await self._append(partitions, (tick | {TOUCH: member_text(touch.member)} for touch in touches))

    async def tick(self, now_us: int) -> None:
        """Append a tick to every partition."""
        pipeline = self._client.pipeline(transaction=False)
        for keys in self._keys:
            pipeline.xadd(keys.log, record_fields(now_us, None))
        await pipeline.execute()

    async def last_time_us(self) -> int:
        """Logical time of the newest record or checkpoint of any partition; 0 for an empty log."""
        pipeline = self._client.pipeline(transaction=False)
        for keys in self._keys:
            pipeline.xrevrange(keys.log, count=1)
            pipeline.hget(keys.checkpoint, "time_us")
        answers = await pipeline.execute()
        times = [int(fields[b"t"]) for entries in answers[::2] for _, fields in entries]
        return max([0, *times, *(int(answer) for answer in answers[1::2] if answer is not None)])

    async def _append(self, partitions: Sequence[int], records: Iterable[dict[Any, Any]]) -> list[Any]:
        """Append the fields of records, each to its partition; returns the ids of their entries."""
        concerned = sorted(set(partitions))
        await self._check_room(concerned)
        keys = [keys.log.encode() for keys in self._keys]
        commands: list[Command] = [
            (b"XADD", keys[partition], b"*", *chain.from_iterable(fields.items()))
            for partition, fields in zip(partitions, records, strict=True)
        ]
        commands += [(b"XLEN", keys[partition]) for partition in concerned]
        answers = await self._ask(commands)
        for partition, length in zip(concerned, answers[len(partitions) :], strict=True):
            self._lengths[partition] = length
        return answers[: len(partitions)]

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go; raises redis-py's errors, the first of those that they were answered with."""
        try:
            answers = await exchange_async(self._client, commands)
        except StoreUnavailableError as error:
            raise redis.ConnectionError(str(error)) from error
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        return answers

    async def _check_room(self, partitions: Sequence[int]) -> None:
        # The length known from the last append is enough until it reaches the bound: it overshoots by a batch at most.
        for partition in partitions:
            if self._lengths[partition] < self._max_records:
                continue
            self._lengths[partition] = await self._client.xlen(self._keys[partition].log)
            if self._lengths[partition] >= self._max_records:
                message = (
                    f"partition {partition} of the log holds {self._lengths[partition]} records that are not applied "
                    f"yet, its bound is {self._max_records}; is a materializer running?"
                )
                raise LogFull(message, RETRY_AFTER_MS)


def settle_partitions(client: redis.Redis, project: str, partition_count: int) -> None:
    """Settle how many partitions a project's log has; for its whole life, since the count places every customer.

    Raises:
        StreamingError: If the log was begun with another count.
    """
    key = partition_count_key(project)
    client.set(key, partition_count, nx=True)
    settled: Any = client.get(key)
    if int(settled) != partition_count:
        raise StreamingError(
            f"the log of project {project!r} was begun with {int(settled)} partitions, not {partition_count}: "
            f"set WAYPOST_PARTITIONS={int(settled)} (or --partitions), or start over in an empty store"
        )


class RedisPartitionReader:
    """Reads one partition in order from a position."""

    def __init__(self, client: redis.Redis, keys: PartitionKeys) -> None:
        self._client = client
        self._key = keys.log
        self._largest = PIECE_BYTES // FIRST_RECORDS

    def read(self, after: int, count: int, wait_ms: int) -> Records:
        """At most `count` records behind `after`, and about `READ_BYTES`, waiting up to `wait_ms` for the first.

        The first of records that are appended in one go ends the wait, before the others are there; so what is there
        after it is asked for behind it, in the same round trip.

        Args:
            after: Position.
            count: One at least.
            wait_ms: 0 is not at all.
        """
        asked = self._fitting(count)
        commands = [self._command(_id(after), asked, 0)]
        if wait_ms > 0:
            commands.insert(0, self._command(_id(after), 1, wait_ms))
        return self._whole(asked, _entries(exchange(self._client, commands)), count)

    def ask(self, after: int, count: int) -> Callable[[], Records]:
        """As many records that are there behind `after`; what is returned must be called for them."""
        asked = self._fitting(count)
        replies = ask(self._client, [self._command(_id(after), asked, 0)])
        return lambda: self._whole(asked, _entries(replies()), count)

    def tick(self, now_us: int) -> None:
        """Append a tick to this partition."""
        self._client.xadd(self._key, record_fields(now_us, None))

    def trim(self, until: int) -> None:
        """Forget records up to and including `until`."""
        self._client.xtrim(self._key, minid=unpack_position(until + 1), approximate=True)

    def _fitting(self, count: int) -> int:
        """How many records are asked for where so many are wanted."""
        return max(1, min(count, PIECE_RECORDS, PIECE_BYTES // self._largest))

    def _whole(self, asked: int, piece: Sequence[_Entry], count: int) -> Records:
        """Read on behind a first piece of so many records that were asked for."""
        entries, size = list(piece), self._note_sizes(piece)
        while len(piece) == asked and len(entries) < count and size < READ_BYTES:
            asked = self._fitting(count - len(entries))
            piece = _entries(exchange(self._client, [self._command(entries[-1][0], asked, 0)]))
            entries += piece
            size += self._note_sizes(piece)
        return replace(_records(entries), is_full=len(piece) == asked) if entries else Records.none()

    def _note_sizes(self, piece: Sequence[_Entry]) -> int:
        """Note how large records are lately; returns the bytes of these ones."""
        sizes = [len(row[-1]) for _, row in piece]
        # A large one is remembered for some pieces: others like it may come among small ones.
        self._largest = max([1, self._largest * 7 // 8, *sizes])
        return sum(sizes)

    def _command(self, after: bytes, count: int, wait_ms: int) -> Command:
        block = (b"BLOCK", wait_ms) if wait_ms > 0 else ()
        return (b"XREAD", b"COUNT", count, *block, b"STREAMS", self._key.encode(), after)


def _id(position: int) -> bytes:
    return unpack_position(position).encode()


def _entries(replies: Sequence[Any]) -> Sequence[_Entry]:
    """The entries of the last reply.

    Raises:
        redis.RedisError: What the store answered instead.
    """
    for answer in replies:
        if isinstance(answer, redis.RedisError):
            raise answer
    if not answer:
        return ()
    found: Sequence[_Entry] = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    return found


def _records(entries: Sequence[_Entry]) -> Records:
    """The records of entries, as they come from the server."""
    ids, rows = zip(*entries, strict=True)
    times, arrivals, texts, event_rows, touches = [], [], [], [], []
    for number, row in enumerate(rows):
        # fields stand in the order in which `record_fields` makes them
        times.append(row[1])
        arrivals.append(row[3])
        if len(row) > 4:
            if row[4] == EVENT:
                texts.append(row[5])
                event_rows.append(number)
            else:
                touches.append((number, parse_member(row[5])))
    positions, time_us, arrived_us = pack_columns(ids, times, arrivals)
    return Records(
        positions=positions,
        time_us=time_us,
        arrived_us=arrived_us,
        events=Events.from_bytes(texts),
        event_rows=np.array(event_rows, dtype=np.int64),
        touches=tuple(touches),
    )
