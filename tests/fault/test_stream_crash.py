"""The materializer dies at any send to the store: before it, in the middle of it, or before it can read the answer."""

from __future__ import annotations

import random
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow.dataset as ds
import pytest
import redis

import online.entity_line
import streaming.checkpoints
import streaming.materializer
import streaming.sending
from online.write import EntityWrite, EntityWriter, revision_of
from streaming.archive import archived_events, read_live
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.timers import Timers
from tests.support.doomed import Crash, Doom, DoomedConnection, doomed, drain_over_crashes
from tests.support.lazy import LazyExecutor
from tests.support.stream_world import (
    MINUTE_US,
    PROJECT,
    START_US,
    World,
    drain,
    features,
    publish,
    random_events,
    tick,
    without_segment_times,
)
from tests.support.valkey import emptied

EVENT_COUNT = 60
LATER_US = START_US + 7_200_000_000
Features = dict[bytes, dict[bytes, bytes]]
Offline = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(params=[256, 0], ids=["in one piece", "behind its intent"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a batch of few entities is written in one piece with its intent, or over connections of its own."""
    monkeypatch.setattr(online.entity_line, "MOST_BEHIND", request.param)


@pytest.fixture(scope="module")
def world() -> World:
    return World.create()


def _log_events(url: str, seed: int) -> None:
    emptied(url)
    publish(url, random_events(seed, EVENT_COUNT))
    tick(url, LATER_US)


def _undisturbed(url: str, world: World, seed: int) -> dict[bytes, dict[bytes, bytes]]:
    _log_events(url, seed)
    client = doomed(url)
    drain(world.materializer(client))
    return features(client, world.plan)


def _expected(url: str, world: World, seed: int) -> tuple[Features, list[dict[bytes, bytes]], Offline]:
    """Features, segment changes and offline rows of an undisturbed run of one record a batch."""
    _log_events(url, seed)
    client = doomed(url)
    materializer = world.materializer(client, batch_records=1)
    drain(materializer)
    materializer.checkpoint()
    return features(client, world.plan), _changes(client), _offline(world)


def _crashing_run(
    url: str, world: World, seed: int, rng: random.Random
) -> tuple[dict[bytes, dict[bytes, bytes]], int]:
    """Run to the end over as many crashes as it takes; each life ends at a random command."""
    _log_events(url, seed)
    crashes = 0
    while True:
        client = doomed(url)
        DoomedConnection.doom = Doom(rng.randrange(1, 20), rng) if crashes < 40 else None
        try:
            with closing(world.materializer(client, batch_records=rng.randrange(1, 20))) as materializer:
                drain(materializer)
        except Crash:
            crashes += 1
            continue
        finally:
            DoomedConnection.doom = None
        return features(doomed(url), world.plan), crashes


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 60))]
)
def test_crash_at_any_command_leaves_the_same_features(url: str, world: World, seed: int) -> None:
    """Values and timestamps are those of an undisturbed run, to the byte, wherever the process died."""
    expected = _undisturbed(url, world, seed)
    assert len(expected) > 10
    found, crashes = _crashing_run(url, world, seed, random.Random(seed))
    assert crashes > 5
    assert without_segment_times(found) == without_segment_times(expected)


def test_replay_of_the_whole_log_changes_nothing(url: str, world: World) -> None:
    """A materializer that lost its checkpoint reads everything again and leaves every value as it is."""
    expected = _undisturbed(url, world, 9)
    client = doomed(url)
    client.delete(PartitionKeys(PROJECT, 0).checkpoint)
    drain(world.materializer(client, batch_records=3))
    assert features(client, world.plan) == expected


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "seed", [100, 101, *(pytest.param(n, marks=pytest.mark.soak) for n in range(102, 130))]
)
def test_crash_at_any_command_loses_and_doubles_nothing_that_left(url: str, seed: int) -> None:
    """Segment changes, offline rows and all features are those of an undisturbed run, where batches are the same."""
    undisturbed, disturbed = World.create(), World.create()
    expected = _expected(url, undisturbed, seed)
    archived = _archived(doomed(url), undisturbed)
    assert len(expected[1]) > 5
    assert len(archived) == EVENT_COUNT

    _log_events(url, seed)
    crashes = drain_over_crashes(
        lambda: disturbed.materializer(doomed(url), batch_records=1), random.Random(seed), 60
    )
    assert crashes > 5
    found = doomed(url)
    assert features(found, disturbed.plan) == expected[0]
    assert _changes(found) == expected[1]
    assert _offline(disturbed) == expected[2]
    assert _archived(found, disturbed) == archived


@pytest.mark.parametrize("seed", range(300, 303))
def test_entries_too_many_in_the_index_of_timers_change_nothing(url: str, seed: int) -> None:
    """A crash leaves entries that are too early; whoever is looked at for them says and logs no more and no less."""
    undisturbed, disturbed = World.create(), World.create()
    expected = _expected(url, undisturbed, seed)

    _log_events(url, seed)
    client, rng, timers = doomed(url), random.Random(seed), PartitionKeys(PROJECT, 0).timers
    materializer = disturbed.materializer(client, batch_records=1)
    while materializer.step():
        if rng.random() < 0.3:
            materializer.checkpoint()
            entries: Any = client.zrange(timers, 0, -1)
            early = {entry: materializer.now_us + rng.randrange(MINUTE_US) for entry in entries}
            client.zadd(timers, early, lt=True)
            materializer = disturbed.materializer(client, batch_records=1)
    drain(materializer)
    materializer.checkpoint()
    assert features(client, disturbed.plan) == expected[0]
    assert _changes(client) == expected[1]
    assert _offline(disturbed) == expected[2]


@pytest.mark.usefixtures("pieces")
def test_timers_on_their_way_to_the_index_are_not_forgotten(
    url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earliest entries run out, and are read anew, while an intent that announces more is not written down yet."""
    for module in (streaming.sending, streaming.checkpoints):
        monkeypatch.setattr(module, "ThreadPoolExecutor", LazyExecutor)
    monkeypatch.setattr(streaming.materializer, "Timers", partial(Timers, most_held=20))
    client = doomed(url)
    client.flushall()
    many_at_once = [START_US + number for number in range(30)]
    few = [START_US + (number + 1) * 5 * MINUTE_US for number in range(30)]
    publish(
        url,
        [
            (at_us, EventRecord(f"e{n}", "buy", f"c{n}", at_us, {"category": "tea", "amount": 1.0}))
            for n, at_us in enumerate([*many_at_once, *few])
        ],
    )
    tick(url, LATER_US + few[-1] - START_US)
    materializer = world.materializer(client, batch_records=1)
    drain(materializer)
    left: Any = client.zrange(PartitionKeys(PROJECT, 0).timers, 0, 0, withscores=True)
    assert not left or left[0][1] > materializer.now_us


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "seed", [200, 201, *(pytest.param(n, marks=pytest.mark.soak) for n in range(202, 220))]
)
def test_entities_that_others_change_meanwhile_end_as_if_they_had_not(
    url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was computed ahead of a refused write is thrown away, and nothing that leaves an entity is there twice."""
    monkeypatch.setattr(streaming.materializer, "CAREFUL_BATCHES", 0)
    undisturbed, disturbed = World.create(), World.create()
    expected = _expected(url, undisturbed, seed)

    _log_events(url, seed)
    client, rng = doomed(url), random.Random(seed)
    writer = EntityWriter(client)
    materializer = disturbed.materializer(client, batch_records=1)
    while materializer.step():
        keys = list(features(client, disturbed.plan))
        raised = rng.sample(keys, rng.randrange(len(keys) + 1))
        revisions = map(revision_of, writer.load(raised))
        writer.apply(
            [
                EntityWrite(key=key, revision=revision, views=(), state={})
                for key, revision in zip(raised, revisions, strict=True)
            ]
        )
    drain(materializer)
    materializer.checkpoint()
    assert materializer.stats.refused_writes > 5
    assert features(client, disturbed.plan) == expected[0]
    assert _by_entity(_changes(client)) == _by_entity(expected[1])
    for view, rows in _offline(disturbed).items():
        assert [row[:-1] for row in rows] == [row[:-1] for row in expected[2][view]]
        # What fell due and was refused is done again with the next batch, at whose time it then is.
        assert all(row[-1] >= wanted[-1] for row, wanted in zip(rows, expected[2][view], strict=True))


def _changes(client: redis.Redis) -> list[dict[bytes, bytes]]:
    entries: Any = client.xrange(PartitionKeys(PROJECT, 0).changes)
    return [fields for _, fields in entries]


def _archived(client: redis.Redis, world: World) -> list[bytes]:
    """Every event of the archive; the checkpoint knows how many there are, and none is there twice."""
    checkpoint: Any = client.hgetall(PartitionKeys(PROJECT, 0).checkpoint)
    tables = list(read_live(world.archive, 0, 0, int(checkpoint[b"position"])))
    texts = [text for table in tables for text in archived_events(table)]
    assert len(texts) == int(checkpoint[b"archived"])
    assert len(set(texts)) == len(texts)
    return texts


def _by_entity(changes: list[dict[bytes, bytes]]) -> list[dict[bytes, bytes]]:
    """Changes of each entity in their order; a refused entity's come after those of its batch that were not."""
    return sorted(changes, key=lambda fields: fields[b"entity"])


def _offline(world: World) -> Offline:
    """Each view's log, in order: repeats dropped, and rows that say again what the row before them said."""
    logs = {}
    for folder in sorted(world.offline.iterdir()):
        table = ds.dataset(folder, format="parquet").to_table()
        rows = table.to_pylist()
        names = [name for name in table.column_names if name not in {"event_timestamp", "created"}]
        keys = [
            name
            for name in names
            if name == "customer_id" or (name == "category" and folder.name != "looked")
        ]
        rows.sort(key=lambda row: ([row[key] for key in keys], row["event_timestamp"], row["created"]))
        assert len({tuple(map(str, row.values())) for row in rows}) == len(rows), "a row is there twice"
        kept: list[tuple[Any, ...]] = []
        said: dict[tuple[object, ...], tuple[object, ...]] = {}
        for row in rows:
            entity, values = tuple(row[key] for key in keys), tuple(row[name] for name in names)
            if said.get(entity) != values:
                kept.append((*values, row["event_timestamp"]))
            said[entity] = values
        logs[folder.name] = kept
    return logs
