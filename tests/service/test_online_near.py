"""The near cache against real servers: the embedded Valkey, and Redis where `redis-server` is installed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Value, ValueType, View
from online.keys import EntityKeys, feature_field
from online.near import NearCache
from online.read import OnlineReader, ReadPlan
from online.store import connect, open_topology
from online.values import encode_value
from online.write import RowWrite, RowWriter
from tests.support.stores import start_store

OFFER = JoinKey(name="offer", value_type=ValueType.STRING)
VIEW = View(
    name="offers",
    join_keys=(OFFER,),
    features=(Feature(name="price", value_type=ValueType.INT64),),
    tags=(("waypost.cache", "near"),),
)
CATALOG = Catalog(project="demo", views=(VIEW,))
PLAN = ReadPlan.compile(CATALOG, [FeatureRef(view="offers", feature="price")])
KEYS = EntityKeys("demo", [OFFER])
OFFERS: list[dict[str, Value]] = [{"offer": f"o{number}"} for number in range(5)]
SEEN_WITHIN_S = 0.05
"""A write is seen within this time."""


@pytest.fixture(scope="module", params=["valkey", "redis"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of each kind."""
    with start_store(request.param, tmp_path_factory.mktemp(request.param), {}) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """A client on a store with five offers, priced 0 to 4."""
    with connect(url) as connection:
        connection.flushall()
        for number in range(5):
            put(connection, number, number)
        yield connection


@pytest.fixture
def near() -> NearCache:
    """The cache of the reader."""
    return NearCache()


@pytest_asyncio.fixture
async def reader(url: str, client: Any, near: NearCache) -> AsyncIterator[OnlineReader]:  # noqa: ARG001 - filled first
    """A reader with a near cache."""
    made = OnlineReader(open_topology(url), near)
    yield made
    await made.aclose()


def put(client: Any, number: int, price: int) -> None:
    """Price an offer."""
    values = {feature_field("offers", "price"): encode_value(ValueType.INT64, price)}
    key = KEYS.encode({"offer": f"o{number}"})
    RowWriter(client).apply([RowWrite(key=key, view="offers", values=values, event_us=price + 1)])


async def prices(reader: OnlineReader, rows: list[dict[str, Value]] = OFFERS) -> list[Value]:
    """Read offers."""
    (columns,) = await reader.fetch([(PLAN, rows)], 1_000, 2.0)
    assert columns.error is None
    return columns.values(0)


async def test_what_is_kept_is_not_asked_for_again(reader: OnlineReader, near: NearCache) -> None:
    """The second read sends nothing; rows without a key and rows that repeat are answered likewise."""
    assert await prices(reader) == [0, 1, 2, 3, 4]
    sent = reader.round_trips
    assert await prices(reader) == [0, 1, 2, 3, 4]
    assert await prices(reader, [OFFERS[3], {}, OFFERS[1], OFFERS[3]]) == [3, None, 1, 3]
    assert reader.round_trips == sent
    assert (near.hits, near.misses, len(near)) == (5 + 2, 5, 5)


async def test_a_write_is_seen_within_its_bound(client: Any, reader: OnlineReader, near: NearCache) -> None:
    """A kept offer that is written anew reads as written within 50 ms, again and again; the others stay kept."""
    await prices(reader)
    for price in range(100, 120):
        await asyncio.to_thread(put, client, 2, price)
        written = time.monotonic()
        while (await prices(reader))[2] != price:
            assert time.monotonic() - written < SEEN_WITHIN_S
            await asyncio.sleep(0)
    assert near.misses <= 5 + 20


async def test_a_part_that_is_kept_is_joined_with_what_is_asked(client: Any, reader: OnlineReader) -> None:
    """Rows of both kinds come back in their order, in one round trip."""
    await prices(reader, OFFERS[1:3])
    sent = reader.round_trips
    assert await prices(reader) == [0, 1, 2, 3, 4]
    assert reader.round_trips == sent + 1
    client.flushall()


async def test_losing_the_connection_drops_what_it_tracked(
    client: Any, reader: OnlineReader, near: NearCache
) -> None:
    """A write while the connection is cut is seen by the very next read."""
    await prices(reader)
    await asyncio.to_thread(client.client_kill_filter, _type="normal", skipme=True)
    await asyncio.to_thread(put, client, 4, 77)
    deadline = time.monotonic() + 2
    while len(near):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    assert await prices(reader) == [0, 1, 2, 3, 77]


async def test_flushing_the_store_empties_the_cache(client: Any, reader: OnlineReader) -> None:
    """FLUSHALL names no keys and drops all."""
    await prices(reader)
    await asyncio.to_thread(client.flushall)
    flushed = time.monotonic()
    while (await prices(reader)) != [None] * 5:
        assert time.monotonic() - flushed < SEEN_WITHIN_S
        await asyncio.sleep(0)


async def test_reads_and_writes_at_once_end_with_what_was_written(client: Any, reader: OnlineReader) -> None:
    """However fills and invalidations overtake each other, nothing old stays."""

    def write() -> None:
        for price in range(200, 400):
            put(client, price % 5, price)

    writing = asyncio.create_task(asyncio.to_thread(write))
    while not writing.done():
        await asyncio.gather(*(prices(reader) for _ in range(4)))
    await writing
    ended = time.monotonic()
    while (await prices(reader)) != [395, 396, 397, 398, 399]:
        assert time.monotonic() - ended < SEEN_WITHIN_S
        await asyncio.sleep(0)
