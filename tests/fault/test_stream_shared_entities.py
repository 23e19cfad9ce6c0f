"""Entities that several partitions feed: writes are refused where another partition has changed one meanwhile."""

from __future__ import annotations

from typing import Any

import pyarrow.dataset as ds
import pytest
import redis

from decision.schema import ValueType
from online.keys import feature_field
from online.values import decode_value
from streaming.archive import archived_events, read_live
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import partition_of
from streaming.materializer import Materializer
from tests.support.stream_world import PROJECT, START_US, World, drain, features, publish
from tests.support.valkey import emptied

KEYS = PartitionKeys(PROJECT, 0)
OURS, THEIRS = (
    [name for number in range(50) if partition_of(name := f"c{number}", 2) == partition]
    for partition in (0, 1)
)


def _buy(name: str, customer: str, at_us: int, amount: float = 1.0) -> tuple[int, EventRecord]:
    return at_us, EventRecord(name, "buy", customer, at_us, {"category": "tea", "amount": amount})


def _counts(world: World) -> list[int]:
    """What the offline store has of the category, in time."""
    rows = ds.dataset(world.offline / "demand", format="parquet").to_table().to_pylist()
    return [row["count_total"] for row in sorted(rows, key=lambda row: row["event_timestamp"])]


def _archived(client: redis.Redis, world: World) -> list[str]:
    position: Any = client.hget(KEYS.checkpoint, "position")
    tables = read_live(world.archive, 0, 0, int(position))
    return [EventRecord.from_bytes(text).event_id for table in tables for text in archived_events(table)]


def _both(client: redis.Redis, world: World) -> tuple[Materializer, Materializer]:
    """Materializers of both partitions; they have a purchase of ours behind them, which ours holds in memory."""
    ours, theirs = (world.materializer(client, partition=number, batch_records=10) for number in (0, 1))
    drain(ours)
    drain(theirs)
    return ours, theirs


def test_rows_of_refused_writes_are_void_after_a_crash(url: str) -> None:
    client, world = emptied(url), World.create()
    publish(url, [_buy("e0", OURS[0], START_US)], 2)
    ours, theirs = _both(client, world)
    publish(url, [_buy("x0", THEIRS[0], START_US + 1), _buy("x1", THEIRS[0], START_US + 2)], 2)
    drain(theirs)
    publish(url, [_buy("e1", OURS[0], START_US + 3)], 2)
    drain(ours)
    assert ours.stats.refused_writes == 1
    heir = world.materializer(client)
    drain(heir)
    heir.checkpoint()
    theirs.checkpoint()
    assert _counts(world) == [1, 3, 4]


@pytest.mark.parametrize("dies", [False, True])
def test_an_event_that_a_shared_entity_takes_no_more_counts_where_it_is_applied(url: str, dies: bool) -> None:
    """Its sum fits until another partition has added its own; by then the customer has the event."""
    client, world = emptied(url), World.create()
    publish(url, [_buy("e0", OURS[0], START_US)], 2)
    ours, theirs = _both(client, world)
    publish(url, [_buy("x0", THEIRS[0], START_US + 1, 9.0e12)], 2)
    drain(theirs)
    publish(url, [_buy("e1", OURS[0], START_US + 2, 5e11), _buy("e2", OURS[1], START_US + 3, 2.0)], 2)
    drain(ours)
    if dies:
        ours = world.materializer(client, batch_records=10)
        drain(ours)
    ours.checkpoint()
    theirs.checkpoint()
    ((_, fields),) = client.xrange(KEYS.dead_letters)  # type: ignore[misc]
    assert fields[b"reason"] == b"PARTLY_APPLIED"
    assert b"demand.total_30m" in fields[b"detail"]
    assert _archived(client, world) == ["e0", "e1", "e2"]
    assert ours.stats.events == 3 or dies
    count, total = feature_field("spending", "count_5m"), feature_field("demand", "count_total")
    online = features(client, world.plan)
    spent = {key: decode_value(ValueType.INT64, own[count]) for key, own in online.items() if count in own}
    assert sorted(spent.values()) == [1, 1, 2]  # type: ignore[type-var]
    assert [decode_value(ValueType.INT64, own[total]) for own in online.values() if total in own] == [3]
    assert _counts(world) == [1, 2, 3]
