"""What every log must do, shown on Redis Streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis
import redis.asyncio

from online.store import connect, connect_async
from streaming.errors import LogFull, StreamingError
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import partition_of
from streaming.redis_log import (
    RedisLog,
    RedisPartitionReader,
    pack_position,
    settle_partitions,
    unpack_position,
)
from tests.support.valkey import start_valkey

PARTITIONS = 3
NOW_US = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as client:
        client.flushall()
        yield client


@pytest.fixture
async def asynchronous(url: str, client: redis.Redis) -> AsyncIterator[redis.asyncio.Redis]:
    del client  # the store is empty once it is made
    connection = connect_async(url)
    yield connection
    await connection.aclose()


def _event(number: int, customer_id: str = "ada") -> EventRecord:
    return EventRecord(f"e{number}", "look", customer_id, NOW_US + number, {"what": "tea", "n": number})


def _reader(client: redis.Redis, partition: int) -> RedisPartitionReader:
    return RedisPartitionReader(client, PartitionKeys("p", partition))


async def test_log_keeps_the_order_of_a_customer(
    client: redis.Redis, asynchronous: redis.asyncio.Redis
) -> None:
    """A partition is read in the order of appending, in as many pieces as wanted, each record once."""
    log = RedisLog(asynchronous, "p", PARTITIONS, 1000)
    for start in (0, 5, 10):
        await log.append([_event(number) for number in range(start, start + 5)], NOW_US + start)
    reader = _reader(client, partition_of("ada", PARTITIONS))
    position, numbers, times = 0, [], []
    while records := reader.read(position, 4, 0):
        position = records[-1].position
        numbers += [record.event.properties["n"] for record in records if record.event]
        times += [record.time_us for record in records]
    assert numbers == list(range(15))
    assert times == sorted(times)


async def test_log_places_each_customer_in_one_partition(
    client: redis.Redis, asynchronous: redis.asyncio.Redis
) -> None:
    """The positions that `append` returns say where each record is, in the order of the records."""
    log = RedisLog(asynchronous, "p", PARTITIONS, 1000)
    events = [_event(number, f"c{number % 7}") for number in range(50)]
    positions = await log.append(events, NOW_US)
    for event, place in zip(events, positions, strict=True):
        partition, _, stream_id = place.partition(":")
        assert int(partition) == partition_of(event.customer_id, PARTITIONS)
        found = _reader(client, int(partition)).read(pack_position(stream_id.encode()) - 1, 1, 0)
        assert found[0].event == event


async def test_log_refuses_what_does_not_fit_and_takes_it_when_there_is_room(
    client: redis.Redis, asynchronous: redis.asyncio.Redis
) -> None:
    """At its bound a partition refuses with a time to try again; trimmed, it goes on, and nothing was lost."""
    log = RedisLog(asynchronous, "p", 1, 300)
    for start in range(0, 300, 100):
        await log.append([_event(number) for number in range(start, start + 100)], NOW_US)
    with pytest.raises(LogFull) as refusal:
        await log.append([_event(300)], NOW_US)
    assert refusal.value.retry_after_ms > 0
    reader = _reader(client, 0)
    records = reader.read(0, 1000, 0)
    assert len(records) == 300
    reader.trim(records[-1].position)
    await log.append([_event(300)], NOW_US)
    assert [r.event.event_id for r in reader.read(records[-1].position, 10, 0) if r.event] == ["e300"]


async def test_ticks_move_time_in_every_partition(
    client: redis.Redis, asynchronous: redis.asyncio.Redis
) -> None:
    """A tick is a record without an event; the newest time of the log is known without reading it."""
    log = RedisLog(asynchronous, "p", PARTITIONS, 1000)
    assert await log.last_time_us() == 0
    await log.tick(NOW_US + 7)
    for partition in range(PARTITIONS):
        (record,) = _reader(client, partition).read(0, 10, 0)
        assert (record.event, record.time_us) == (None, NOW_US + 7)
    assert await log.last_time_us() == NOW_US + 7


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
