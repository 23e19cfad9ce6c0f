"""What every log must do: append, read, trim, refuse at its bound, and give each partition one owner.

An implementation is named in `LOGS`; every claim below is then about it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import redis
import redis.asyncio

import online.exchange
import streaming.owner
from online.route import Command
from online.routed import send_async
from online.store import connect, connect_async
from streaming.advance import SegmentChange
from streaming.errors import LeaseLost, LogFull, StreamingError
from streaming.events import EventRecord
from streaming.journal import Intent
from streaming.keys import PartitionKeys
from streaming.lease import Leases, fair_share
from streaming.log import EventLog, LogRecord, PartitionReader, partition_of
from streaming.owner import DeadLetter, PartitionOwner, Progress
from streaming.positions import pack_position, unpack_position
from streaming.read_ahead import ReadAhead
from streaming.redis_log import (
    PIECE_BYTES,
    PIECE_RECORDS,
    READ_BYTES,
    RedisLog,
    RedisPartitionReader,
    settle_partitions,
)
from streaming.timers import Timers
from streaming.touch import Touch
from tests.support.stores import wait_until

PARTITIONS = 3
NOW_US = 1_700_000_000_000_000


class Implementation(Protocol):
    """How a suite gets at a log."""

    def log(self, partition_count: int, max_records: int) -> AbstractAsyncContextManager[EventLog]:
        """The writer of a new project's log."""

    def reader(self, partition: int) -> PartitionReader:
        """Reads a partition of it."""

    def position(self, text: str) -> tuple[int, int]:
        """Partition and position of what `append` returned."""


@dataclass(frozen=True, slots=True)
class RedisStreams:
    """The embedded default."""

    url: str
    client: redis.Redis

    @asynccontextmanager
    async def log(self, partition_count: int, max_records: int) -> AsyncIterator[EventLog]:
        connection = connect_async(self.url)
        try:
            yield RedisLog(connection, "p", partition_count, max_records)
        finally:
            await connection.aclose()

    def reader(self, partition: int) -> PartitionReader:
        return RedisPartitionReader(self.client, PartitionKeys("p", partition))

    def position(self, text: str) -> tuple[int, int]:
        partition, _, stream_id = text.partition(":")
        return int(partition), pack_position(stream_id.encode())


class RedisStreamsAhead(RedisStreams):
    """As it is read by the materializer."""

    def reader(self, partition: int) -> PartitionReader:
        return ReadAhead(super().reader(partition))


LOGS = {"redis-streams": RedisStreams, "redis-streams-ahead": RedisStreamsAhead}


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as client:
        client.flushall()
        yield client


@pytest.fixture(params=LOGS)
def implementation(request: pytest.FixtureRequest, url: str, client: redis.Redis) -> Implementation:
    return LOGS[request.param](url, client)


def _event(number: int, customer_id: str = "ada") -> EventRecord:
    return EventRecord(f"e{number}", "look", customer_id, NOW_US + number, {"what": "tea", "n": number})


def _blocked_count(client: redis.Redis) -> int:
    clients: Any = client.info("clients")
    return int(clients["blocked_clients"])


def _numbers(records: Sequence[LogRecord]) -> list[object]:
    return [record.event.properties["n"] for record in records if record.event]


async def test_log_carries_touches_among_events(implementation: Implementation) -> None:
    """A touch stands where it was appended, in its owner's partition, and stays by its record when records are cut."""
    async with implementation.log(PARTITIONS, 1000) as log:
        await log.append([_event(0)], NOW_US)
        await log.touch([Touch("ada", ("reader", b"\x00k1")), Touch("ada", ("reader", b"k2"))], NOW_US + 1)
        await log.append([_event(1)], NOW_US + 2)
    records = implementation.reader(partition_of("ada", PARTITIONS)).read(0, 100, 0)
    assert [record.time_us - NOW_US for record in records] == [0, 1, 1, 2]
    assert _numbers(records) == [0, 1]
    assert records.touches == ((1, ("reader", b"\x00k1")), (2, ("reader", b"k2")))
    assert records[2:4].touches == ((0, ("reader", b"k2")),)
    assert not records[3:4].touches


