"""A store that is slow, silent, gone, half gone or no store: every call returns in time, and afterwards all is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.keys import EntityKeys, feature_field
from online.read import OnlineReader, ReadPlan
from online.store import connect, open_topology
from online.values import encode_value
from online.write import RowWrite, RowWriter
from server.embedded import EmbeddedValkey
from tests.support.talking import talking
from tests.support.valkey import run_valkey

USER = JoinKey(name="user_id", value_type=ValueType.INT64)
VIEW = View(name="v", join_keys=(USER,), features=(Feature(name="a", value_type=ValueType.INT64),))
PLAN = ReadPlan.compile(Catalog(project="demo", views=(VIEW,)), [FeatureRef(view="v", feature="a")])
KEYS = EntityKeys("demo", [USER])
GREETING = b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n-ERR unknown command 'CONFIG'\r\n"
SLACK_S = 1.0
"""What a busy machine may add to a deadline."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server with a hundred entities, whose value is their id."""
    with run_valkey(tmp_path) as made:
        with connect(made.url) as client:
            rows = [
                RowWrite(
                    key=KEYS.encode({"user_id": number}),
                    view="v",
                    values={feature_field("v", "a"): encode_value(ValueType.INT64, number)},
                    event_us=1,
                )
                for number in range(100)
            ]
            assert all(RowWriter(client).apply(rows))
        yield made


@pytest_asyncio.fixture
async def reader(server: EmbeddedValkey) -> AsyncIterator[OnlineReader]:
    """A reader of that server, connected."""
    made = OnlineReader(open_topology(server.url))
    await read(made, 0)
    yield made
    await made.aclose()


async def read(reader: OnlineReader, number: int, timeout_s: float = 2.0) -> tuple[Value, Status]:
    """One entity's value and status."""
    (columns,) = await reader.fetch([(PLAN, [{"user_id": number}])], now_us=0, timeout_s=timeout_s)
    status = Status(columns.statuses[0, 0])
    assert (status is Status.TIMEOUT) == (columns.error is not None)
    return columns.values(0)[0], status


async def test_requests_of_one_moment_share_a_round_trip(reader: OnlineReader) -> None:
    """One request is one round trip; fifty at once are one as well, and each gets its own answer."""
    sent = reader.round_trips
    for number in range(10):
        await read(reader, number)
    assert reader.round_trips - sent == 10
    answers = await asyncio.gather(*(read(reader, number) for number in range(50)))
    assert answers == [(number, Status.PRESENT) for number in range(50)]
    assert reader.round_trips - sent == 11


