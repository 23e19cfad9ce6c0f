"""Stores of every layout: a cluster of three masters, a master behind sentinels, TLS, a unix socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
import redis

from decision.schema import JoinKey, ValueType
from online.address import Node, parse_address
from online.errors import ConnectionStringError, StoreTopologyError, StoreUnavailableError
from online.exchange import exchange, exchange_async
from online.keys import EntityKeys, feature_field, slot_of, state_key
from online.route import key_slot
from online.store import check_store, connect, connect_async, nodes, open_topology
from online.topology import Topology, parse_slots
from online.write import AsyncRowWriter, EntityWrite, EntityWriter, RowWrite, RowWriter, ViewWrite
from tests.support.stores import (
    TLS_STORES,
    Cluster,
    free_port,
    run_cluster,
    run_sentinels,
    run_tls_store,
    wait_until,
)
from tests.support.stream_world import START_US, World, drain, features, publish, random_events, tick
from tests.support.valkey import run_valkey, start_valkey

KEYS = EntityKeys("demo", [JoinKey(name="user_id", value_type=ValueType.INT64)])
FIELD = feature_field("v", "a")
ENTITIES = [KEYS.encode({"user_id": number}) for number in range(200)]


def row(key: bytes, event_us: int, value: bytes) -> RowWrite:
    """Make a row of one value."""
    return RowWrite(key=key, view="v", values={FIELD: value}, event_us=event_us)


def change(key: bytes, revision: int, value: bytes = b"x") -> EntityWrite:
    """Make a write of one value and a chunk of state."""
    view = ViewWrite(view="v", values={FIELD: value}, event_us=revision)
    return EntityWrite(key=key, revision=revision, views=(view,), state={b"chunk": value})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the module."""
    with run_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Any]:
    """A client on an empty cluster."""
    for node in cluster.clients:
        node.flushall()
    with connect(cluster.url) as made:
        yield made


async def test_cluster_pipelines_keep_their_order_over_all_nodes(cluster: Cluster, client: Any) -> None:
    """Replies come in the order of the commands, whichever node gave them, from both clients."""
    numbers = range(2_500)
    assert exchange(client, (("SET", f"k{n}", n) for n in numbers)) == [b"OK"] * len(numbers)
    assert [node.dbsize() > 0 for node in cluster.clients] == [True] * 3
    expected = [b"%d" % n for n in numbers]
    assert exchange(client, (("GET", f"k{n}") for n in numbers)) == expected
    asynchronous = connect_async(cluster.url)
    assert await exchange_async(asynchronous, (("GET", f"k{n}") for n in numbers)) == expected
    pipeline: Any = asynchronous.pipeline(transaction=False)
    pipeline.get("k1").exists("k2").hgetall("none")
    assert await pipeline.execute() == [b"1", 1, {}]
    await asynchronous.aclose()


async def test_cluster_writes_are_conditional_from_threads_and_loops(cluster: Cluster, client: Any) -> None:
    """Both writers apply one rule on every node, with values and state of an entity on one of them."""
    assert all(RowWriter(client).apply([row(key, 5, b"row") for key in ENTITIES]))
    asynchronous = connect_async(cluster.url)
    older = await AsyncRowWriter(asynchronous).apply([row(key, 4, b"older") for key in ENTITIES])
    await asynchronous.aclose()
    assert not any(older)
    writer = EntityWriter(client)
    assert None not in writer.apply([change(key, 0) for key in ENTITIES])
    assert writer.apply([change(key, 0) for key in ENTITIES]) == [None] * len(ENTITIES)
    assert [state[b"rev"] for state in writer.load(ENTITIES)] == [b"1"] * len(ENTITIES)


def test_cluster_commands_without_a_key_are_for_each_node(client: Any) -> None:
    """A client of a cluster refuses to guess which node a command without a key is for."""
    assert client.set("a", 1) is True
    assert client.get("a") == b"1"
    with pytest.raises(ValueError, match="each of `nodes"):
        client.flushall()
    held: list[Any] = [node.dbsize() for node in nodes(client)]
    assert sum(held) == 1


