"""What was put aside, or judged by the clock, is judged so again by an owner that reads the same records later.

What came behind it may be applied: an event that counts only at the second reading is in the archive and in no feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis

from decision.schema import ValueType
from online.keys import EntityKeys, feature_field
from online.values import decode_value
from streaming import recent
from streaming.archive import archived_events, read_live, read_put_aside
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.materializer import Materializer
from tests.support.stream_world import (
    CUSTOMER,
    MINUTE_US,
    PROJECT,
    SCHEMA,
    START_US,
    World,
    drain,
    publish,
    tick,
)
from tests.support.valkey import emptied

KEYS = PartitionKeys(PROJECT, 0)
HOUR_US = 60 * MINUTE_US
TOO_LARGE = 9.3e12


def _buy(name: str, at_us: int, amount: float = 1.0, category: object = "tea") -> EventRecord:
    return EventRecord(name, "buy", "ada", at_us, {"category": category, "amount": amount})  # type: ignore[dict-item]


def _archived(client: redis.Redis, world: World) -> list[str]:
    position = client.hget(KEYS.checkpoint, "position")
    tables = read_live(world.archive, 0, 0, int(position or 0))  # type: ignore[arg-type]
    return [EventRecord.from_bytes(text).event_id for table in tables for text in archived_events(table)]


def _aside(client: redis.Redis, world: World) -> list[tuple[str, str]]:
    """Events that the archive has as put aside, and why."""
    position: Any = client.hget(KEYS.checkpoint, "position")
    return [
        (EventRecord.from_bytes(row["event"]).event_id, row["reason"])
        for table in read_put_aside(world.archive, 0, 0, int(position))
        for row in table.to_pylist()
    ]


def _reasons(client: redis.Redis) -> list[str]:
    return [fields[b"reason"].decode() for _, fields in client.xrange(KEYS.dead_letters)]  # type: ignore[union-attr]


def _count(client: redis.Redis, feature: str) -> object:
    key: Any = EntityKeys(PROJECT, (CUSTOMER,)).encode({CUSTOMER.name: "ada"})
    field: Any = feature_field("spending", feature)
    stored: Any = client.hget(key, field)
    return decode_value(ValueType.INT64, stored)


def _settle(heir: Materializer) -> Materializer:
    drain(heir)
    heir.checkpoint()
    return heir


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (_buy("e1", START_US - 30 * MINUTE_US), "LATE"),
        (_buy("e1", START_US + 1, TOO_LARGE), "NOT_APPLICABLE"),
        (_buy("e1", START_US + 1, category=5), "NOT_APPLICABLE"),
        (_buy("e1", START_US + HOUR_US), "AHEAD"),
    ],
    ids=["late", "too large", "key", "ahead"],
)
def test_a_letter_that_left_the_log_before_the_checkpoint_moved_changes_nothing(
    client: redis.Redis, url: str, bad: EventRecord, reason: str
) -> None:
    """`waypost dlq redrive` and `waypost erase` take letters out at any time."""
    world = World.create()
    publish(
        url, [(START_US, _buy("e0", START_US)), (START_US + 1, bad), (START_US + 2, _buy("e2", START_US + 2))]
    )
    drain(world.materializer(client, batch_records=10, system_now_us=lambda: START_US + 2))
    assert _reasons(client) == [reason]
    ((place, _),) = client.xrange(KEYS.dead_letters)  # type: ignore[misc]
    client.xdel(KEYS.dead_letters, place)
    _settle(world.materializer(client, batch_records=10, system_now_us=lambda: START_US + 2))
    assert _archived(client, world) == ["e0", "e2"]
    assert _aside(client, world) == [("e1", reason)]
    assert _count(client, "count_5m") == 2
    assert not _reasons(client)


def test_a_sum_that_overflows_is_refused_again_where_its_letter_is_gone(
    client: redis.Redis, url: str
) -> None:
    world = World.create()
    amounts = (9.2e12, 9.2e12, 1.0)
    publish(url, [(START_US + n, _buy(f"e{n}", START_US + n, amount)) for n, amount in enumerate(amounts)])
    drain(world.materializer(client, batch_records=10))
    ((place, _),) = client.xrange(KEYS.dead_letters)  # type: ignore[misc]
    client.xdel(KEYS.dead_letters, place)
    _settle(world.materializer(client, batch_records=10))
    assert _archived(client, world) == ["e0", "e2"]
    assert _aside(client, world) == [("e1", "NOT_APPLICABLE")]
    assert _count(client, "count_5m") == 2


@pytest.mark.parametrize("records", [1, 2, 10])
def test_what_was_ahead_of_the_clock_is_so_again_once_the_clock_is_there(
    client: redis.Redis, url: str, records: int
) -> None:
    """It can be sent again under its id: the second reading has not noted it."""
    world, now_us = World.create(), START_US + 3
    ahead_us = START_US + SCHEMA.max_future_s * 1_000_000 + MINUTE_US
    publish(
        url,
        [
            (START_US, _buy("e0", START_US)),
            (START_US + 1, _buy("e1", ahead_us)),
            (START_US + 2, _buy("e2", START_US + 2)),
        ],
    )
    drain(world.materializer(client, batch_records=10, system_now_us=lambda: now_us))
    later_us = START_US + 2 * MINUTE_US
    heir = _settle(world.materializer(client, batch_records=records, system_now_us=lambda: later_us))
    assert _reasons(client) == ["AHEAD"]
    assert (_archived(client, world), _count(client, "count_5m")) == (["e0", "e2"], 2)
    publish(url, [(later_us, _buy("e1", ahead_us))])
    _settle(heir)
    assert (_archived(client, world), _count(client, "count_5m")) == (["e0", "e2", "e1"], 3)
    assert heir.stats.duplicates == 0


@pytest.mark.parametrize("records", [1, 2, 10])
def test_time_moves_no_further_when_records_are_read_again_later(
    client: redis.Redis, url: str, records: int
) -> None:
    """One stamped by a clock two hours ahead moved time to the materializer's own, and events behind it counted."""
    world = World.create()
    publish(
        url,
        [
            (START_US, _buy("e0", START_US)),
            (START_US + 2 * HOUR_US, _buy("e1", START_US + 1)),
            (START_US + 2, _buy("e2", START_US + 2)),
        ],
    )
    first = world.materializer(client, batch_records=10, system_now_us=lambda: START_US + 3)
    drain(first)
    assert (first.stats.events, first.stats.late) == (3, 0)
    later_us = START_US + 20 * MINUTE_US
    heir = _settle(world.materializer(client, batch_records=records, system_now_us=lambda: later_us))
    assert heir.stats.late == 0
    assert not _reasons(client)
    assert _archived(client, world) == ["e0", "e1", "e2"]


