"""Erasing customers and retiring views: exactly their keys, on one server and on three, while the stream runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import streaming.file_locks
from decision.schema import Feature, JoinKey, ValueType, View
from online.errors import KeyEncodingError
from online.keys import EntityKeys, feature_field, parse_key, state_key, timestamp_field
from online.removal import erase_entities
from online.store import connect, connect_async, nodes
from online.write import RowWrite, RowWriter
from server.removal import Erasure, RemovalError, RemovedKind, erase_customer, retire, view_to_retire
from streaming.dead_letters import MAX_LETTER_BYTES, DeadLetters, RefusedEvent, names_customer
from streaming.errors import StreamingError
from streaming.events import EventRecord
from streaming.file_locks import FilesHeld
from streaming.keys import PartitionKeys, backfill_key
from streaming.materializer import Materializer
from streaming.redis_log import RedisLog, settle_partitions
from streaming.traces import CustomerTraces
from tests.support.stopping import Stopped
from tests.support.stores import run_cluster
from tests.support.stream_world import (
    CATEGORY,
    CUSTOMER,
    MINUTE_US,
    PROJECT,
    START_US,
    World,
    catalog,
    drain,
    publish,
    tick,
)
from tests.support.valkey import start_valkey
from tests.support.worlds import apply_all
from waypost.events.v1 import events_pb2

CATALOG = catalog(Path("unused"))
PAIR = (CUSTOMER, CATEGORY)


@pytest.fixture(scope="module", params=["one server", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store of either layout."""
    folder = tmp_path_factory.mktemp("store")
    if request.param == "cluster":
        with run_cluster(folder) as cluster:
            yield cluster.url
    else:
        with start_valkey(folder) as address:
            yield address


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """A client on an empty store, whose log has one partition."""
    with connect(url) as made:
        for node in nodes(made):
            node.flushall()
        settle_partitions(made, PROJECT, 1)
        yield made


def store(client: Any, project: str, keys: tuple[JoinKey, ...], row: dict[str, Any], *views: str) -> bytes:
    """Write one feature of each view for an entity; returns its key."""
    key = EntityKeys(project, keys).encode(row)
    writes = [
        RowWrite(key=key, view=view, values={feature_field(view, "f"): b"\x20\x01"}, event_us=1)
        for view in views
    ]
    assert all(RowWriter(client).apply(writes))
    return key


def keys_of(client: Any) -> set[bytes]:
    """Every key of the store but the log's own."""
    return {key for node in nodes(client) for key in node.scan_iter() if not key.startswith(b"wp:")}


def one_feature(name: str, keys: tuple[JoinKey, ...]) -> View:
    """A view as `store` writes it."""
    return View(name=name, join_keys=keys, features=(Feature(name="f", value_type=ValueType.INT64),))


def erase(
    client: Any,
    customer: str,
    *,
    archive: Path = Path("/nowhere"),
    apply: bool = True,
    wait_s: float | None = None,
) -> Erasure:
    """Erase a customer of the world."""
    return erase_customer(
        client,
        CATALOG,
        "customer_id",
        customer,
        archive=archive,
        apply=apply,
        wait_s=wait_s,
        progress=lambda *_: None,
    )


def test_retiring_a_view_leaves_everything_else(client: Any) -> None:
    """Other views of the entity, other entities, and a project whose name ends the same keep every byte."""
    both = store(client, PROJECT, (CUSTOMER,), {"customer_id": "ada"}, "old", "new")
    alone = store(client, PROJECT, (CUSTOMER,), {"customer_id": "bob"}, "old")
    others = [
        store(client, f"my{PROJECT}", (CUSTOMER,), {"customer_id": "ada"}, "old"),
        store(client, PROJECT, PAIR, {"customer_id": "ada", "category": "tea"}, "old"),
        store(client, PROJECT, (CUSTOMER,), {"customer_id": f"x{PROJECT}"}, "new"),
    ]
    before = {key: client.dump(key) for key in others}
    view = one_feature("old", (CUSTOMER,))
    expected = (RemovedKind(join_keys=("customer_id",), entities=2, fields=4, state_fields=0),)
    steps: list[tuple[int, int]] = []
    assert retire(client, CATALOG, view, apply=False, progress=lambda *at: steps.append(at)) == expected
    assert client.exists(alone)
    assert steps[-1] == (6, 6)  # the log's own key is looked at too
    assert retire(client, CATALOG, view, apply=True, progress=lambda *_: None) == expected
    assert not client.exists(alone)
    assert set(client.hgetall(both)) == {feature_field("new", "f"), timestamp_field("new")}
    assert {key: client.dump(key) for key in others} == before
    assert retire(client, CATALOG, view, apply=True, progress=lambda *_: None) == ()