async def test_log_refuses_touches_at_its_bound(implementation: Implementation) -> None:
    """As events: nothing of them is appended."""
    touch = Touch("ada", ("reader", b"k"))
    async with implementation.log(1, 2) as log:
        await log.append([_event(0)], NOW_US)
        await log.touch([touch], NOW_US)
        with pytest.raises(LogFull):
            await log.touch([touch], NOW_US)
    assert len(implementation.reader(0).read(0, 100, 0)) == 2


async def test_log_keeps_the_order_of_a_customer(implementation: Implementation) -> None:
    """A partition is read in the order of appending, in as many pieces as wanted, each record once."""
    async with implementation.log(PARTITIONS, 1000) as log:
        for start in (0, 5, 10):
            await log.append([_event(number) for number in range(start, start + 5)], NOW_US + start)
    reader = implementation.reader(partition_of("ada", PARTITIONS))
    position, found = 0, list[LogRecord]()
    while records := reader.read(position, 4, 0):
        position = records[-1].position
        found += records
    assert _numbers(found) == list(range(15))
    times = [record.time_us for record in found]
    assert times == sorted(times)


LARGE_BYTES = 60_000
SMALL, LARGE = 700, 1_000


async def test_what_is_read_at_once_is_bounded_by_its_bytes_too(implementation: Implementation) -> None:
    """Small and large events: every read brings some, as many as fit, and whether more may be there."""

    def sized(number: int, size: int) -> EventRecord:
        return EventRecord(f"e{number}", "look", "ada", NOW_US, {"n": number, "page": "x" * size})

    events = [sized(number, 0 if number < SMALL else LARGE_BYTES) for number in range(SMALL + LARGE)]
    async with implementation.log(1, 10_000) as log:
        for start in range(0, len(events), 50):
            await log.append(events[start : start + 50], NOW_US)
    reader = implementation.reader(0)
    position, found, sizes = 0, list[LogRecord](), list[int]()
    while True:
        records = reader.ask(position, 10_000)() if len(sizes) % 2 else reader.read(position, 10_000, 0)
        found += records
        sizes.append(sum(map(len, records.events.texts)))
        position = records[-1].position
        if not records.is_full:
            break
    assert _numbers(found) == list(range(SMALL + LARGE))
    assert len(sizes) > 2
    assert sizes[0] < READ_BYTES + (PIECE_RECORDS + 1) * LARGE_BYTES, (
        "it cannot know how large the next ones are"
    )
    assert max(sizes[1:]) < READ_BYTES + PIECE_BYTES + LARGE_BYTES
    assert not len(reader.read(position, 10, 0))


async def test_a_waiting_reader_gets_what_is_appended_at_once_whole(
    implementation: Implementation, client: redis.Redis
) -> None:
    """The first record ends the wait, and those beside it must not wait until that one is applied."""
    reader = implementation.reader(0)
    async with implementation.log(1, 1000) as log:
        reading = asyncio.create_task(asyncio.to_thread(reader.read, 0, 100, 20_000))
        await asyncio.to_thread(wait_until, lambda: _blocked_count(client) == 1, "the reader waits", 20)
        await log.append([_event(number) for number in range(13)], NOW_US)
        assert _numbers(await reading) == list(range(13))


async def test_log_places_each_customer_in_one_partition(implementation: Implementation) -> None:
    """The positions that `append` returns say where each record is, in the order of the records."""
    events = [_event(number, f"c{number % 7}") for number in range(50)]
    async with implementation.log(PARTITIONS, 1000) as log:
        places = await log.append(events, NOW_US)
    for event, place in zip(events, places, strict=True):
        partition, position = implementation.position(place)
        assert partition == partition_of(event.customer_id, PARTITIONS)
        found = implementation.reader(partition).read(position - 1, 1, 0)
        assert found[0].event == event


