"""Small batches are written on entities that are watched, and as ever where somebody else has come between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import redis

import streaming.materializer
import streaming.sending
from online.entity_line import EntityLine
from online.errors import StoreReplyError
from online.keys import EntityKeys, timestamp_field
from online.script import Script
from online.values import encode_timestamp
from streaming.errors import LeaseLost
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.lease import Leases
from streaming.log import partition_of
from streaming.writes import prepare_writes
from tests.support.lazy import LazyExecutor
from tests.support.stream_world import CUSTOMER, PROJECT, START_US, World, drain, features, publish
from tests.support.valkey import emptied
from tests.support.worlds import everyone_offline

KEYS = PartitionKeys(PROJECT, 0)
OURS, THEIRS = (
    [name for number in range(50) if partition_of(name := f"c{number}", 2) == partition]
    for partition in (0, 1)
)


def _buy(name: str, customer: str, at_us: int) -> tuple[int, EventRecord]:
    return at_us, EventRecord(name, "buy", customer, at_us, {"category": "tea", "amount": 1.0})


def _undisturbed(url: str, events: list[tuple[int, EventRecord]], partitions: int) -> Any:
    client, world = emptied(url), World.create()
    materializers = [world.materializer(client, partition=number) for number in range(partitions)]
    for event in events:
        publish(url, [event], partitions)
        for materializer in materializers:
            drain(materializer)
    return features(client, world.plan)


def _between(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen once entities are looked at, and before they are written; once."""
    prepare, left = prepare_writes, [happens]

    def late(*arguments: Any) -> Any:
        while left:
            left.pop()()
        return prepare(*arguments)

    monkeypatch.setattr(streaming.materializer, "prepare_writes", late)