def test_retiring_takes_the_views_state_and_refuses_who_computed_from_it(client: Any, url: str) -> None:
    """Tiles of the view go, the others stay, and a running stream starts the view anew."""
    world = World.create()
    publish(url, [(START_US, buy(1)), (START_US, look(2))])
    materializer = world.materializer(client)
    drain(materializer)
    key = EntityKeys(PROJECT, (CUSTOMER,)).encode({"customer_id": "ada"})
    revision = int(client.hget(state_key(key), "rev"))
    (removed,) = retire(
        client, CATALOG, CATALOG.view_by_name["spending"], apply=True, progress=lambda *_: None
    )
    assert removed.state_fields > 0
    state = client.hgetall(state_key(key))
    assert not [name for name in state if name.startswith(b"w:spending:")]
    assert b"l:looked" in state
    assert int(state[b"rev"]) == revision + 1
    publish(url, [(START_US + 1, buy(3))])
    drain(materializer)
    assert values_of(client, materializer, key)["count_5m"] == 1


def test_retiring_needs_to_know_what_is_stored() -> None:
    """A view that the repo lost is described by the operator; one that it has is not."""
    made = view_to_retire(CATALOG, "gone", ["a"], ["f"])
    assert (made.key_names, [feature.name for feature in made.features]) == (("a",), ["f"])
    with pytest.raises(RemovalError, match="--feature for each"):
        view_to_retire(CATALOG, "gone", ["a"], [])
    with pytest.raises(RemovalError, match="leave --key"):
        view_to_retire(CATALOG, "spending", [], ["f"])


@pytest.mark.parametrize("name", ["*", "a?", "[a-z]", "\\", "ada*", "^", "{x}"])
def test_names_that_look_like_patterns_are_taken_as_they_are(client: Any, name: str) -> None:
    """Whatever characters a customer, a project or a join key has, its own keys go and no other's."""
    odd = JoinKey(name=f"k{name}", value_type=ValueType.STRING)
    gone = [
        store(client, PROJECT, (CUSTOMER,), {"customer_id": name}, "v"),
        store(client, PROJECT, PAIR, {"customer_id": name, "category": "any"}, "v"),
        store(client, PROJECT, (CUSTOMER, odd), {"customer_id": name, odd.name: "o"}, "v"),
    ]
    kept = {
        store(client, PROJECT, (CUSTOMER,), {"customer_id": "ada"}, "v"),
        store(client, PROJECT, PAIR, {"customer_id": "any", "category": name}, "v"),
        store(client, f"{name}{PROJECT}", (CUSTOMER,), {"customer_id": name}, "v"),
        store(client, f"{PROJECT}{name}", (CUSTOMER,), {"customer_id": name}, "v"),
    }
    assert keys_of(client) == kept | set(gone)
    assert [kind.entities for kind in erase(client, name, apply=False).kinds] == [1, 1, 1]
    assert [kind.entities for kind in erase(client, name).kinds] == [1, 1, 1]
    assert keys_of(client) == kept
    assert erase(client, name).nothing


def test_state_alone_is_found_too(client: Any) -> None:
    """Where Feast deleted an entity's hash, what Waypost remembers of it goes all the same."""
    key = EntityKeys(PROJECT, PAIR).encode({"customer_id": "ada", "category": "tea"})
    client.hset(state_key(key), "rev", 1)
    assert [(kind.entities, kind.state_fields) for kind in erase(client, "ada").kinds] == [(1, 1)]
    assert not keys_of(client)


def test_erasing_does_not_begin_while_a_backfill_is_at_work(client: Any) -> None:
    """It would bring the customer back, from what it has read already; counting is no matter."""
    key = store(client, PROJECT, (CUSTOMER,), {"customer_id": "ada"}, "v")
    client.set(backfill_key(PROJECT), "at work")
    with pytest.raises(StreamingError, match="a backfill of project 'world' is at work"):
        erase(client, "ada")
    assert client.exists(key)
    assert erase(client, "ada", apply=False).kinds
    client.delete(backfill_key(PROJECT))
    assert erase(client, "ada").kinds