async def test_log_refuses_what_does_not_fit_and_takes_it_when_there_is_room(
    implementation: Implementation,
) -> None:
    """At its bound a partition refuses with a time to try again; trimmed, it goes on, and nothing was lost."""
    reader = implementation.reader(0)
    async with implementation.log(1, 300) as log:
        for start in range(0, 300, 100):
            await log.append([_event(number) for number in range(start, start + 100)], NOW_US)
        with pytest.raises(LogFull) as refusal:
            await log.append([_event(300)], NOW_US)
        assert refusal.value.retry_after_ms > 0
        records = reader.read(0, 1000, 0)
        assert len(records) == 300
        reader.trim(records[-1].position)
        await log.append([_event(300)], NOW_US)
    assert _numbers(reader.read(records[-1].position, 10, 0)) == [300]


async def test_log_keeps_what_is_not_trimmed(implementation: Implementation) -> None:
    """Trimming up to a position takes nothing behind it, whatever is rounded."""
    reader = implementation.reader(0)
    async with implementation.log(1, 100_000) as log:
        for start in range(0, 2000, 500):
            await log.append([_event(number) for number in range(start, start + 500)], NOW_US)
    records = reader.read(0, 10_000, 0)
    reader.trim(records[1234].position)
    assert _numbers(reader.read(records[1234].position, 10_000, 0)) == list(range(1235, 2000))


@pytest.mark.parametrize("count", [1, 3, 4, 10])
async def test_records_that_were_asked_for_are_those_that_a_read_finds(
    implementation: Implementation, count: int
) -> None:
    """However many are had at once, asked for and read in turn; nothing where nothing is there."""
    reader = implementation.reader(0)
    assert not len(reader.ask(0, count)())
    found: list[object] = []
    position = 0
    async with implementation.log(1, 100) as log:
        await log.append([_event(number) for number in range(11)], NOW_US)
    for turn in range(12):
        records = reader.ask(position, count)() if turn % 3 else reader.read(position, count, 0)
        assert len(records) == min(count, 11 - len(found))
        found += _numbers(records)
        position = records[-1].position if len(records) else position
    assert found == list(range(min(11, 12 * count)))


async def test_ticks_move_time_in_every_partition(implementation: Implementation) -> None:
    """A tick is a record without an event."""
    async with implementation.log(PARTITIONS, 1000) as log:
        await log.tick(NOW_US + 7)
    for partition in range(PARTITIONS):
        reader = implementation.reader(partition)
        (record,) = reader.read(0, 10, 0)
        assert (record.event, record.time_us) == (None, NOW_US + 7)
        reader.tick(NOW_US + 8)
        assert [found.time_us for found in reader.read(record.position, 10, 0)] == [NOW_US + 8]


async def test_newest_time_of_a_log_is_known_without_reading_it(url: str, client: redis.Redis) -> None:
    """A server on a virtual clock takes up at the newest record or checkpoint."""
    connection = connect_async(url)
    log = RedisLog(connection, "p", PARTITIONS, 1000)
    assert await log.last_time_us() == 0
    await log.tick(NOW_US + 7)
    assert await log.last_time_us() == NOW_US + 7
    _owner(client).move_checkpoint(Progress(time_us=NOW_US + 9))
    assert await log.last_time_us() == NOW_US + 9
    await connection.aclose()


