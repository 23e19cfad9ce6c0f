"""Backfill and stream are one computation: history handed over to the log gives what streaming all of it gives."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow.dataset as ds
import pytest
import redis

from online.write import EntityWriter
from streaming.backfill import BackfillReport, Progress, backfill
from streaming.errors import StreamingError
from streaming.events import EventRecord, Events
from streaming.frame import events_frame
from streaming.keys import PartitionKeys
from tests.support.stream_world import (
    PROJECT,
    SCHEMA,
    START_US,
    World,
    drain,
    features,
    publish,
    random_events,
    tick,
)
from tests.support.valkey import start_valkey

LATER_US = START_US + 7_200_000_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


def _client(url: str) -> redis.Redis:
    client = redis.Redis.from_url(url)
    client.flushall()
    return client


def _streamed(
    url: str, world: World, arrivals: Sequence[tuple[int, EventRecord]]
) -> dict[bytes, dict[bytes, bytes]]:
    client = _client(url)
    publish(url, arrivals)
    tick(url, LATER_US)
    drain(world.materializer(client))
    return features(client, world.plan)


def _fill(
    client: redis.Redis,
    world: World,
    events: Sequence[EventRecord],
    until_us: int,
    progress: Progress = lambda _stage, _done, _total: None,
) -> BackfillReport:
    distinct = list({event.event_id: event for event in events}.values())
    return backfill(
        client=client,
        archive=world.archive,
        writer=EntityWriter(client),
        plan=world.plan,
        schema=SCHEMA,
        events=events_frame(Events.of(distinct), SCHEMA.property_types),
        until_us=until_us,
        partition_count=1,
        progress=progress,
    )


def _values(hashes: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    return {key: {f: v for f, v in fields.items() if f != b"_ts:segments"} for key, fields in hashes.items()}


@pytest.mark.parametrize("seed", range(3))
def test_hand_over_from_backfill_gives_what_the_stream_gives(url: str, seed: int) -> None:
    """Half of the events backfilled and half streamed leave the same bytes as all of them streamed."""
    world = World.create()
    arrivals = random_events(seed, 120)
    expected = _streamed(url, world, arrivals)
    client = _client(url)
    until_us = arrivals[len(arrivals) // 2][0]
    _fill(client, world, [event for at_us, event in arrivals if at_us <= until_us], until_us)
    publish(url, [(at_us, event) for at_us, event in arrivals if at_us > until_us])
    tick(url, LATER_US)
    drain(world.materializer(client))
    assert _values(features(client, world.plan)) == _values(expected)


def test_event_of_the_history_published_again_counts_once(url: str) -> None:
    """The hand-over knows the ids of the last events, so that a retry across it is a duplicate."""
    world = World.create()
    client = _client(url)
    event = EventRecord("e1", "buy", "ada", START_US, {"category": "tea", "amount": 19.99})
    _fill(client, world, [event], START_US + 1)
    before = features(client, world.plan)
    publish(url, [(START_US + 2, event)])
    materializer = world.materializer(client)
    drain(materializer)
    assert materializer.stats.duplicates == 1
    assert features(client, world.plan) == before


def test_history_rows_are_readable_when_they_happened(url: str) -> None:
    """Offline rows of a backfill carry the event time, and windows that ran out have rows of their own."""
    world = World.create()
    event = EventRecord("e1", "buy", "ada", START_US, {"category": "tea", "amount": 19.99})
    _fill(_client(url), world, [event], LATER_US)
    table = ds.dataset(world.offline / "spending", format="parquet").to_table()
    rows = table.sort_by("event_timestamp").to_pylist()
    assert rows[0]["event_timestamp"] == datetime.fromtimestamp(START_US / 1e6, UTC)
    assert [row["count_5m"] for row in rows] == [1, 0, 0]
    assert [row["total_30m"] for row in rows] == [19.99, 19.99, 0.0]


def test_backfill_of_a_live_store_is_refused(url: str) -> None:
    """Once the log has been applied, a backfill would overwrite what it counted."""
    world = World.create()
    client = _client(url)
    client.hset(PartitionKeys(PROJECT, 0).checkpoint, mapping={"position": 1})
    with pytest.raises(StreamingError, match="is live in this store already"):
        _fill(client, world, [], LATER_US)


def test_garbage_is_collected_again_whatever_came_of_a_backfill(url: str) -> None:
    """Nobody collects while states are made; a backfill that ends, or is refused, leaves that as it was."""
    world, client = World.create(), _client(url)
    event = EventRecord("e1", "buy", "ada", START_US, {"category": "tea", "amount": 19.99})
    while_filling: list[bool] = []
    _fill(client, world, [event], LATER_US, lambda *_: while_filling.append(gc.isenabled()))
    assert while_filling
    assert not any(while_filling)
    assert gc.isenabled()
    client.hset(PartitionKeys(PROJECT, 0).checkpoint, mapping={"position": 1})
    with pytest.raises(StreamingError):
        _fill(client, world, [event], LATER_US)
    assert gc.isenabled()


def test_report_counts_the_entities_that_came_online(url: str) -> None:
    """By kind, those that there are in the store."""
    world = World.create()
    arrivals = random_events(5, 60)
    client = _client(url)
    report = _fill(client, world, [event for _, event in arrivals], LATER_US)
    assert sum(report.online_entities.values()) == len(features(client, world.plan))
    assert all(report.online_entities[kind.name] for kind in world.plan.kinds)