def test_erasing_needs_an_id_of_the_right_type(client: Any) -> None:
    """An id that no customer can have is told, before anything is looked for."""
    number = JoinKey(name="customer_id", value_type=ValueType.INT64)
    views = (View(name="v", join_keys=(number,), features=()),)
    with pytest.raises(KeyEncodingError, match="not an integer"):
        erase_customer(
            client,
            type(CATALOG)(project=PROJECT, views=views),
            "customer_id",
            "ada",
            archive=Path("/nowhere"),
            apply=True,
            wait_s=None,
            progress=lambda *_: None,
        )


def buy(number: int, customer: str = "ada", us: int = START_US) -> EventRecord:
    """A purchase of tea for 30."""
    return EventRecord(f"e{number}", "buy", customer, us, {"category": "tea", "amount": 30.0})


def look(number: int, customer: str = "ada", us: int = START_US) -> EventRecord:
    return EventRecord(f"e{number}", "look", customer, us, {"category": "tea"})


def values_of(client: Any, materializer: Materializer, key: bytes) -> dict[str, object]:
    """The features of an entity's spending, decoded."""
    from online.values import decoder

    view = CATALOG.view_by_name["spending"]
    del materializer
    stored = client.hgetall(key)
    return {f.name: decoder(f.value_type)(stored[feature_field(view.name, f.name)]) for f in view.features}


def traces_of(client: Any, customer: bytes) -> list[bytes]:
    """Every key that names a customer, or holds the name anywhere."""
    servers: list[Any] = list(nodes(client))
    return [
        key
        for server in servers
        for key in server.scan_iter()
        if customer in key or any(customer in text for text in _texts(server, key))
    ]


def _texts(server: Any, key: bytes) -> list[bytes]:
    kind = server.type(key)
    if kind == b"hash":
        return [text for pair in server.hgetall(key).items() for text in pair]
    if kind == b"zset":
        return list(server.zrange(key, 0, -1))
    if kind == b"stream":
        return [value for _, fields in server.xrange(key) for value in fields.values()]
    return [server.get(key)]