async def test_reads_of_turns_in_a_row_share_a_round_trip(
    reader: OnlineReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read leaves with those that come while the loop is busy; without more of them it leaves, whatever the clock."""
    monkeypatch.setattr("online.channel.MAX_HOLD_S", 60.0)
    sent = reader.round_trips

    async def read_later(number: int) -> tuple[Value, Status]:
        for _ in range(3 * number):
            await asyncio.sleep(0)
        return await read(reader, number)

    answers = await asyncio.gather(*(read_later(number) for number in range(20)))
    assert answers == [(number, Status.PRESENT) for number in range(20)]
    assert reader.round_trips - sent == 1


async def test_no_read_is_held_for_long(reader: OnlineReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is never quiet holds a read no longer than the bound."""
    for bound in ("QUIET_TURNS", "MOST_QUIET_TURNS"):
        monkeypatch.setattr(f"online.channel.{bound}", 10**12)
    assert await read(reader, 7) == (7, Status.PRESENT)


async def test_a_caller_that_gives_up_touches_nobody_in_its_pipeline(
    server: EmbeddedValkey, reader: OnlineReader
) -> None:
    """Of eight callers in one pipeline two are cancelled and two expire; the others are whole, and not later."""
    server.pause()
    sent = reader.round_trips
    patient = [asyncio.create_task(read(reader, number)) for number in range(4)]
    hasty = [asyncio.create_task(read(reader, number, 0.05)) for number in (10, 11)]
    leaving = [asyncio.create_task(read(reader, number)) for number in (20, 21)]
    assert await asyncio.gather(*hasty) == [(None, Status.TIMEOUT)] * 2
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert all(task.cancelled() for task in leaving)
    assert not any(task.done() for task in patient)
    server.resume()
    assert await asyncio.gather(*patient) == [(number, Status.PRESENT) for number in range(4)]
    assert reader.round_trips - sent == 1
    assert await read(reader, 30) == (30, Status.PRESENT)


async def test_a_silent_store_is_asked_by_one_caller_at_a_time(
    server: EmbeddedValkey, reader: OnlineReader
) -> None:
    """After some have waited in vain the rest are told at once; when it speaks again the next call is whole."""
    server.pause()
    for _ in range(3):
        await asyncio.gather(*(read(reader, number, 0.1) for number in range(5)))
    started = time.monotonic()
    wave = [asyncio.create_task(read(reader, number, 1.0)) for number in range(200)]
    done, waiting = await asyncio.wait(wave, timeout=0.5)
    assert len(waiting) <= 1
    assert {task.result()[1] for task in done} == {Status.TIMEOUT}
    await asyncio.wait(wave)
    assert time.monotonic() - started < 1.0 + SLACK_S
    server.resume()
    assert await read(reader, 7) == (7, Status.PRESENT)
    assert await asyncio.gather(*(read(reader, n) for n in range(50))) == [
        (n, Status.PRESENT) for n in range(50)
    ]


async def test_a_store_that_comes_back_is_not_overrun(server: EmbeddedValkey, reader: OnlineReader) -> None:
    """Hundreds of callers meet a dead store: all are answered, and one connection is what it sees afterwards."""
    for _ in range(3):
        server.kill()
        started = time.monotonic()
        answers = await asyncio.gather(*(read(reader, number % 100, 1.0) for number in range(300)))
        assert {status for _, status in answers} == {Status.TIMEOUT}
        assert time.monotonic() - started < 1.0 + SLACK_S
        server.start()
        assert await read(reader, 5) == (5, Status.PRESENT)
        await asyncio.gather(*(read(reader, number % 100) for number in range(300)))
        with connect(server.url) as client:
            stats = await asyncio.to_thread(client.info)
        assert stats["connected_clients"] == 1 + 1
        assert stats["total_connections_received"] <= 5


async def test_a_refusing_server_is_tried_seldom() -> None:
    """A thousand calls on a server that hangs up make few connections, and none of them waits long."""
    connections = 0

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async with talking(hang_up) as reader:
        for _ in range(10):
            started = time.monotonic()
            answers = await asyncio.gather(*(read(reader, number, 0.05) for number in range(100)))
            assert {status for _, status in answers} == {Status.TIMEOUT}
            assert time.monotonic() - started < 0.05 + SLACK_S
    assert connections <= 15


@pytest.mark.parametrize(
    "rubbish",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$99999999999\r\n",
        b"*3\r\n$1\r\nab\r\n",
        b"*1\r\n" * 40,
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"\x00\xff" * 400,
        b"-ERR no\r\n",
        b":5\r\n",
        b"*2\r\n$1\r\n\xff\r\n$1\r\n\xff\r\n",
    ],
)
async def test_rubbish_is_never_a_value(rubbish: bytes) -> None:
    """Whatever follows a good greeting, the call returns in time and carries no value."""

    async def talk(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        await incoming.read(4096)
        outgoing.write(GREETING)
        await incoming.read(4096)
        outgoing.write(rubbish)
        await incoming.read(4096)

    async with talking(talk) as reader:
        started = time.monotonic()
        value, status = await read(reader, 1, 0.3)
        assert value is None
        assert status in (Status.TIMEOUT, Status.NOT_FOUND)
        assert time.monotonic() - started < 0.3 + SLACK_S


async def test_a_server_that_never_greets_costs_the_callers_time_and_no_more() -> None:
    """Neither a silent greeting nor a refused login holds a caller beyond its deadline."""

    async def silent(incoming: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await incoming.read()

    async def refusing(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        await incoming.read(4096)
        outgoing.write(b"-WRONGPASS invalid username-password pair\r\n")
        await incoming.read()

    for talk in (silent, refusing):
        async with talking(talk) as reader:
            started = time.monotonic()
            assert await read(reader, 1, 0.2) == (None, Status.TIMEOUT)
            assert time.monotonic() - started < 0.2 + SLACK_S


async def test_a_half_closed_socket_is_replaced() -> None:
    """A server that will say no more on a connection gets a new one, on which the caller is answered."""
    connections = 0

    async def talk(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await incoming.read(4096)
        outgoing.write(GREETING)
        await incoming.read(4096)
        if connections == 1:
            outgoing.write_eof()
        else:
            outgoing.write(b"*2\r\n$2\r\n\x20\x07\r\n_\r\n")
        await incoming.read()

    async with talking(talk) as reader:
        assert await read(reader, 1) == (7, Status.PRESENT)
    assert connections == 2


async def test_a_late_answer_is_nobody_elses() -> None:
    """Replies that come byte by byte and too late for one caller are skipped, and the next gets its own."""
    asked = 0

    async def talk(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        nonlocal asked
        await incoming.read(4096)
        outgoing.write(GREETING)
        while await incoming.readuntil(b"_ts:v\r\n"):
            asked += 1
            if asked == 1:
                await asyncio.sleep(0.2)
            for byte in b"*2\r\n$2\r\n\x20%c\r\n_\r\n" % asked:
                outgoing.write(bytes((byte,)))
                await outgoing.drain()

    async with talking(talk) as reader:
        assert await read(reader, 1, 0.05) == (None, Status.TIMEOUT)
        assert await read(reader, 2) == (2, Status.PRESENT)
        assert await read(reader, 3) == (3, Status.PRESENT)