async def test_the_most_events_of_a_call_are_appended_in_one_go(
    url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second round trip would wait for the first to be synced, and could fail once all is appended."""
    sent: list[int] = []

    async def counted(to: redis.asyncio.Redis, commands: Sequence[Command]) -> list[object]:
        sent.append(len(commands))
        return await send_async(to, commands)

    monkeypatch.setattr(online.exchange, "send_async", counted)
    events = [EventRecord(f"e{n}", "buy", f"c{n}", NOW_US, {}) for n in range(1_000)]
    connection = connect_async(url)
    await RedisLog(connection, "p", PARTITIONS, 10_000).append(events, NOW_US)
    await connection.aclose()
    assert sent == [len(events) + PARTITIONS]
    stored: list[Any] = [client.xlen(PartitionKeys("p", number).log) for number in range(PARTITIONS)]
    assert sum(stored) == len(events)


def test_positions_pack_and_unpack_in_order() -> None:
    """A stream id survives as an integer, and integers order as stream ids do."""
    ids = [b"0-1", b"1-0", b"1700000000000-0", b"1700000000000-1048575", b"1700000000001-0"]
    packed = [pack_position(stream_id) for stream_id in ids]
    assert packed == sorted(packed)
    assert [unpack_position(position).encode() for position in packed] == ids
    assert packed[-1] < 2**63


def test_partition_count_is_settled_once(client: redis.Redis) -> None:
    """Another count would leave acknowledged records unread, so it is refused with the setting that mends it."""
    settle_partitions(client, "p", 3)
    settle_partitions(client, "p", 3)
    with pytest.raises(StreamingError, match="begun with 3 partitions, not 4: set WAYPOST_PARTITIONS=3"):
        settle_partitions(client, "p", 4)


def _leases(client: redis.Redis, owner: str, ttl_ms: int = 60_000) -> Leases:
    return Leases(client, "p", owner, ttl_ms)


def _owner(client: redis.Redis, name: str = "ada") -> PartitionOwner:
    lease = _leases(client, name).acquire(0)
    assert lease is not None
    return PartitionOwner(client, lease)


def _dump(client: redis.Redis) -> dict[bytes, bytes]:
    dumps: dict[bytes, Any] = {key: client.dump(key) for key in client.scan_iter()}
    return dumps


def test_lease_has_one_holder_and_fences_grow(client: redis.Redis) -> None:
    """Nobody else gets a partition until it is given back or has run out; each holder's number is larger."""
    ada, bob = _leases(client, "ada"), _leases(client, "bob")
    first = ada.acquire(0)
    assert first is not None
    assert bob.acquire(0) is None
    assert bob.acquire(1) is not None
    ada.release(first)
    second = bob.acquire(0)
    assert second is not None
    assert second.fence > first.fence
    assert not ada.renew(first)
    assert bob.renew(second)
    ada.release(first)
    assert ada.acquire(0) is None, "what ada gives back is no longer hers"


def test_lease_that_ran_out_can_be_renewed_until_somebody_else_has_come(client: redis.Redis) -> None:
    """A store that was away costs an owner nothing; an owner that was away finds its place taken."""
    ada, bob = _leases(client, "ada"), _leases(client, "bob")
    lease = ada.acquire(0)
    assert lease is not None
    client.delete(lease.keys.lease)
    assert ada.renew(lease)
    client.delete(lease.keys.lease)
    assert bob.acquire(0) is not None
    assert not ada.renew(lease)


def test_members_share_fairly(client: redis.Redis) -> None:
    """Everybody sees the same members, and the shares add up to all partitions."""
    _leases(client, "bob").join()
    _leases(client, "ada").join()
    members = _leases(client, "cyd").join()
    assert members == ["ada", "bob", "cyd"]
    for count in range(1, 12):
        assert sum(fair_share(name, members, count) for name in members) == count
    _leases(client, "bob").leave()
    assert _leases(client, "ada").join() == ["ada", "cyd"]


def test_owner_is_refused_at_every_write_once_another_has_come(client: redis.Redis) -> None:
    """Whatever a former owner tries to write into its partition, nothing of it is there."""
    ada = _owner(client)
    ada.move_checkpoint(Progress(position=5, time_us=6, record_count=7, intent=8))
    bob = _owner(client, "ada")
    assert bob.fence > ada.fence
    before = _dump(client)
    change = SegmentChange(b"k", "s", True, 1, "customer_id")
    ada.log_changes(9, [change], [{"customer_id": "ada"}])
    ada.show(Progress(position=9))
    writes: list[Callable[[], None]] = [
        ada.deliver,
        lambda: ada.intend(Intent(9), {("customer_id", b"k"): 1}),
        lambda: ada.move_checkpoint(Progress(position=9)),
        lambda: ada.publish_stats({"events": 1}),
        lambda: ada.bury([DeadLetter(9, "LATE", "", "", 0, b"[]")]),
    ]
    for write in writes:
        with pytest.raises(LeaseLost, match="another materializer owns partition 0"):
            write()
    assert _dump(client) == before
    assert bob.checkpoint() == Progress(position=5, time_us=6, record_count=7, intent=8)


def test_intents_leave_a_sign_of_their_own(client: redis.Redis) -> None:
    """What is written behind an intent can tell it from any other, of this owner or another."""
    ada = _owner(client)
    first = ada.intention(Intent(1), {})
    assert client.get(first.key.decode()) is None
    ada.leave(first)
    assert client.get(first.key.decode()) == first.sign
    bob = _owner(client, "ada")
    assert bob.intention(Intent(1), {}).sign != first.sign
    second = bob.intention(Intent(2), {})
    assert second.key == first.key
    bob.leave(second)
    assert client.get(first.key.decode()) == second.sign


def test_intents_stay_until_the_checkpoint_has_them_behind_it(client: redis.Redis) -> None:
    """What is not delivered is found again, in order and as it was."""
    owner = _owner(client)
    changes = (SegmentChange(b"\x00k", "s", True, 1, "customer_id"),)
    intents = [Intent(1, changes=changes), Intent(2, void={1: frozenset([(b"\x00k", "")])}), Intent(3)]
    for intent in intents:
        owner.intend(intent, {})
    assert owner.undelivered(Progress()) == intents
    owner.move_checkpoint(Progress(intent=2))
    assert owner.undelivered(owner.checkpoint()) == intents[2:]


def test_timers_are_kept_at_the_earliest_and_settled(client: redis.Redis) -> None:
    """An entry made before a write never moves a timer back; settling replaces or removes it."""
    owner = _owner(client)
    ada, bob = ("customer_id", b"ada"), ("customer_id", b"bob")
    owner.intend(Intent(1), {ada: 50, bob: 60})
    owner.intend(Intent(2), {ada: 70})
    timers = Timers(client, owner.keys.timers)
    timers.load()
    assert timers.due(1000, 10) == [ada, bob]
    owner.conclude({ada: 90}, [bob])
    owner.deliver()
    timers.load()
    assert timers.next_due_us() == 90
    assert timers.due(1000, 10) == [ada]


def test_many_dead_letters_are_put_aside_in_bounded_calls(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers others in between, and they lie in order."""
    monkeypatch.setattr(streaming.owner, "LETTERS_AT_ONCE", 2)
    owner = _owner(client)
    owner.bury([DeadLetter(1 << 20, "LATE", "event_time", "too late", 0, b"[]")])
    client.config_resetstat()
    owner.bury([DeadLetter(n << 20, "LATE", "event_time", "too late", 0, b"[]") for n in range(7, 0, -1)])
    stats: Any = client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 3
    letters: Any = client.xrange(owner.keys.dead_letters)
    assert [name for name, _ in letters] == [b"%d-0" % n for n in range(1, 8)]


def test_segment_changes_and_dead_letters_are_logged_once(client: redis.Redis) -> None:
    """Both logs know their entries by number, so that what is delivered again is not there twice."""
    owner = _owner(client)
    change = SegmentChange(b"k", "s", True, 1, "customer_id")
    owner.log_changes(4, [change, change], [{"customer_id": "ada"}, {"customer_id": "bob"}])
    owner.show(Progress(position=4))
    assert owner.last_change() == 0
    owner.intend(Intent(5), {})
    assert owner.last_change() == 4
    assert client.hgetall(owner.keys.applied)[b"position"] == b"4"  # type: ignore[index]
    letters = [DeadLetter(position << 20, "LATE", "event_time", "too late", 0, b"[]") for position in (7, 5)]
    owner.bury(letters)
    owner.bury(letters)
    assert [name for name, _ in client.xrange(owner.keys.changes)] == [b"4-0", b"4-1"]  # type: ignore[union-attr]
    assert [name for name, _ in client.xrange(owner.keys.dead_letters)] == [b"5-0", b"7-0"]  # type: ignore[union-attr]