@contextmanager
def running(materializer: Materializer) -> Iterator[None]:
    """Run a materializer on a thread, as the process does, with a checkpoint after each step."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.001):
            materializer.step()
            materializer.checkpoint()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


def life(count: int, customer: str) -> list[tuple[int, EventRecord]]:
    """Purchases that make a spender, late events that die, and looks."""
    arrivals = [(START_US + n, buy(n, customer, START_US + n)) for n in range(count)]
    arrivals += [(START_US + MINUTE_US, look(1_000, customer, START_US + MINUTE_US))]
    return [*arrivals, (START_US + MINUTE_US, buy(2_000, customer, START_US - 3_600_000_000))]


def test_erasing_while_the_stream_runs_brings_nothing_back(client: Any, url: str) -> None:
    """What was published before is applied, then everything goes; time passes, timers fall due, nothing returns."""
    world = World.create()
    publish(url, life(20, "ada-lovelace"))
    publish(url, life(5, "bob"))
    with running(world.materializer(client)):
        erasure = erase(client, "ada-lovelace", archive=world.archive, wait_s=30)
        tick(url, START_US + 7_200_000_000)
        wait_applied(client)
    kinds = {kind.join_keys: kind.entities for kind in erasure.kinds}
    assert kinds == {("customer_id",): 1, ("category", "customer_id"): 1}
    assert erasure.segments == 1
    assert (erasure.traces.dead_letters, erasure.traces.changes, erasure.traces.timers) == (1, 1, 2)
    assert erasure.archived == 22
    assert not any(b"ada-lovelace" in part.read_bytes() for part in world.archive.iterdir())
    assert traces_of(client, b"ada-lovelace") == []
    assert traces_of(client, b"bob")
    assert lag(client) == 0
    assert erase(client, "ada-lovelace").nothing


REFUSED_OF_ADA = {
    "an event": (events_pb2.Event(customer_id="ada-lovelace").SerializeToString(), False),
    "a large event": (
        events_pb2.Event(customer_id="ada-lovelace", event_type="x" * MAX_LETTER_BYTES).SerializeToString(),
        False,
    ),
    "JSON": (b'{"customerId": "ada-lovelace", "surplus": 1}', True),
    "the beginning of JSON": (
        b'{"customer_id": "ada-lovelace", "surplus": [' + b"1," * MAX_LETTER_BYTES,
        True,
    ),
    "JSON too deep to read": (
        b'{"customer_id": "ada-lovelace", "surplus": ' + b"[" * 1_900 + b"]" * 1_900 + b"}",
        True,
    ),
}


@pytest.mark.parametrize("form", REFUSED_OF_ADA)
def test_erasing_takes_what_was_refused_too(client: Any, url: str, form: str) -> None:
    """Refused events never reach the log, and hold the customer all the same; those of others stay."""
    world = World.create()
    publish(url, life(1, "ada-lovelace"))

    async def refuse() -> None:
        async with connect_async(url) as connection:
            letters = [REFUSED_OF_ADA[form], (events_pb2.Event(customer_id="bob").SerializeToString(), False)]
            await DeadLetters(connection, PROJECT, 1).put(
                [RefusedEvent("TOO_LONG", "", "", 0, event, is_json) for event, is_json in letters]
            )

    asyncio.run(refuse())
    with running(world.materializer(client)):
        assert erase(client, "ada-lovelace", archive=world.archive, wait_s=30).traces.dead_letters == 2
    assert traces_of(client, b"ada-lovelace") == []
    assert traces_of(client, b"bob")


@pytest.mark.parametrize(
    ("customer_id", "is_named"), [("17", True), ("7", False), ("1", False), ("170", False)]
)
def test_a_number_in_cut_json_names_its_customer(customer_id: str, is_named: bool) -> None:
    """Events whose customer is a number are refused, and are of that customer all the same."""
    fields = {b"event": b'{"customer_id": 17, "surplus": [1,', b"form": b"json"}
    assert names_customer(fields, customer_id) is is_named


def test_erasing_is_not_undone_by_what_a_stream_remembers(client: Any, url: str) -> None:
    """A stream that holds the customer in memory, state and timers, finds its writes refused and forgets."""
    world = World.create()
    publish(url, life(20, "ada-lovelace"))
    materializer = world.materializer(client)
    drain(materializer)
    with pytest.raises(StreamingError, match="writes under way"):
        erase(client, "ada-lovelace", wait_s=None)
    materializer.checkpoint()
    assert erase(client, "ada-lovelace", wait_s=None).kinds
    for minutes in (5, 31, 200):
        tick(url, START_US + minutes * MINUTE_US)
        drain(materializer)
    materializer.checkpoint()
    assert traces_of(client, b"ada-lovelace") == []
    publish(url, [(START_US + 201 * MINUTE_US, buy(9_000, "ada-lovelace", START_US + 201 * MINUTE_US))])
    drain(materializer)
    key = EntityKeys(PROJECT, (CUSTOMER,)).encode({"customer_id": "ada-lovelace"})
    values = values_of(client, materializer, key)
    assert (values["total_30m"], values["count_5m"]) == (30.0, 1)


@pytest.mark.parametrize("dies", [False, True])
def test_erasing_outlasts_what_an_owner_has_under_way(
    client: Any, url: str, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """The customer fell due and was written when the entities went; the owner says so later, or another finds it out.

    It had a segment change and a timer to be written down. The next owner would keep its write from coming true by a
    revision of an entity that is not there any more.
    """
    world = World.create()
    publish(url, life(7, "ada-lovelace"))
    owners = [world.materializer(client)]
    drain(owners[0])
    settle, remove = CustomerTraces.settle, erase_entities

    def settled(self: CustomerTraces, wait_s: float) -> None:
        with running(owners[-1]):
            settle(self, wait_s)

    def removed(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr("server.removal.erase_entities", remove)
        later_us = START_US + 11 * MINUTE_US
        publish(url, [(later_us, buy(n, f"c{n}", later_us)) for n in range(20)])
        owners[0].step()
        assert owners[0].settled_at is None
        if dies:
            owners[0].close()
        found = remove(*args, **named)
        if dies:
            owners.append(world.materializer(client))
        return found

    monkeypatch.setattr(CustomerTraces, "settle", settled)
    monkeypatch.setattr("server.removal.erase_entities", removed)
    assert erase(client, "ada-lovelace", archive=world.archive, wait_s=30).kinds
    drain(owners[-1])
    owners[-1].checkpoint()
    assert traces_of(client, b"ada-lovelace") == []
    assert traces_of(client, b"c7")


def test_erasing_waits_for_former_owners_that_are_at_their_files(
    client: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is frozen before its rename would leave the customer's events there; once it is dead, half of a file."""
    monkeypatch.setattr(streaming.file_locks, "LOCK_WAIT_S", 0.0)
    world = World.create()
    publish(url, life(7, "ada-lovelace"))
    frozen = Stopped(apply_all, url, world.offline, steps=["pathlib.Path.replace"], at=0)
    try:
        apply_all(url, world.offline)
        with pytest.raises(FilesHeld, match="let it go on, or end it"):
            erase(client, "ada-lovelace", archive=world.archive)
        assert traces_of(client, b"ada-lovelace")
    finally:
        frozen.kill()
    assert files_with(world, b"ada-lovelace")
    assert erase(client, "ada-lovelace", archive=world.archive).archived
    assert files_with(world, b"ada-lovelace") == []


