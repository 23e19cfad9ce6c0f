"""The reader on stores of every layout: values, round trips and degradation, not only connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.keys import EntityKeys, feature_field
from online.near import NearCache
from online.read import Columns, OnlineReader, ReadPlan
from online.slots import slot_of
from online.store import connect, open_topology
from online.values import encode_value
from online.write import RowWrite, RowWriter
from tests.support.stores import (
    TLS_STORES,
    WAIT_S,
    Cluster,
    run_cluster,
    run_sentinels,
    run_tls_store,
    wait_until,
)
from tests.support.valkey import run_valkey

NOW_US = 1_700_000_000_000_000
USER = JoinKey(name="user_id", value_type=ValueType.INT64)
CATALOG = Catalog(
    project="demo",
    views=tuple(
        View(
            name=name,
            join_keys=(USER,),
            features=(Feature(name="n", value_type=ValueType.INT64),),
            tags=(("waypost.cache", "near"),),
        )
        for name in ("a", "b")
    ),
)
PLAN = ReadPlan.compile(CATALOG, [FeatureRef(view=name, feature="n") for name in ("a", "b")])
KEYS = EntityKeys("demo", [USER])
USERS = range(200)
ROWS: list[dict[str, Value]] = [{"user_id": number} for number in USERS]
READ_EVERY_S = 0.02


def put(client: Any, users: Sequence[int], added: int, event_us: int = NOW_US) -> None:
    """Store in both views the number of each user and what is added to it."""
    writes = [
        RowWrite(
            key=KEYS.encode({"user_id": user}),
            view=name,
            values={feature_field(name, "n"): encode_value(ValueType.INT64, user + added)},
            event_us=event_us,
        )
        for user in users
        for name in ("a", "b")
    ]
    assert all(RowWriter(client).apply(writes))


@asynccontextmanager
async def reading(url: str, near: NearCache | None = None) -> AsyncIterator[OnlineReader]:
    """A reader of a store, closed afterwards."""
    made = OnlineReader(open_topology(url), near)
    try:
        yield made
    finally:
        await made.aclose()


async def fetch(reader: OnlineReader, rows: Sequence[dict[str, Value]] = ROWS) -> Columns:
    """Read both views of some users."""
    (columns,) = await reader.fetch([(PLAN, rows)], NOW_US)
    return columns


def holds(columns: Columns, added: int, users: Sequence[int] = USERS) -> bool:
    """Whether every value is there and right."""
    expected = [user + added for user in users]
    return columns.error is None and [columns.values(0), columns.values(1)] == [expected, expected]


async def until(reader: OnlineReader, done: Callable[[Columns], bool]) -> None:
    """Read again and again until an answer is as expected, with a bound."""
    for _ in range(round(WAIT_S / READ_EVERY_S)):
        if done(await fetch(reader)):
            return
        await asyncio.sleep(READ_EVERY_S)
    raise AssertionError(f"not within {WAIT_S:.0f} s")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the module."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Any]:
    """A client of a cluster that holds the users."""
    for node in cluster.clients:
        node.flushall()
    with connect(cluster.url) as made:
        put(made, USERS, 0)
        yield made


@pytest.mark.usefixtures("client")
async def test_each_node_of_a_cluster_is_asked_once(cluster: Cluster) -> None:
    """Users of all nodes are read in one pipeline to each; one user in one to its own."""
    async with reading(cluster.url) as reader:
        assert holds(await fetch(reader), 0)
        before = reader.round_trips
        assert holds(await fetch(reader), 0)
        assert reader.round_trips == before + 3
        assert holds(await fetch(reader, ROWS[:1]), 0, USERS[:1])
        assert reader.round_trips == before + 4


async def test_a_slot_that_moves_is_read_where_its_keys_are(cluster: Cluster, client: Any) -> None:
    """Before, during (ASK) and after (MOVED) the move; then the new owner is asked at once."""
    user = USERS[0]
    key = KEYS.encode({"user_id": user})
    slot = slot_of(key)
    source = cluster.owner(slot)
    target = (source + 1) % 3
    async with reading(cluster.url) as reader:
        assert holds(await fetch(reader), 0)
        cluster.begin_migration(slot, source, target)
        assert holds(await fetch(reader), 0)
        cluster.migrate_key(key, source, target)
        assert holds(await fetch(reader), 0)
        put(client, [user], 0, NOW_US + 1)
        assert holds(await fetch(reader, ROWS[:1]), 0, [user])
        cluster.end_migration(slot, source, target)
        assert holds(await fetch(reader), 0)
        before = reader.round_trips
        assert holds(await fetch(reader, ROWS[:1]), 0, [user])
        assert reader.round_trips == before + 1


async def test_a_key_that_moves_leaves_the_near_cache(cluster: Cluster, client: Any) -> None:
    """What a node told is dropped when the node gives the key away, so a write at the new owner is seen."""
    user = USERS[1]
    key = KEYS.encode({"user_id": user})
    slot = slot_of(key)
    source = cluster.owner(slot)
    target = (source + 1) % 3
    async with reading(cluster.url, NearCache()) as reader:
        for _ in range(2):
            assert holds(await fetch(reader), 0)
        cluster.begin_migration(slot, source, target)
        cluster.migrate_key(key, source, target)
        cluster.end_migration(slot, source, target)
        put(client, [user], 1_000, NOW_US + 1)
        expected = [number + 1_000 * (number == user) for number in USERS]
        await until(reader, lambda columns: columns.values(0) == expected)


async def test_users_of_a_lost_master_alone_time_out_until_its_replica_serves(tmp_path: Path) -> None:
    """The other nodes' users go on; after the failover all are whole again."""
    with run_cluster(tmp_path, replicas=1) as cluster, connect(cluster.url) as client:
        put(client, USERS, 0)
        for node in cluster.clients[:3]:
            node.config_set("cluster-require-full-coverage", "no")
        cluster.client(3).config_set("cluster-replica-no-failover", "yes")
        lost = [cluster.owner(slot_of(KEYS.encode(row))) == 0 for row in ROWS]
        cluster.client(0).execute_command("WAIT", 1, 5_000)
        async with reading(cluster.url) as reader:
            assert holds(await fetch(reader), 0)
            cluster.servers[0].kill()
            columns = await fetch(reader)
            assert columns.error is not None
            expected = [Status.TIMEOUT if gone else Status.PRESENT for gone in lost]
            assert columns.statuses.tolist() == [expected, expected]
            cluster.client(3).config_set("cluster-replica-no-failover", "no")
            await until(reader, lambda columns: holds(columns, 0))


