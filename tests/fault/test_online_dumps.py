"""Dumps that go wrong on the way: other connections than they were meant for, and servers that refuse them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hiredis
import pytest

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.keys import feature_field, timestamp_field
from online.read import OnlineReader, ReadPlan
from online.values import encode_timestamp, encode_value
from tests.support.dumps import compact_dump
from tests.support.resp import bulk, hgetall_reply
from tests.support.talking import Talk, talking

NAMES = [f"f{place}" for place in range(9)]
USER = JoinKey(name="user", value_type=ValueType.INT64)
FEATURES = tuple(Feature(name=name, value_type=ValueType.INT64) for name in NAMES)
VIEW = View(name="v", join_keys=(USER,), features=FEATURES)
PLAN = ReadPlan.compile(
    Catalog(project="demo", views=(VIEW,)), [FeatureRef(view="v", feature=name) for name in NAMES]
)
STORED = [
    *((feature_field("v", name), encode_value(ValueType.INT64, place)) for place, name in enumerate(NAMES)),
    (timestamp_field("v"), encode_timestamp(1_000_000)),
]
Reply = Callable[[list[bytes]], bytes | None]


def setting(compresses: str) -> bytes:
    """What a server says of its dumps."""
    return hgetall_reply([(b"rdbcompression", compresses.encode())])


def serving(*connections: Reply, names: list[bytes]) -> Talk:
    """Answer each connection's commands in a way of its own, None to hang up, and note the commands' names."""
    left = list(connections)

    async def talk(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        reply = left.pop(0) if len(left) > 1 else left[0]
        parser = hiredis.Reader()
        while data := await incoming.read(1 << 16):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                names.append(command[0])
                answer = reply(command)
                if answer is None:
                    return
                outgoing.write(answer)

    return talk


def server(compresses: str, dump: bytes | None) -> Reply:
    """A store that holds one hash, and answers DUMP as given."""
    answers = {
        b"HELLO": hgetall_reply([(b"server", b"redis")]),
        b"CONFIG": setting(compresses),
        b"HGETALL": hgetall_reply(STORED),
        b"DUMP": dump,
    }
    return lambda command: answers.get(command[0], b"+OK\r\n")


async def read(reader: OnlineReader) -> list[Value]:
    """The values of the one entity, all of them there."""
    (columns,) = await reader.fetch([(PLAN, [{"user": 1}])], now_us=0, timeout_s=5.0)
    assert (columns.error, columns.malformed) == (None, 0)
    assert set(columns.statuses[:, 0].tolist()) == {Status.PRESENT}
    return [columns.values(place)[0] for place in range(len(NAMES))]


@pytest.mark.parametrize("dump", [compact_dump(STORED), b"\xc3" + compact_dump(STORED)])
async def test_dumps_that_another_connection_brings_are_read(dump: bytes) -> None:
    """The connection is lost under a DUMP, and the server compresses by the time it is asked again."""
    names: list[bytes] = []
    lost, found = server("no", None), server("yes", bulk(dump))
    async with talking(serving(lost, found, names=names)) as reader:
        for _ in range(4):
            assert await read(reader) == list(range(9))
    assert names.count(b"HELLO") == 2
    assert names.count(b"DUMP") == 2


@pytest.mark.parametrize("refusal", ["NOPERM no permissions", "ERR unknown command 'DUMP'"])
async def test_servers_that_refuse_dumps_are_read_whole(refusal: str) -> None:
    """The refused hash is asked for otherwise at once, and dumps are not asked for again."""
    names: list[bytes] = []
    refuses = serving(server("no", f"-{refusal}\r\n".encode()), names=names)
    async with talking(refuses) as reader:
        for _ in range(4):
            assert await read(reader) == list(range(9))
    assert names.count(b"DUMP") == 1


async def test_a_dump_asked_again_takes_no_round_from_what_goes_wrong() -> None:
    """A server that loads, then hangs up, then brings a dump that is not read: the fourth command has the answer."""
    names: list[bytes] = []
    replies = [b"-LOADING the dataset is in memory soon\r\n", None]
    whole = server("no", None)

    def loads_and_leaves(command: list[bytes]) -> bytes | None:
        return replies.pop(0) if command[0] == b"DUMP" else whole(command)

    odd = server("no", bulk(b"\xc3" + compact_dump(STORED)))
    async with talking(serving(loads_and_leaves, odd, names=names)) as reader:
        assert await read(reader) == list(range(9))
        names.clear()
        assert await read(reader) == list(range(9))
    assert [name for name in names if name in (b"DUMP", b"HGETALL")] == [b"DUMP"] * 3 + [b"HGETALL"]