def test_what_was_late_is_late_again_by_a_clock_that_is_set_back(client: redis.Redis, url: str) -> None:
    """The record that had moved time left no intent, which would tell."""
    world, late_us = World.create(), START_US + 2 * HOUR_US
    tick(url, late_us)
    publish(url, [(late_us, _buy("e0", START_US + 1))])
    drain(world.materializer(client, system_now_us=lambda: late_us))
    assert _reasons(client) == ["LATE"]
    heir = _settle(world.materializer(client, system_now_us=lambda: START_US))
    assert (heir.stats.events, heir.stats.late) == (0, 1)
    assert _aside(client, world) == [("e0", "LATE")]


def test_an_event_there_was_no_room_for_is_left_out_again_where_there_is_room(
    client: redis.Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are forgotten by the checkpoint, which moves between the two readings."""
    world = World.create()
    publish(url, [(START_US + n, _buy(f"e{n}", START_US + n)) for n in range(4)])
    monkeypatch.setattr(recent, "MAX_RECENT_IDS", 3)
    drain(world.materializer(client, batch_records=10))
    assert _reasons(client) == ["CROWDED"]
    monkeypatch.undo()
    _settle(world.materializer(client, batch_records=10))
    assert _reasons(client) == ["CROWDED"]
    assert _archived(client, world) == ["e0", "e1", "e2"]
    assert _aside(client, world) == [("e3", "CROWDED")]
    assert _count(client, "count_5m") == 3


@pytest.mark.parametrize(
    "events",
    [[_buy("e0", START_US), _buy("e1", START_US + 1, TOO_LARGE)], [_buy("e0", START_US + HOUR_US)]],
    ids=["put aside", "ahead"],
)
def test_what_is_behind_the_checkpoint_is_forgotten(
    client: redis.Redis, url: str, events: Sequence[EventRecord]
) -> None:
    """It has words of an event in it, so it goes at once, by the owner that wrote it or the next."""
    for dies in (False, True):
        world = World.create()
        publish(url, [(START_US, event) for event in events])
        owner = world.materializer(client, system_now_us=lambda: START_US + 1)
        drain(owner)
        assert client.zcard(KEYS.verdicts) == 1
        _settle(world.materializer(client, system_now_us=lambda: START_US + 1) if dies else owner)
        assert not client.exists(KEYS.verdicts)
        client = emptied(url)