def test_cluster_slots_in_migration_are_followed(cluster: Cluster, client: Any) -> None:
    """While a slot moves, keys are read where they are (ASK); after it, where they went (MOVED)."""
    key = ENTITIES[0]
    slot = slot_of(key)
    source = cluster.owner(slot)
    target = (source + 1) % 3
    writer = RowWriter(client)
    writer.apply([row(key, 1, b"before")])
    cluster.begin_migration(slot, source, target)
    assert client.hget(key, FIELD) == b"before"
    cluster.migrate_key(key, source, target)
    assert client.hget(key, FIELD) == b"before"
    assert writer.apply([row(key, 2, b"during"), row(key, 1, b"older")]) == [True, False]
    cluster.end_migration(slot, source, target)
    assert writer.apply([row(key, 3, b"after")]) == [True]
    assert client.hget(key, FIELD) == b"after"
    assert client.topology.slots().node_of(slot).port == cluster.servers[target].port


def test_cluster_writes_of_two_keys_wait_for_a_migration(cluster: Cluster, client: Any) -> None:
    """A script whose keys are on two nodes for a moment (TRYAGAIN) is held back and then applied once."""
    key = ENTITIES[1]
    slot = slot_of(key)
    source = cluster.owner(slot)
    target = (source + 1) % 3
    writer = EntityWriter(client)
    writer.apply([change(key, 0)])
    cluster.begin_migration(slot, source, target)
    cluster.migrate_key(key, source, target)
    outcomes: list[object] = []
    waiting = threading.Thread(target=lambda: outcomes.extend(writer.apply([change(key, 1, b"once")])))
    waiting.start()
    cluster.migrate_key(state_key(key), source, target)
    cluster.end_migration(slot, source, target)
    waiting.join(20)
    assert outcomes == [frozenset({"v"})]
    assert client.hget(state_key(key), "rev") == b"2"


@pytest.mark.usefixtures("client")
async def test_cluster_moves_are_followed_by_the_asynchronous_client(cluster: Cluster) -> None:
    """A client whose map is old finds keys where they are now, and learns it."""
    key = ENTITIES[2]
    slot = slot_of(key)
    asynchronous: Any = connect_async(cluster.url)
    await asynchronous.hset(key, FIELD, b"value")
    generation = asynchronous.topology.known.generation
    source = cluster.owner(slot)
    target = (source + 1) % 3
    cluster.begin_migration(slot, source, target)
    cluster.migrate_key(key, source, target)
    assert await asynchronous.hget(key, FIELD) == b"value"
    cluster.end_migration(slot, source, target)
    assert await asynchronous.hget(key, FIELD) == b"value"
    assert asynchronous.topology.known.generation > generation
    await asynchronous.aclose()


def test_cluster_materializes_what_one_server_does(client: Any, cluster: Cluster, tmp_path: Path) -> None:
    """The same events leave the same features, whether the store is one server or three."""
    arrivals = random_events(5, 60)
    world = World.create()
    found = []
    with start_valkey(tmp_path) as url, connect(url) as single:
        for address, store in ((url, single), (cluster.url, client)):
            publish(address, arrivals)
            tick(address, START_US + 7_200_000_000)
            materializer = world.materializer(store)
            drain(materializer)
            materializer.checkpoint()
            found.append(features(store, world.plan))
    assert found[0] == found[1]
    assert len(found[0]) > 3


def test_every_node_of_a_cluster_is_checked(cluster: Cluster, client: Any) -> None:
    """A weakness is told with the node that has it."""
    ports = {str(server.port) for server in cluster.servers}
    warnings = check_store(client)
    assert {warning.split(":")[1] for warning in warnings} == ports
    assert any("appendonly is 'no'" in warning for warning in warnings)


def test_addresses_of_the_wrong_kind_are_told(cluster: Cluster, tmp_path: Path) -> None:
    """A cluster's address on a standalone server, the other way round, and sentinels that are none, name the fix."""
    with start_valkey(tmp_path) as url:
        host = url.split("/")[2]
        with (
            connect(f"redis+cluster://{host}") as wrong,
            pytest.raises(StoreTopologyError, match="use redis://"),
        ):
            check_store(wrong)
        with (
            connect(f"redis+sentinel://{host}/shop") as wrong,
            pytest.raises(StoreTopologyError, match="no Sentinel"),
        ):
            check_store(wrong)
    node = cluster.servers[0].url
    with (
        connect(node) as wrong,
        pytest.raises(StoreTopologyError, match=r"node of a cluster.*redis\+cluster"),
    ):
        check_store(wrong)