def test_small_batches_are_one_transaction_without_a_script(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is looked at once, and of the same features."""
    events = [_buy(f"e{number}", OURS[number % 3], START_US + number) for number in range(6)]
    expected = _undisturbed(url, events, 1)
    client, world = emptied(url), World.create()
    materializer = world.materializer(client)
    monkeypatch.setattr(Script, "ask_behind", None)
    client.config_resetstat()
    for event in events:
        publish(url, [event], 1)
        drain(materializer)
    figures: Any = client.info("commandstats")
    assert [figures[f"cmdstat_{name}"]["calls"] for name in ("watch", "exec")] == [6, 6]
    assert materializer.stats.refused_writes == 0
    assert features(client, world.plan) == expected


def test_a_partition_that_comes_between_is_not_overwritten(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes a category that both feed when ours has looked at it: ours reads it again, and adds to it."""
    events = [
        _buy("e0", OURS[0], START_US),
        _buy("x0", THEIRS[0], START_US + 1),
        _buy("e1", OURS[0], START_US + 1),
    ]
    expected = _undisturbed(url, events, 2)
    client, world = emptied(url), World.create()
    ours, theirs = (world.materializer(client, partition=number) for number in (0, 1))
    publish(url, events[:1], 2)
    drain(ours)
    publish(url, events[1:], 2)
    _between(monkeypatch, lambda: drain(theirs))
    drain(ours)
    assert ours.stats.refused_writes == 1
    assert features(client, world.plan) == expected


def test_batches_are_looked_at_behind_writes_on_their_way(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as those of the batch before have left its entities, though nobody has heard of them yet."""
    client, world = emptied(url), World.create()
    monkeypatch.setattr(streaming.sending, "ThreadPoolExecutor", LazyExecutor)
    materializer = world.materializer(client, batch_records=1)
    publish(url, [_buy(f"e{number}", OURS[0], START_US + number) for number in range(5)], 1)
    monkeypatch.setattr(Script, "ask_behind", None)
    client.config_resetstat()
    drain(materializer)
    figures: Any = client.info("commandstats")
    assert [figures[f"cmdstat_{name}"]["calls"] for name in ("watch", "exec")] == [5, 5]
    assert materializer.stats.refused_writes == 0


def test_nothing_is_looked_at_while_writes_go_over_other_connections(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change the same entities, and nothing says when: the look would be in vain."""
    client, world = emptied(url), World.create()
    monkeypatch.setattr(streaming.sending, "ThreadPoolExecutor", LazyExecutor)
    materializer = world.materializer(client, batch_records=1)
    publish(url, [_buy(f"e{number}", OURS[0], START_US + number) for number in range(5)], 1)
    takes, asked = EntityLine.takes, count()
    # The third batch, as if it were large; it is asked of once to look, and once to write.
    monkeypatch.setattr(
        EntityLine, "takes", lambda line, size: next(asked) not in (4, 5) and takes(line, size)
    )
    client.config_resetstat()
    drain(materializer)
    figures: Any = client.info("commandstats")
    assert figures["cmdstat_watch"]["calls"] == 3
    assert not materializer._sender._line._doubts, "no look was in vain"
    assert materializer.stats.refused_writes == 0


def test_an_owner_has_one_connection_and_gives_it_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a look is written by or not: another comes in its place, or what is written goes over others."""
    client, world = emptied(url), World.create()
    pool, materializer = client.connection_pool, world.materializer(client)
    kind, sender = world.plan.customer, materializer._sender
    touched = [(kind, kind.keys.encode_many({kind.key_names[0]: (OURS, range(len(OURS)))}))]
    for _ in range(3):
        sender.watch(touched)
        assert len(pool._in_use_connections) == 1
    with monkeypatch.context() as patched:
        patched.setattr(EntityLine, "takes", lambda *_: False)
        sender.send([], {}, START_US).written.result()
    sender.watch(touched)
    assert len(pool._in_use_connections) == 1
    materializer.close()
    assert not pool._in_use_connections


def test_an_owner_that_comes_between_has_the_partition(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed before it came is discarded whole."""
    client, world = emptied(url), World.create()
    materializer = world.materializer(client)
    publish(url, [_buy("e0", OURS[0], START_US)], 1)
    before: list[Any] = []

    def take_over() -> None:
        client.delete(KEYS.lease)
        assert Leases(client, PROJECT, "another", 60_000).acquire(0)
        before.append({key: client.dump(key) for key in client.scan_iter()})

    _between(monkeypatch, take_over)
    with pytest.raises(LeaseLost):
        drain(materializer)
    assert {key: client.dump(key) for key in client.scan_iter()} == before[0]


def test_a_store_that_comes_again_between_is_written_by_whoever_begins_anew(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that watched is gone, and nothing was sent on another."""
    events = [_buy("e0", OURS[0], START_US)]
    expected = _undisturbed(url, events, 1)
    client, world = emptied(url), World.create()
    materializer = world.materializer(client)
    publish(url, events, 1)
    _between(monkeypatch, lambda: _cut_others(client))
    with pytest.raises(Exception, match="the store stopped answering"):
        drain(materializer)
    materializer.close()
    assert not features(client, world.plan)
    drain(world.materializer(client))
    assert features(client, world.plan) == expected


def _cut_others(client: redis.Redis) -> None:
    with redis.Redis(**client.get_connection_kwargs()) as other:
        other.client_kill_filter(_type="normal", skipme=True)


def test_a_batch_that_is_hidden_takes_no_look_of_the_next(url: str) -> None:
    """The second hides a row behind a later one of another writer, which shows when the third is looked at already."""
    client, world = emptied(url), World.create()
    key = EntityKeys(PROJECT, (CUSTOMER,)).encode({CUSTOMER.name: "bob"})
    later = encode_timestamp(START_US + 10**12)
    store: Any = client
    store.hset(key, timestamp_field("looked"), later)
    publish(
        url,
        [
            (START_US + n, EventRecord(f"e{n}", "look", name, START_US + n, {"category": "tea"}))
            for n, name in enumerate(["ada", "bob", "cyd", "ada"])
        ],
    )
    materializer = world.materializer(client, batch_records=1)
    drain(materializer)
    assert materializer.stats.events == 4
    assert features(client, world.plan)[key][timestamp_field("looked")] == later


@pytest.mark.parametrize("stream", ["journal", "changes"])
def test_numbers_begin_behind_all_that_a_stream_ever_had(url: str, stream: str) -> None:
    """A journal, or its like, that was set back by hand: what comes is taken, and its rows are logged."""
    client, world = emptied(url), World.create()
    spoilt = getattr(KEYS, stream)
    client.xadd(spoilt, {"of": "old"}, id="50-0")
    client.xtrim(spoilt, maxlen=0, approximate=False)
    materializer = world.materializer(client)
    publish(url, [_buy("e0", OURS[0], START_US)], 1)
    drain(materializer)
    materializer.checkpoint()
    assert everyone_offline(world) == [OURS[0]]
    assert features(client, world.plan)


@pytest.mark.parametrize("name", ["journal", "timers"])
def test_bookkeeping_of_another_type_loses_nothing(url: str, name: str) -> None:
    """The materializer ends before anything is written; once the key is gone the next one goes on."""
    client, world = emptied(url), World.create()
    materializer = world.materializer(client)
    publish(url, [_buy("e0", OURS[0], START_US)], 1)
    client.set(getattr(KEYS, name), "spoilt")
    with pytest.raises(StoreReplyError, match="WRONGTYPE"):
        drain(materializer)
    materializer.close()
    assert not features(client, world.plan)
    client.delete(getattr(KEYS, name))
    successor = world.materializer(client)
    drain(successor)
    successor.checkpoint()
    assert everyone_offline(world) == [OURS[0]]
    assert features(client, world.plan)
