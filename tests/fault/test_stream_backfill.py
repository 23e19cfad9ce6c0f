"""Backfill and stream are one computation: history handed over to the log gives what streaming all of it gives."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import redis

from decision.schema import Value
from streaming.backfill import BackfillReport
from streaming.errors import StreamingError, TransformError
from streaming.events import EventRecord
from streaming.file_locks import FilesHeld
from streaming.keys import PartitionKeys
from streaming.kind_feeds import Progress
from streaming.unfinished import check_filled
from tests.support.backfills import fill, fill_until_killed
from tests.support.stream_world import (
    CUSTOMER_NAMES,
    MINUTE_US,
    PROJECT,
    START_US,
    World,
    drain,
    features,
    publish,
    random_events,
    tick,
)
from tests.support.valkey import emptied

LATER_US = START_US + 7_200_000_000


def _streamed(
    url: str, world: World, arrivals: Sequence[tuple[int, EventRecord]]
) -> dict[bytes, dict[bytes, bytes]]:
    client = emptied(url)
    publish(url, arrivals)
    tick(url, LATER_US)
    drain(world.materializer(client))
    return features(client, world.plan)


def _left(world: World) -> list[Path]:
    """What is in the archive besides the lock."""
    return [path for path in world.archive.iterdir() if path.name != ".backfill"]


def _values(hashes: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    return {key: {f: v for f, v in fields.items() if f != b"_ts:segments"} for key, fields in hashes.items()}


@pytest.mark.parametrize("seed", range(3))
def test_hand_over_from_backfill_gives_what_the_stream_gives(url: str, seed: int) -> None:
    """Half of the events backfilled and half streamed leave the same bytes as all of them streamed."""
    world = World.create()
    arrivals = random_events(seed, 120)
    expected = _streamed(url, world, arrivals)
    client = emptied(url)
    until_us = arrivals[len(arrivals) // 2][0]
    fill(client, world, [event for at_us, event in arrivals if at_us <= until_us], until_us)
    publish(url, [(at_us, event) for at_us, event in arrivals if at_us > until_us])
    tick(url, LATER_US)
    drain(world.materializer(client))
    assert _values(features(client, world.plan)) == _values(expected)


def test_event_of_the_history_published_again_counts_once(url: str) -> None:
    """The hand-over knows the ids of the last events, so that a retry across it is a duplicate."""
    world = World.create()
    client = emptied(url)
    properties: dict[str, Value] = {"category": "tea", "amount": 19.99}
    events = [
        EventRecord(f"e{number}", "buy", name, START_US, properties)
        for number, name in enumerate(CUSTOMER_NAMES)
    ]
    fill(client, world, events, START_US + 1)
    before = features(client, world.plan)
    publish(url, [(START_US + 2, event) for event in events])
    materializer = world.materializer(client)
    drain(materializer)
    assert materializer.stats.duplicates == len(events)
    assert features(client, world.plan) == before


def test_history_rows_are_readable_when_they_happened(url: str) -> None:
    """Offline rows of a backfill carry the event time, and windows that ran out have rows of their own."""
    world = World.create()
    event = EventRecord("e1", "buy", "ada", START_US, {"category": "tea", "amount": 19.99})
    fill(emptied(url), world, [event], LATER_US)
    table = ds.dataset(world.offline / "spending", format="parquet").to_table()
    rows = table.sort_by("event_timestamp").to_pylist()
    assert rows[0]["event_timestamp"] == datetime.fromtimestamp(START_US / 1e6, UTC)
    assert [row["count_5m"] for row in rows] == [1, 0, 0]
    assert [row["total_30m"] for row in rows] == [19.99, 19.99, 0.0]


def test_backfill_of_a_live_store_is_refused(url: str) -> None:
    """Once the log has been applied, a backfill would overwrite what it counted."""
    world = World.create()
    client = emptied(url)
    client.hset(PartitionKeys(PROJECT, 0).checkpoint, mapping={"position": 1})
    with pytest.raises(StreamingError, match="is live in this store already"):
        fill(client, world, [], LATER_US)


def test_second_backfill_is_told_of_the_first(url: str) -> None:
    """No materializer has run: what is in the store came from the backfill before."""
    world, client = World.create(), emptied(url)
    events = [event for _, event in random_events(1, 20)]
    fill(client, world, events, LATER_US)
    with pytest.raises(StreamingError, match="has its past in this store already"):
        fill(client, world, events, LATER_US)


def test_backfill_of_what_is_to_come_is_refused_before_anything_is_written(url: str) -> None:
    """Time cannot be set back: neither the store nor the archive has anything of such events."""
    world, client = World.create(), emptied(url)
    events = [event for _, event in random_events(1, 20)]
    with pytest.raises(StreamingError, match="yet to come when the stream takes over"):
        fill(client, world, events, START_US)
    check_filled(client, PROJECT)
    assert not features(client, world.plan)
    assert _left(world) == []


def test_backfill_that_a_function_refuses_leaves_nothing(url: str) -> None:
    """Neither in the store nor in the archive, from which views would be built otherwise."""
    world, client = World.create(), emptied(url)
    seen: list[int] = []

    def refuse(stage: str, done: int, _total: int) -> None:
        if stage == "transforming":
            seen.append(done)
            if done > 30:
                raise TransformError("no")

    events = [event for _, event in random_events(1, 60)]
    with pytest.raises(TransformError):
        fill(client, world, events, LATER_US, refuse, at_once=20)
    assert len(seen) == 2
    check_filled(client, PROJECT)
    assert not features(client, world.plan)
    assert _left(world) == []


def test_garbage_is_collected_again_whatever_came_of_a_backfill(url: str) -> None:
    """Nobody collects while states are made; a backfill that ends, or is refused, leaves that as it was."""
    world, client = World.create(), emptied(url)
    event = EventRecord("e1", "buy", "ada", START_US, {"category": "tea", "amount": 19.99})
    while_filling: list[bool] = []
    fill(client, world, [event], LATER_US, lambda *_: while_filling.append(gc.isenabled()))
    assert while_filling
    assert not any(while_filling)
    assert gc.isenabled()
    client.hset(PartitionKeys(PROJECT, 0).checkpoint, mapping={"position": 1})
    with pytest.raises(StreamingError):
        fill(client, world, [event], LATER_US)
    assert gc.isenabled()


def test_report_counts_the_entities_that_came_online(url: str) -> None:
    """By kind, those that there are in the store."""
    world = World.create()
    arrivals = random_events(5, 60)
    client = emptied(url)
    report = fill(client, world, [event for _, event in arrivals], LATER_US)
    assert sum(report.online_entities.values()) == len(features(client, world.plan))
    assert all(report.online_entities[kind.name] for kind in world.plan.kinds)


def _everything(client: redis.Redis, world: World) -> tuple[dict[bytes, object], dict[str, list[str]]]:
    """All that is in the store, and all offline rows by view."""
    asked: Any = client
    read = {
        b"hash": asked.hgetall,
        b"zset": lambda name: asked.zrange(name, 0, -1, withscores=True),
        b"string": asked.get,
    }
    held = {key: read[asked.type(key)](key) for key in asked.scan_iter(count=1000)}
    offline = {
        folder.name: sorted(map(str, ds.dataset(folder, format="parquet").to_table().to_pylist()))
        for folder in world.offline.iterdir()
    }
    return held, offline


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 60))]
)
def test_memory_holds_few_rows_however_many_events_there_are(url: str, seed: int) -> None:
    """Entities of many times more events than are in memory at once come out the same, to the byte of their states."""
    events = [event for _, event in random_events(seed, 600)]
    world, client = World.create(), emptied(url)
    whole = fill(client, world, events, LATER_US + 600 * MINUTE_US)
    expected, offline = _everything(client, world)
    in_parts, client = World.create(), emptied(url)
    report = fill(client, in_parts, events, LATER_US + 600 * MINUTE_US, at_once=20)
    assert whole.most_rows > 300
    assert report.most_rows <= 40
    assert _everything(client, in_parts) == (expected, offline)
    assert report.online_entities == whole.online_entities
    assert report.offline_rows == whole.offline_rows


def _archived(world: World) -> list[str]:
    """Ids of the events in the archive."""
    events = ds.dataset(world.archive, format="parquet").to_table()
    return sorted(events.column("event_id").to_pylist())


class _Dead(Exception):
    """What ends a backfill."""


def _die_at(number: int) -> Progress:
    """Die when told so many times."""
    left = iter(range(number))

    def progress(*_: object) -> None:
        if next(left, None) is None:
            raise _Dead

    return progress


@pytest.mark.parametrize("stage", ["transforming", "demand", "online customer_id"])
def test_backfill_that_was_killed_is_begun_anew(url: str, stage: str) -> None:
    """SIGKILL leaves a store that nothing materializes, and no temporary file; the next backfill makes all good."""
    past = [event for _, event in random_events(1, 60)]
    world, client = World.create(), emptied(url)
    fill(client, world, past, LATER_US)
    expected = _everything(client, world)
    world, client = World.create(), emptied(url)
    killed = multiprocessing.get_context("spawn").Process(
        target=fill_until_killed, args=(url, world.offline, stage, past[::2], LATER_US)
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    with pytest.raises(StreamingError, match="was cut short: run `waypost backfill`"):
        check_filled(client, PROJECT)
    assert {path.suffix for path in _left(world)} == {".parquet"}
    fill(client, world, past, LATER_US)
    check_filled(client, PROJECT)
    assert _everything(client, world) == expected


def test_backfill_that_failed_anywhere_is_begun_anew(url: str) -> None:
    """What it left goes, of entities that the next one does not have too; what is not of the stream stays."""
    past = [event for _, event in random_events(1, 60)]
    others = [replace(event, customer_id=f"{event.customer_id}-2") for event in past]
    until_us = LATER_US + 60 * MINUTE_US
    world, client = World.create(), emptied(url)
    fill(client, world, past, until_us, at_once=20)
    expected = _everything(client, world)
    key = next(iter(features(client, world.plan)))
    deaths, died = 0, True
    while died:
        world, client = World.create(), emptied(url)
        crm: Any = client
        crm.hset(key, b"crm", b"kept")
        try:
            fill(client, world, others, until_us, _die_at(deaths), at_once=20)
            died = False
        except _Dead:
            deaths += 1
            fill(client, world, past, until_us, at_once=20)
            check_filled(client, PROJECT)
            assert crm.hdel(key, b"crm")
            assert _everything(client, world) == expected
    assert deaths > 15


def test_two_backfills_of_one_store_do_not_both_hand_over(url: str) -> None:
    """The one that began first finds that another has, and leaves the store to it."""
    world, client = World.create(), emptied(url)
    events = [event for _, event in random_events(1, 60)]
    begun: list[BackfillReport] = []

    def begin_another(stage: str, *_: int) -> None:
        if stage.startswith("online") and not begun:
            begun.append(fill(client, World.create(), events, LATER_US))

    with pytest.raises(StreamingError, match="another backfill has begun"):
        fill(client, world, events, LATER_US, begin_another, at_once=20)
    assert len(begun) == 1


def test_backfill_that_fails_leaves_the_mark_of_one_that_began_since(url: str) -> None:
    """The other was cut short with entities online, on which nothing may start."""
    world, client = World.create(), emptied(url)
    events = [event for _, event in random_events(1, 60)]
    begun: list[str] = []

    def begin_another(stage: str, *_: int) -> None:
        if stage == "transforming":
            with pytest.raises(_Dead):
                fill(client, World.create(), events, LATER_US, die_online, at_once=20)
            raise TransformError("no")

    def die_online(stage: str, *_: int) -> None:
        if stage.startswith("online"):
            begun.append(stage)
            raise _Dead

    with pytest.raises(TransformError):
        fill(client, world, events, LATER_US, begin_another, at_once=20)
    assert begun
    assert features(client, world.plan)
    with pytest.raises(StreamingError, match="was cut short"):
        check_filled(client, PROJECT)


@pytest.mark.parametrize("stage", ["transforming", "demand", "online customer_id"])
def test_second_backfill_of_one_archive_is_refused(url: str, stage: str) -> None:
    """Both would write files of the same names: one that hands over must have its own alone, events and rows."""
    past = [event for _, event in random_events(1, 60)]
    others = [replace(event, event_id=f"other {event.event_id}") for event in past]
    world, client = World.create(), emptied(url)
    fill(client, world, past, LATER_US, at_once=20)
    expected, archived = _everything(client, world), _archived(world)
    world, client = World.create(), emptied(url)
    refused: list[str] = []

    def begin_another(at: str, *_: int) -> None:
        if at == stage:
            with pytest.raises(FilesHeld, match="another backfill is at work"):
                fill(client, world, others, LATER_US, at_once=20)
            refused.append(at)

    fill(client, world, past, LATER_US, begin_another, at_once=20)
    assert refused
    assert (_everything(client, world), _archived(world)) == (expected, archived)