async def test_a_cluster_that_is_away_is_told_with_every_node() -> None:
    """Unreachable nodes are named one by one, from both clients and without hanging."""
    first, second = free_port(), free_port()
    url = f"redis+cluster://127.0.0.1:{first},127.0.0.1:{second}"
    with connect(url) as away:
        with pytest.raises(StoreUnavailableError, match=rf"{first}.*{second}|{second}.*{first}"):
            check_store(away)
        with pytest.raises(redis.ConnectionError, match="no node of the cluster"):
            away.get("a")
        with pytest.raises(StoreUnavailableError):
            RowWriter(away).apply([row(ENTITIES[0], 1, b"x")])
    asynchronous = connect_async(url)
    with pytest.raises(redis.ConnectionError, match="no node of the cluster"):
        await asynchronous.get("a")
    await asynchronous.aclose()


def test_a_cluster_that_lost_a_master_goes_on_with_its_replica(tmp_path: Path) -> None:
    """After a master is killed its replica is found, and nothing that was acknowledged is missing."""
    with run_cluster(tmp_path, replicas=1) as cluster, connect(cluster.url) as client:
        writer = RowWriter(client)
        assert all(writer.apply([row(key, 1, b"before") for key in ENTITIES]))
        follower = cluster.client(3)
        assert client.topology.slots().node_of(0).port == cluster.servers[0].port
        cluster.client(0).execute_command("WAIT", 1, 5_000)
        cluster.servers[0].kill()
        with pytest.raises(StoreUnavailableError):
            writer.apply([row(key, 2, b"after") for key in ENTITIES])
        wait_until(lambda: follower.info("replication")["role"] == "master", "the replica takes over")

        def applied() -> bool:
            try:
                return all(writer.apply([row(key, 2, b"after") for key in ENTITIES]))
            except StoreUnavailableError:
                return False

        wait_until(applied, "writes go through again")
        assert client.topology.slots().node_of(0).port == cluster.servers[3].port


async def test_the_master_that_sentinels_name_is_followed(tmp_path: Path) -> None:
    """Log, stream and both clients go to the new master after a failover."""
    async with AsyncExitStack() as stack:
        group = stack.enter_context(run_sentinels(tmp_path))
        client = stack.enter_context(connect(group.url))
        asynchronous: Any = await stack.enter_async_context(aclosing(connect_async(group.url)))
        assert check_store(client)
        client.set("a", 1)
        assert await asynchronous.get("a") == b"1"
        with redis.Redis(port=group.master.port) as master:
            assert master.execute_command("WAIT", 1, 5_000) == 1
        group.master.kill()

        def written() -> bool:
            return bool(client.set("a", 2))

        await asyncio.to_thread(wait_until, written, "the sentinels name another master")
        assert client.topology.known.nodes == (Node("127.0.0.1", group.replica.port),)
        answers = []
        for _ in range(50):
            try:
                answers.append(await asynchronous.get("a"))
                break
            except redis.ConnectionError:
                await asyncio.sleep(0.05)
        assert answers == [b"2"]
        publish_url = group.url
        await asyncio.to_thread(publish, publish_url, random_events(3, 5))
        world = World.create()
        materializer = world.materializer(client)
        drain(materializer)
        assert features(client, world.plan)


@pytest.mark.parametrize("kind", TLS_STORES)
async def test_tls_with_client_certificates_and_a_user(tmp_path: Path, kind: str) -> None:
    """Sockets of every kind verify the server, show their certificate and log in as a user of the ACL."""
    with run_tls_store(kind, tmp_path, "shop on >p,w:d@ ~* +@all") as (port, made):
        shown = f"ssl_certfile={made.certificate('client')}&ssl_keyfile={made.key('client')}"
        files = f"ssl_ca_certs={made.authority}&{shown}"
        url = f"rediss://shop:p%2Cw%3Ad%40@127.0.0.1:{port}/1?{files}"
        await _speaks_everywhere(url)
        mistakes = {
            f"redis://shop:p%2Cw%3Ad%40@127.0.0.1:{port}": "rediss://",
            f"rediss://127.0.0.1:{port}": "ssl_ca_certs",
            f"rediss://127.0.0.2:{port}?{files}": "name of its certificate.*ssl_check_hostname=false",
            f"rediss://shop:wrong@127.0.0.1:{port}?{files}": "user and password",
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={made.authority}": "client certificate|reset|closed",
        }
        for mistake, fix in mistakes.items():
            with connect(mistake) as wrong, pytest.raises(StoreUnavailableError, match=fix):
                check_store(wrong)


def test_tls_on_a_server_without_is_told(tmp_path: Path) -> None:
    """It waits for the end of a line that a handshake does not have."""
    with start_valkey(tmp_path) as url:
        address = f"rediss://{url.split('/')[2]}?socket_timeout=0.2"
        with connect(address) as wrong, pytest.raises(StoreUnavailableError, match="speaks no TLS"):
            check_store(wrong)


