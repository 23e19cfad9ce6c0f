"""Hashes read by DUMP from real servers: the embedded Valkey, and Redis where `redis-server` is installed."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.keys import EntityKeys, feature_field
from online.link import MAX_ODD
from online.read import OnlineReader, ReadPlan
from online.store import connect, open_topology
from online.values import encode_value
from online.write import RowWrite, RowWriter
from tests.support.stores import start_store

USER = JoinKey(name="user", value_type=ValueType.INT64)
TYPES = (
    ValueType.STRING,
    ValueType.FLOAT,
    ValueType.BYTES,
    ValueType.INT64,
    ValueType.STRING_LIST,
    ValueType.DOUBLE,
)
VIEW = View(
    name="v",
    join_keys=(USER,),
    features=tuple(Feature(name=f"f{place}", value_type=kind) for place, kind in enumerate(TYPES)),
)
CATALOG = Catalog(project="demo", views=(VIEW,))
REFS = [FeatureRef(view="v", feature=feature.name) for feature in VIEW.features]
PLAN = ReadPlan.compile(CATALOG, REFS)
KEYS = EntityKeys("demo", [USER])
DIGITS: float = struct.unpack("<f", b"1234")[0]
"""Stored as `51234`, which a server keeps as a number."""
SIZES = (0, 1, 55, 61, 62, 63, 64, 65, 127, 128, 4_090, 4_100, 20_000)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of each kind."""
    with start_store(
        request.param, tmp_path_factory.mktemp(request.param), {"rdbcompression": "no"}
    ) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """A client on an empty store that does not compress."""
    with connect(url) as connection:
        connection.flushall()
        connection.config_set("rdbcompression", "no")
        yield connection


@pytest_asyncio.fixture
async def reader(url: str, client: Any) -> AsyncIterator[OnlineReader]:  # noqa: ARG001 - set up first
    """A reader that knows its server."""
    made = OnlineReader(open_topology(url))
    await made.fetch([(PLAN, [{"user": -1}])], 0)
    yield made
    await made.aclose()


def put(client: Any, user: int, values: list[Value]) -> None:
    """Write an entity."""
    cells = {
        feature_field("v", feature.name): encode_value(feature.value_type, value)
        for feature, value in zip(VIEW.features, values, strict=True)
    }
    RowWriter(client).apply([RowWrite(key=KEYS.encode({"user": user}), view="v", values=cells, event_us=1)])


async def read(reader: OnlineReader, users: list[int]) -> list[list[Value]]:
    """The values of some entities, row by row."""
    (columns,) = await reader.fetch([(PLAN, [{"user": user} for user in users])], 1)
    assert columns.error is None
    assert columns.malformed == 0
    return [list(row) for row in zip(*[columns.values(place) for place in range(len(TYPES))], strict=True)]


def dumps_sent(client: Any) -> int:
    """How many dumps the server made."""
    return int(client.info("commandstats").get("cmdstat_dump", {}).get("calls", 0))


async def test_dumps_bring_every_value_in_one_round_trip(client: Any, reader: OnlineReader) -> None:
    """Values of all sizes, in hashes of both forms, and of entities that are not there."""
    rng = random.Random(7)
    stored: list[list[Value]] = [
        [
            "x" * size,
            rng.choice((0.5, 2.0)),
            rng.randbytes(size % 70),
            rng.getrandbits(62),
            None,
            1e300,
        ]
        for size in SIZES
    ]
    stored.append(["a", None, None, -1, ("b", "c" * 70), 0.0])
    for user, values in enumerate(stored):
        put(client, user, values)
    forms = {client.object("encoding", KEYS.encode({"user": user})) for user in range(len(stored))}
    assert forms == {b"listpack", b"hashtable"}
    dumps, trips = dumps_sent(client), reader.round_trips
    found = await read(reader, [*range(len(stored)), 1_000])
    assert found == [*stored, [None] * len(TYPES)]
    assert reader.round_trips == trips + 1
    assert dumps_sent(client) == dumps + len(stored) + 1


async def test_dumps_of_many_and_of_few_follow_each_other(client: Any, reader: OnlineReader) -> None:
    """The room for their strings grows and shrinks again."""
    stored: list[list[Value]] = [[f"user {user}", 0.5, b"", user, None, 0.25] for user in range(300)]
    for user, values in enumerate(stored):
        put(client, user, values)
    for count in (300, 1, 1, 1, 1, 40, 300):
        assert await read(reader, [*range(count)]) == stored[:count]


async def test_what_a_dump_does_not_say_plainly_is_asked_again(client: Any, reader: OnlineReader) -> None:
    """A value that the server keeps as a number, in either form, beside one that it does not."""
    stored: list[list[Value]] = [
        ["a", DIGITS, b"", 1, None, 0.5],
        ["a" * 70, DIGITS, b"", 1, None, 0.5],
        ["a", 1.0, b"", 1, None, 0.5],
    ]
    for user, values in enumerate(stored):
        put(client, user, values)
    trips = reader.round_trips
    assert await read(reader, [0, 1, 2]) == stored
    assert reader.round_trips == trips + 2


async def test_fields_that_expire_are_read(client: Any, reader: OnlineReader) -> None:
    """A dump that says when fields expire is odd."""
    values: list[Value] = ["a", 1.0, b"", 1, None, 0.5]
    put(client, 1, values)
    key = KEYS.encode({"user": 1})
    try:
        client.execute_command("HEXPIRE", key, 1_000, "FIELDS", 1, feature_field("v", "f0"))
    except redis.ResponseError:
        pytest.skip("this server knows no fields that expire")
    assert await read(reader, [1]) == [values]


async def test_servers_that_bring_odd_dumps_are_asked_for_none(client: Any, reader: OnlineReader) -> None:
    """Once its dumps are compressed a server is asked for whole hashes, in one round trip."""
    client.config_set("rdbcompression", "yes")
    values: list[Value] = ["x" * 60, 1.0, b"y" * 50, 1, None, 0.5]
    for user in range(MAX_ODD):
        put(client, user, values)
    assert await read(reader, [*range(MAX_ODD)]) == [values] * MAX_ODD
    dumps, trips = dumps_sent(client), reader.round_trips
    assert await read(reader, [3, 4]) == [values] * 2
    assert (dumps_sent(client), reader.round_trips) == (dumps, trips + 1)


async def test_keys_that_hold_no_hash_are_not_found(client: Any, reader: OnlineReader) -> None:
    """A dump of something else is no hash."""
    client.set(KEYS.encode({"user": 1}), b"x" * 40)
    put(client, 2, ["a", 1.0, b"", 1, None, 0.5])
    (columns,) = await reader.fetch([(PLAN, [{"user": 1}, {"user": 2}])], 1)
    assert columns.statuses[:, 0].tolist() == [Status.NOT_FOUND] * len(TYPES)
    assert columns.values(0) == [None, "a"]


async def test_users_who_may_not_ask_for_the_setting_read_by_hgetall(url: str, client: Any) -> None:
    """A refused question is no refused connection."""
    client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    put(client, 1, ["a", 1.0, b"", 1, None, 0.5])
    dumps = dumps_sent(client)
    reader = OnlineReader(open_topology(url.replace("redis://", "redis://reader:any@")))
    for _ in range(2):
        assert await read(reader, [1]) == [["a", 1.0, b"", 1, None, 0.5]]
    await reader.aclose()
    assert dumps_sent(client) == dumps