async def test_the_reader_follows_the_master_that_sentinels_name(tmp_path: Path) -> None:
    """After a failover values come from the new master, and what was written there is seen."""
    with run_sentinels(tmp_path) as group, connect(group.url) as client:
        put(client, USERS, 0)
        with redis.Redis(port=group.master.port) as master:
            assert master.execute_command("WAIT", 1, 5_000) == 1
        async with reading(group.url) as reader:
            assert holds(await fetch(reader), 0)
            group.master.kill()
            await until(reader, lambda columns: holds(columns, 0))

        await asyncio.to_thread(
            wait_until, lambda: bool(client.set("probe", 1)), "the sentinels name another master"
        )
        put(client, USERS, 7, NOW_US + 1)
        async with reading(group.url) as reader:
            await until(reader, lambda columns: holds(columns, 7))


@pytest.mark.parametrize("kind", TLS_STORES)
async def test_values_and_invalidations_come_through_tls(tmp_path: Path, kind: str) -> None:
    """A user of the ACL with a client certificate reads, keeps, and sees what others write."""
    with run_tls_store(kind, tmp_path, "shop on >secret ~* +@all") as (port, made):
        files = (
            f"ssl_ca_certs={made.authority}&ssl_certfile={made.certificate('client')}"
            f"&ssl_keyfile={made.key('client')}"
        )
        await _reads_and_keeps(f"rediss://shop:secret@127.0.0.1:{port}/1?{files}")
        wrong = f"rediss://shop:wrong@127.0.0.1:{port}/1?{files}"
        async with reading(wrong) as reader:
            columns = await fetch(reader, ROWS[:2])
            assert (columns.statuses == Status.TIMEOUT).all()
            assert columns.error is not None
            assert "WRONGPASS" in columns.error


async def test_values_and_invalidations_come_through_a_unix_socket(tmp_path: Path) -> None:
    """As over TLS."""
    path = tmp_path / "v.sock"
    with run_valkey(tmp_path / "valkey", {"unixsocket": str(path)}) as server:
        with redis.Redis(port=server.port) as admin:
            admin.config_set("requirepass", "secret")
        await _reads_and_keeps(f"unix://:secret@{path}?db=1")


async def _reads_and_keeps(url: str) -> None:
    near = NearCache()
    with connect(url) as client:
        put(client, USERS, 0)
        async with reading(url, near) as reader:
            # A machine that stood still for a second in between has to ask once more.
            await until(reader, lambda columns: holds(columns, 0) and near.hits > 0)
            assert near.hits == len(USERS)
            assert near.misses == len(USERS) * reader.round_trips
            put(client, USERS, 1, NOW_US + 1)
            await until(reader, lambda columns: holds(columns, 1))