@pytest.mark.parametrize(
    ("file", "said"),
    [("/nowhere.pem", "No such file"), (__file__, "no certificate")],
    ids=["not there", "something else"],
)
def test_a_certificate_that_cannot_be_read_is_named(file: str, said: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ConnectionStringError, match=rf"ssl_ca_certs={file} cannot be used: .*{said}"):
        connect(f"rediss://localhost?ssl_ca_certs={file}")


def test_another_kind_of_server_is_told() -> None:
    """The address of a web server, say."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with connect(url) as wrong, pytest.raises(StoreUnavailableError, match="neither Redis nor Valkey"):
            check_store(wrong)
        answering.join()


async def test_a_unix_socket_is_a_way_in(tmp_path: Path) -> None:
    """`unix://` reaches the store by its socket file, password and database included."""
    path = tmp_path / "v.sock"
    with run_valkey(tmp_path / "valkey", {"unixsocket": str(path)}) as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "secret")
        await _speaks_everywhere(f"unix://:secret@{path}?db=1")


async def _speaks_everywhere(url: str) -> None:
    """Write by one kind of connection, read by the two others."""
    with connect(url) as client:
        check_store(client)
        client.set("where", url)
        asynchronous = connect_async(url)
        assert await asynchronous.get("where") == url.encode()
        await asynchronous.aclose()
        assert client.connection_pool.connection_kwargs["db"] == 1
    topology = open_topology(url)
    transport, protocol = await topology.open((await topology.slots_async()).nodes[0], _Replies)
    hello = topology.handshake(resp=3)
    transport.write(b"".join(hello) + b"*2\r\n$3\r\nGET\r\n$5\r\nwhere\r\n")
    await asyncio.wait_for(protocol.holds(url.encode() + b"\r\n"), 5)
    transport.close()


class _Replies(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.arrived = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.arrived.set()

    async def holds(self, text: bytes) -> None:
        while text not in self.received:
            self.arrived.clear()
            await self.arrived.wait()


def test_slots_are_read_as_a_cluster_tells_them() -> None:
    """A node that does not know its host is where it was asked; slots that nobody serves are told."""
    asked = Node("cache", 1)
    slots = parse_slots(
        [[0, 99, [b"", 1, b"id"], [b"r", 3, b"id"]], [200, 16_383, [b"b", 2, b"id", []]]], asked, 4
    )
    assert (slots.generation, slots.nodes) == (4, (asked, Node("b", 2)))
    assert (slots.node_of(99), slots.node_of(200)) == (asked, Node("b", 2))
    assert not slots.covers_all
    with pytest.raises(StoreUnavailableError, match="serves slot 100"):
        slots.node_of(100)
    moved = slots.with_owner(100, Node("c", 5))
    assert (moved.node_of(100), moved.generation) == (Node("c", 5), 5)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), b"a"),
        ((b"EVALSHA", b"sha", 2, b"k", b"l", 1), b"k"),
        ((b"XREAD", b"COUNT", 1, b"STREAMS", b"s", b"0"), b"s"),
        ((b"XINFO", b"STREAM", "s"), b"s"),
    ],
)
def test_commands_go_by_their_key(command: tuple[Any, ...], key: bytes) -> None:
    """Wherever a command names its key, its slot is that key's."""
    assert key_slot(command) == slot_of(key)


def test_one_discovery_serves_all_who_wait(cluster: Cluster) -> None:
    """Threads that find the map in doubt at the same moment ask the store once."""
    topology = Topology(parse_address(cluster.url))
    first = topology.slots()
    topology.suspect()
    threads = [threading.Thread(target=topology.refresh, args=(first.generation,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert topology.slots().generation == first.generation + 1


def test_what_a_user_must_be_allowed_is_told(tmp_path: Path) -> None:
    """One who may not ask for the version is refused with what to allow; one who is allowed that much is taken."""
    with start_valkey(tmp_path / "valkey") as url, connect(url) as admin:
        store: Any = admin
        store.acl_setuser("small", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@read"])
        address = url.replace("redis://", "redis://small:any@")
        with (
            connect(address) as small,
            pytest.raises(StoreUnavailableError, match=r"\+@all -@dangerous \+info"),
        ):
            check_store(small)
        store.acl_setuser("small", enabled=True, commands=["+@all", "-@dangerous", "+info"])
        with connect(address) as small:
            assert ["does not tell its settings" in weakness for weakness in check_store(small)] == [True]
            assert RowWriter(small).apply([row(ENTITIES[0], 1, b"row")]) == [True]
