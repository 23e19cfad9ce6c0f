from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, ValueType, View
from online.errors import StoreUnavailableError
from online.keys import EntityKeys, feature_field
from online.read import OnlineReader, ReadPlan
from online.store import connect, open_topology
from online.values import encode_value
from online.write import EntityWrite, EntityWriter, ViewWrite, revision_of
from server.embedded import EmbeddedValkey
from tests.support.valkey import run_valkey

USER = JoinKey(name="user_id", value_type=ValueType.INT64)
VIEW = View(name="v", join_keys=(USER,), features=(Feature(name="a", value_type=ValueType.INT64),))
CATALOG = Catalog(project="demo", views=(VIEW,))
PLAN = ReadPlan.compile(CATALOG, [FeatureRef(view="v", feature="a")])
KEYS = EntityKeys("demo", [USER])

WRITTEN = frozenset({"v"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server with a hundred entities, whose value is their id."""
    with run_valkey(tmp_path) as made:
        with connect(made.url) as client:
            assert None not in EntityWriter(client).apply([write(number, 0) for number in range(100)])
        yield made


@pytest_asyncio.fixture
async def reader(server: EmbeddedValkey) -> AsyncIterator[OnlineReader]:
    """A reader of that server, closed afterwards."""
    made = OnlineReader(open_topology(server.url))
    yield made
    await made.aclose()


def write(number: int, revision: int) -> EntityWrite:
    """Store an entity's id as its value."""
    values = {feature_field("v", "a"): encode_value(ValueType.INT64, number)}
    view = ViewWrite(view="v", values=values, event_us=0)
    return EntityWrite(key=KEYS.encode({"user_id": number}), revision=revision, views=(view,), state={})


async def read(
    reader: OnlineReader, number: int, timeout_s: float = 2.0
) -> tuple[object, Status, str | None]:
    """Read one entity's value, status and error."""
    (columns,) = await reader.fetch([(PLAN, [{"user_id": number}])], now_us=0, timeout_s=timeout_s)
    return columns.values(0)[0], Status(columns.statuses[0, 0]), columns.error


async def test_reads_time_out_and_the_next_read_is_clean(
    server: EmbeddedValkey, reader: OnlineReader
) -> None:
    """A frozen server costs the timeout, no more, and a late reply never reaches a later request."""
    assert await read(reader, 1) == (1, Status.PRESENT, None)
    server.pause()
    started = time.monotonic()
    assert await read(reader, 2, timeout_s=0.1) == (
        None,
        Status.TIMEOUT,
        "the store gave no answer: out of time",
    )
    assert time.monotonic() - started < 2
    server.resume()
    for number in (3, 4, 5):
        assert await read(reader, number) == (number, Status.PRESENT, None)


async def test_reads_cancelled_in_flight_poison_nothing(server: EmbeddedValkey, reader: OnlineReader) -> None:
    """Callers cancelled at any point leave no reply behind for those that come after."""
    for turn in range(60):
        tasks = [asyncio.create_task(read(reader, number)) for number in range(8)]
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[1::2] == [(number, Status.PRESENT, None) for number in (1, 3, 5, 7)]
    with connect(server.url) as client:
        assert client.info("clients")["connected_clients"] <= 16 + 1


async def test_reads_of_a_killed_server_fail_fast_and_recover(
    server: EmbeddedValkey, reader: OnlineReader
) -> None:
    """A dead store gives TIMEOUT cells with a reason at once; after its restart the next read is whole."""
    await asyncio.gather(*(read(reader, number) for number in range(10)))
    server.pause()
    pending = asyncio.create_task(read(reader, 1, timeout_s=5.0))
    for _ in range(50):
        await asyncio.sleep(0)
    server.kill()
    value, status, error = await asyncio.wait_for(pending, timeout=4.0)
    assert (value, status) == (None, Status.TIMEOUT)
    assert error is not None
    assert (await read(reader, 2))[1] == Status.TIMEOUT
    server.start()
    assert await read(reader, 7) == (7, Status.PRESENT, None)


async def test_reads_from_something_that_is_not_redis_are_timeouts() -> None:
    """A server that answers rubbish makes cells TIMEOUT with the reason, not an exception."""

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader = OnlineReader(open_topology(f"redis://127.0.0.1:{port}/0"))
    assert (await read(reader, 1))[1] == Status.TIMEOUT
    await reader.aclose()
    server.close()
    await server.wait_closed()


def test_writers_report_a_dead_store_and_find_out_after_its_restart(server: EmbeddedValkey) -> None:
    """An acknowledged write outlives kill -9; a write into a dead store is an error, and then goes through."""
    with connect(server.url) as client:
        writer = EntityWriter(client)
        assert writer.apply([write(1, 1)]) == [WRITTEN]
        server.kill()
        with pytest.raises(StoreUnavailableError):
            writer.apply([write(1, 2)])
        server.start()
        (state,) = writer.load([KEYS.encode({"user_id": 1})])
        assert revision_of(state) == 2
        assert writer.apply([write(1, 2)]) == [WRITTEN]


def test_writers_never_reuse_a_connection_with_replies_outstanding(server: EmbeddedValkey) -> None:
    """A write that timed out is settled by the revision, and its late reply is not taken for another's."""
    with connect(f"{server.url}?socket_timeout=0.2") as client:
        writer = EntityWriter(client)
        assert writer.apply([write(1, 1)]) == [WRITTEN]
        server.pause()
        with pytest.raises(StoreUnavailableError):
            writer.apply([write(1, 2)])
        server.resume()
        assert writer.apply([write(2, 5)]) == [None]
        assert writer.apply([write(2, 1)]) == [WRITTEN]


def test_writers_refuse_at_once_where_nothing_listens() -> None:
    """No server at the address is an error that says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        connect(f"redis://127.0.0.1:{port}/0") as client,
        pytest.raises(StoreUnavailableError, match="cannot be"),
    ):
        EntityWriter(client).load([b"key"])