def test_erasing_waits_for_a_folder_that_can_be_written(client: Any, url: str) -> None:
    """What an owner could not write it holds in memory; nothing is erased before all of it lies there."""
    world = World.create()
    blocked = world.offline / "spending"
    blocked.touch()
    publish(url, life(7, "ada-lovelace"))
    with running(world.materializer(client)):
        with pytest.raises(StreamingError, match="can it write its data folder"):
            erase(client, "ada-lovelace", archive=world.archive, wait_s=0.5)
        assert traces_of(client, b"ada-lovelace")
        blocked.unlink()
        assert erase(client, "ada-lovelace", archive=world.archive, wait_s=30).archived == 9
    assert files_with(world, b"ada-lovelace") == []
    assert traces_of(client, b"ada-lovelace") == []


def files_with(world: World, text: bytes) -> list[Path]:
    """Files of the archive that hold a text, halves of some among them."""
    return [path for path in world.archive.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_erasing_offline_takes_events_that_were_never_applied(client: Any, url: str) -> None:
    """Without a materializer the log is cleaned; one that is started later applies the others alone, without lag."""
    publish(url, [*life(5, "ada-lovelace"), *life(3, "bob")])
    erasure = erase(client, "ada-lovelace")
    assert erasure.traces.events == 7
    assert not erasure.kinds
    world = World.create()
    materializer = world.materializer(client)
    drain(materializer)
    materializer.checkpoint()
    assert traces_of(client, b"ada-lovelace") == []
    assert lag(client) == 0


def test_erasing_without_the_stream_is_refused_and_removes_nothing(client: Any, url: str) -> None:
    """Where the materializer does not come to what was published, the way out is named."""
    publish(url, life(2, "ada-lovelace"))
    key = store(client, PROJECT, (CUSTOMER,), {"customer_id": "ada-lovelace"}, "v")
    with pytest.raises(StreamingError, match="--offline"):
        erase(client, "ada-lovelace", wait_s=0.1)
    assert client.exists(key)


def wait_applied(client: Any) -> None:
    """Wait until the log is applied and nothing is due."""
    from tests.support.stores import wait_until

    wait_until(lambda: lag(client) == 0 and not overdue(client), "the log is applied")


def lag(client: Any) -> int:
    """Records appended and not applied, as `waypost status` counts them."""
    keys = PartitionKeys(PROJECT, 0)
    added = client.xinfo_stream(keys.log)["entries-added"]
    return int(added) - int(client.hget(keys.applied, "record_count") or 0)


def overdue(client: Any) -> bool:
    keys = PartitionKeys(PROJECT, 0)
    now_us = int(client.hget(keys.applied, "time_us") or 0)
    return bool(client.zcount(keys.timers, "-inf", now_us))


def test_a_log_that_many_publish_to_is_cleaned_in_bounded_steps(client: Any, url: str) -> None:
    """A customer's events are found among thousands of others'."""

    async def fill() -> None:
        writer = connect_async(url)
        log = RedisLog(writer, PROJECT, 1, 1_000_000)
        for start in range(0, 3_000, 500):
            events = [look(n, "ada" if n % 1_000 == 7 else f"c{n}") for n in range(start, start + 500)]
            await log.append(events, START_US)
        await writer.aclose()

    asyncio.run(fill())
    assert erase(client, "ada").traces.events == 3
    assert client.xlen(PartitionKeys(PROJECT, 0).log) == 2_997


def test_keys_are_read_whole() -> None:
    """A key says its project exactly, and what is no key is told as such."""
    key = EntityKeys("demo", PAIR).encode({"customer_id": "ada", "category": "tea"})
    stored = parse_key(key)
    assert (stored.project, stored.names, stored.values) == (
        "demo",
        ("category", "customer_id"),
        ("tea", "ada"),
    )
    assert parse_key(EntityKeys("", [CUSTOMER]).encode({"customer_id": ""})).project == ""
    with pytest.raises(KeyEncodingError):
        EntityKeys("emo", PAIR).decode(key)
    for wrong in (b"", b"wp:{x}:log", key[:20], b"\xff\xff\xff\xff" + key[4:], key + b"\xff"):
        with pytest.raises(KeyEncodingError):
            parse_key(wrong)
