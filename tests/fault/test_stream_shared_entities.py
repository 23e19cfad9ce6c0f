"""Entities that several partitions feed: writes are refused where another partition has changed one meanwhile."""

from __future__ import annotations

from typing import Any

import pyarrow.dataset as ds
import pytest
import redis

from decision.schema import ValueType
from online.keys import EntityKeys, feature_field
from online.values import decode_value
from online.write import EntityWrite, EntityWriter, revision_of
from streaming.archive import archived_events, read_live
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import partition_of
from streaming.materializer import Materializer
from tests.support.stream_world import (
    CUSTOMER,
    MINUTE_US,
    PROJECT,
    START_US,
    World,
    drain,
    features,
    publish,
)
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


def _values(client: redis.Redis, world: World, view: str, feature: str, value_type: ValueType) -> list[Any]:
    field = feature_field(view, feature)
    return [
        decode_value(value_type, own[field]) for own in features(client, world.plan).values() if field in own
    ]


@pytest.mark.parametrize("customer_is_written_again", [False, True])
@pytest.mark.parametrize("then", ["goes on", "dies", "dies once there is room"])
def test_an_event_that_a_shared_entity_takes_no_more_counts_where_it_is_applied(
    url: str, then: str, customer_is_written_again: bool
) -> None:
    """Its sum fits until another partition has added its own; by then the others have the event.

    Whoever reads it again leaves it at that, though the window has moved since.
    """
    client, world = emptied(url), World.create()
    publish(url, [_buy("e0", OURS[0], START_US)], 2)
    ours, theirs = _both(client, world)
    publish(url, [_buy("x0", THEIRS[0], START_US + 1, 9.0e12)], 2)
    drain(theirs)
    if customer_is_written_again:
        writer, key = EntityWriter(client), EntityKeys(PROJECT, (CUSTOMER,)).encode({CUSTOMER.name: OURS[0]})
        (held,) = writer.load([key])
        writer.apply([EntityWrite(key=key, revision=revision_of(held), views=(), state={})])
    publish(url, [_buy("e1", OURS[0], START_US + 2, 5e11), _buy("e2", OURS[1], START_US + 3, 2.0)], 2)
    drain(ours)
    counts = [1, 2, 3]
    if then == "dies once there is room":
        publish(url, [_buy("x1", THEIRS[0], START_US + 45 * MINUTE_US)], 2)
        drain(theirs)
        counts.append(4)
    if then != "goes on":
        ours = world.materializer(client, batch_records=10)
        drain(ours)
    ours.checkpoint()
    theirs.checkpoint()
    ((_, fields),) = client.xrange(KEYS.dead_letters)  # type: ignore[misc]
    assert fields[b"reason"] == b"PARTLY_APPLIED"
    assert b"demand.total_30m" in fields[b"detail"]
    assert _archived(client, world) == ["e0", "e1", "e2"]
    assert _values(client, world, "demand", "count_total", ValueType.INT64) == counts[-1:]
    assert _counts(world)[:3] == counts[:3]
    if then != "dies once there is room":
        assert sorted(_values(client, world, "spending", "count_5m", ValueType.INT64)) == [1, 1, 2]
        assert (5e11 + 1) / 2 in _values(client, world, "taste", "mean_30m", ValueType.DOUBLE)


@pytest.mark.parametrize("is_ending", [False, True])
def test_a_batch_that_is_written_in_part_is_brought_to_its_end(url: str, is_ending: bool) -> None:
    """Its rows are on their way to the files: left to the next owner, they would be logged twice."""
    client, world = emptied(url), World.create()
    publish(url, [_buy("e0", OURS[0], START_US)], 2)
    ours, theirs = _both(client, world)
    publish(url, [_buy("x0", THEIRS[0], START_US + 1, 9.0e12)], 2)
    drain(theirs)
    publish(url, [_buy("e1", OURS[0], START_US + 2, 5e11), _buy("e2", OURS[1], START_US + 3, 2.0)], 2)
    ours.step(lambda: is_ending)
    ours.checkpoint()
    heir = world.materializer(client, batch_records=10)
    drain(heir)
    heir.checkpoint()
    rows = ds.dataset(world.offline / "spending", format="parquet").to_table().to_pylist()
    assert len(rows) == len({str(row) for row in rows})
