"""Views built from the archive while others follow the log hold what they would have held from the beginning."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds
import pytest
import redis

import streaming.archive
import streaming.file_locks
import streaming.shadow
from online.values import decode_timestamp
from online.write import EntityWriter
from streaming.backfill import backfill
from streaming.entity import POSITIONS
from streaming.errors import StreamingError
from streaming.events import Events, PropertyType
from streaming.file_locks import FilesHeld
from streaming.frame import events_frame
from streaming.generations import Unfinished
from streaming.history import Past
from streaming.shadow import EVENTS_AT_ONCE, BuildAbandoned, ShadowBuild, finish_switch, staged
from tests.support.stopping import Stopped
from tests.support.stream_world import (
    MINUTE_US,
    SCHEMA,
    START_US,
    World,
    archive_beside,
    catalog,
    drain,
    features,
    publish,
    random_events,
    stream_plan,
    tick,
)
from tests.support.valkey import emptied
from tests.support.worlds import apply_all

LATER_US = START_US + 7_200_000_000
VIEWS = ("spending", "demand", "taste", "looked")
PARTITIONS = 2


def _apply(
    client: redis.Redis, world: World, generations: dict[str, str], rng: random.Random, minutes: int = 30
) -> None:
    """Bring every partition to its end, checkpoint included."""
    plan = stream_plan(world.offline, generations, minutes)
    for partition in range(PARTITIONS):
        materializer = world.materializer(
            client, partition=partition, batch_records=rng.randrange(1, 20), plan=plan
        )
        drain(materializer)
        materializer.checkpoint()


def _build(
    client: redis.Redis,
    world: World,
    views: list[str],
    generation: str = "g1",
    partition_count: int = PARTITIONS,
    at_once: int = EVENTS_AT_ONCE,
    minutes: int = 30,
) -> ShadowBuild:
    return ShadowBuild(
        client=client,
        writer=EntityWriter(client),
        plan=stream_plan(world.offline, dict.fromkeys(views, generation), minutes),
        whole=stream_plan(world.offline, minutes=minutes),
        schema=SCHEMA,
        archive=world.archive,
        partition_count=partition_count,
        progress=lambda *_: None,
        at_once=at_once,
    )


def _values(client: redis.Redis, world: World) -> dict[bytes, dict[bytes, bytes]]:
    """All but when membership last changed, which is later where a segment's view came later."""
    found = features(client, world.plan)
    return {key: {f: v for f, v in fields.items() if f != b"_ts:segments"} for key, fields in found.items()}


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(n, marks=pytest.mark.soak) for n in range(6, 200))]
)
def test_a_view_that_came_later_holds_what_it_would_have_held(url: str, seed: int) -> None:
    """Any views, added anywhere in the log, after any number of rounds, to the byte; also after a build that died."""
    rng = random.Random(seed)
    arrivals = random_events(seed, 120)
    world = World.create()
    client = emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, LATER_US, PARTITIONS)
    _apply(client, world, dict.fromkeys(VIEWS, ""), rng)
    expected = _values(client, world)

    world, client = World.create(), emptied(url)
    new = rng.sample(VIEWS, rng.randrange(1, len(VIEWS) + 1))
    old = {view: "" for view in VIEWS if view not in new}
    cuts = sorted(rng.sample(range(len(arrivals)), 4))
    publish(url, arrivals[: cuts[0]], PARTITIONS)
    _apply(client, world, old, rng)
    if rng.random() < 0.5:
        dead = _build(client, world, new, "g0")
        dead.sweep("g0")
        dead.install()
    build = _build(client, world, new, at_once=rng.choice((3, 20, EVENTS_AT_ONCE)))
    build.sweep("g1")
    for first, stop in pairwise(cuts):
        publish(url, arrivals[first:stop], PARTITIONS)
        _apply(client, world, old, rng)
        build.catch_up()
        if rng.random() < 0.3:
            build.prepare()
        if rng.random() < 0.3:
            build.install()
            _apply(client, world, old, rng)
    build.install()
    publish(url, arrivals[cuts[-1] :], PARTITIONS)
    tick(url, LATER_US, PARTITIONS)
    _apply(client, world, old | dict.fromkeys(new, "g1"), rng)
    assert _values(client, world) == expected


@pytest.mark.parametrize(("is_finished", "is_written"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("minutes", [10, 45, 200])
def test_other_windows_show_their_values_though_those_are_of_an_earlier_time(
    url: str, minutes: int, is_finished: bool, is_written: bool
) -> None:
    """What left a window still lies in a longer one, and the last change of a shorter one was longer ago."""
    rng, arrivals, views = random.Random(7), random_events(7, 120), ["spending", "demand", "taste"]
    until_us, old = arrivals[-1][0] + 40 * MINUTE_US, dict.fromkeys(VIEWS, "")
    world, client = World.create(), emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, until_us, PARTITIONS)
    _apply(client, world, old, rng, minutes)
    expected = _values(client, world)

    world, client = World.create(), emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, arrivals[-1][0] if is_written else until_us, PARTITIONS)
    _apply(client, world, old, rng)
    before = _values(client, world)
    build = _build(client, world, views, minutes=minutes)
    build.sweep("g1")
    build.prepare()
    if is_written:
        # Customers come to be due meanwhile, and their owners drop what the former definition has left.
        tick(url, until_us, PARTITIONS)
        _apply(client, world, {"looked": ""}, rng)
        build.catch_up()
    build.install()
    if is_finished:
        intents = build.intents()
        for name in views:
            left = Unfinished(view=name, generation="g1", features=(), intents=intents)
            finish_switch(client, catalog(world.offline, minutes), world.archive, left)
    _apply(client, world, old | dict.fromkeys(views, "g1"), rng, minutes)
    assert _values(client, world) == expected
    stamps = [(expected[key][f], v) for key, own in before.items() for f, v in own.items() if f[:3] == b"_ts"]
    assert is_written or any(decode_timestamp(new) < decode_timestamp(stood) for new, stood in stamps)


@pytest.mark.parametrize("silent", [True, False])
def test_a_view_is_shown_though_nothing_happens(url: str, silent: bool) -> None:
    """Each entity shows it at the time at which the owners stood; also one that was written at that very time."""
    rng, arrivals = random.Random(1), random_events(1, 60)
    last_us = LATER_US if silent else arrivals[-1][0]
    world, client = World.create(), emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, last_us, PARTITIONS)
    _apply(client, world, dict.fromkeys(VIEWS, ""), rng)
    expected = _values(client, world)

    world, client = World.create(), emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, last_us, PARTITIONS)
    _apply(client, world, {"looked": ""}, rng)
    build = _build(client, world, ["spending", "demand", "taste"])
    build.sweep("g1")
    build.prepare()
    build.catch_up()
    build.install()
    _apply(client, world, {"looked": "", "spending": "g1", "demand": "g1", "taste": "g1"}, rng)
    assert _values(client, world) == expected


def test_the_past_of_a_backfill_is_in_what_is_built(url: str) -> None:
    """Half of the events backfilled and half streamed; the view comes after both."""
    rng, arrivals = random.Random(3), random_events(3, 100)
    world, client = World.create(), emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, LATER_US, PARTITIONS)
    _apply(client, world, dict.fromkeys(VIEWS, ""), rng)
    expected = _values(client, world)

    world, client = World.create(), emptied(url)
    until_us = arrivals[50][0]
    past = list({event.event_id: event for at_us, event in arrivals if at_us <= until_us}.values())
    backfill(
        client=client,
        archive=world.archive,
        writer=EntityWriter(client),
        plan=stream_plan(world.offline, {"spending": "", "looked": ""}),
        schema=SCHEMA,
        events=Past.of_frame(events_frame(Events.of(past), SCHEMA.property_types)),
        until_us=until_us,
        partition_count=PARTITIONS,
        progress=lambda *_: None,
    )
    publish(url, [(at_us, event) for at_us, event in arrivals if at_us > until_us], PARTITIONS)
    _apply(client, world, {"spending": "", "looked": ""}, rng)
    build = _build(client, world, ["demand", "taste"], at_once=20)
    build.sweep("g1")
    build.install()
    tick(url, LATER_US, PARTITIONS)
    _apply(client, world, {"spending": "", "looked": "", "demand": "g1", "taste": "g1"}, rng)
    assert _values(client, world) == expected
    parts = staged(world.plan.kinds[1].views[0].view, "g1")
    assert ds.dataset(parts, format="parquet").count_rows() > 10


def test_what_is_in_memory_at_once_is_bounded_by_its_bytes_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few events take as much."""
    world, client = World.create(), emptied(url)
    publish(url, random_events(5, 200), PARTITIONS)
    _apply(client, world, {"looked": ""}, random.Random(5))
    sizes: list[int] = []

    def noting(events: Events, types: dict[str, PropertyType]) -> pd.DataFrame:
        sizes.append(sum(map(len, events.texts)))
        return events_frame(events, types)

    monkeypatch.setattr(streaming.shadow, "events_frame", noting)
    _build(client, world, ["demand"], "g0").sweep("g0")
    assert len(sizes) == PARTITIONS
    whole = sum(sizes)
    sizes.clear()
    monkeypatch.setattr(streaming.shadow, "BYTES_AT_ONCE", 1_000)
    monkeypatch.setattr(streaming.archive, "PIECE_BYTES", 1_000)
    _build(client, world, ["demand"], "g1").sweep("g1")
    assert sum(sizes) == whole
    assert max(sizes) < 3_000


def test_an_archive_that_lacks_events_is_not_built_from(url: str) -> None:
    """Another data folder than the one that was written must not give views half of their past."""
    world, client = World.create(), emptied(url)
    publish(url, random_events(1, 20), PARTITIONS)
    _apply(client, world, {"spending": ""}, random.Random(1))
    stolen = next(iter(world.archive.glob("live-*.parquet")))
    stolen.unlink()
    with pytest.raises(StreamingError, match="start the materializer with the data folder"):
        _build(client, world, ["demand"]).sweep("g1")


def finish(url: str, offline: Path, switched: list[Unfinished]) -> None:
    """Finish switches, as whoever has the lock of builds does."""
    with redis.Redis.from_url(url) as client:
        for left in switched:
            finish_switch(client, catalog(offline), archive_beside(offline), left)


def _switch(
    client: redis.Redis, world: World, generation: str, partition_count: int = PARTITIONS
) -> list[Unfinished]:
    """Build all views anew, and have them serve."""
    build = _build(client, world, list(VIEWS), generation, partition_count)
    build.sweep(generation)
    build.install()
    features_by_view = {view.name: view.features for view in catalog(world.offline).views}
    return [
        Unfinished(
            view=view,
            generation=generation,
            features=(*(feature.name for feature in features_by_view[view]), "gone"),
            intents=build.intents(),
        )
        for view in VIEWS
    ]


def _all(client: redis.Redis, world: World) -> tuple[dict[bytes, object], list[str]]:
    """Every hash of the store, and every file of the offline log."""
    hashes: dict[bytes, object] = {key: client.hgetall(key) for key in client.scan_iter(_type="hash")}
    return hashes, sorted(str(path) for path in world.offline.rglob("*"))


@pytest.mark.parametrize("at", [0, 1, 3, 6, 9, 12, 15])
def test_who_stood_still_while_a_switch_was_finished_leaves_later_ones_alone(url: str, at: int) -> None:
    """Frozen at any step, it goes on when another has finished, and other definitions have come and taken over."""
    rng, arrivals = random.Random(at), random_events(at, 90)
    world, client = World.create(), emptied(url)
    publish(url, arrivals, PARTITIONS)
    tick(url, LATER_US, PARTITIONS)
    _apply(client, world, dict.fromkeys(VIEWS, ""), rng)
    expected = _values(client, world)

    world, client = World.create(), emptied(url)
    publish(url, arrivals[:40], PARTITIONS)
    _apply(client, world, dict.fromkeys(VIEWS, ""), rng)
    first = _switch(client, world, "g1")
    _apply(client, world, dict.fromkeys(VIEWS, "g1"), rng)
    steps = ["pathlib.Path.glob", "pathlib.Path.rename", "online.script.Script.run"]
    frozen = Stopped(finish, url, world.offline, first, steps=steps, at=at)
    try:
        finish(url, world.offline, first)
        publish(url, arrivals[40:70], PARTITIONS)
        _apply(client, world, dict.fromkeys(VIEWS, "g1"), rng)
        second = _switch(client, world, "g2")
        _apply(client, world, dict.fromkeys(VIEWS, "g2"), rng)
        finish(url, world.offline, second)
        before = _all(client, world)
        assert frozen.go_on() == 0
    finally:
        frozen.kill()
    assert _all(client, world) == before
    publish(url, arrivals[70:], PARTITIONS)
    tick(url, LATER_US, PARTITIONS)
    _apply(client, world, dict.fromkeys(VIEWS, "g2"), rng)
    assert _values(client, world) == expected


@pytest.mark.parametrize("seed", range(4))
def test_a_build_that_stood_still_in_the_pause_sets_nobody_back(url: str, seed: int) -> None:
    """The owners went on without it; time of an entity never runs backwards, or its log would say things twice."""
    rng, arrivals = random.Random(seed), random_events(seed, 90)
    world, client = World.create(), emptied(url)
    old = {"looked": ""}
    publish(url, arrivals[:50], PARTITIONS)
    _apply(client, world, old, rng)
    build = _build(client, world, ["spending"])
    build.sweep("g1")
    build.prepare()
    build.catch_up()
    publish(url, arrivals[50:], PARTITIONS)
    _apply(client, world, old, rng)
    before = _times(client)
    with pytest.raises(BuildAbandoned, match="gone on"):
        build.install()
    after = _times(client)
    assert all(after[key] >= time_us for key, time_us in before.items())


def _times(client: redis.Redis) -> dict[bytes, int]:
    """Logical time of each entity."""
    held: dict[bytes, Any] = {key: client.hgetall(key) for key in client.scan_iter(match="{*", _type="hash")}
    return {key: int.from_bytes(fields[POSITIONS][:8], "little") for key, fields in held.items()}


def test_a_switch_is_not_finished_while_a_former_owner_is_at_its_files(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows of the definition before would come in among those of the new one, and stay."""
    monkeypatch.setattr(streaming.file_locks, "LOCK_WAIT_S", 0.0)
    world, client = World.create(), emptied(url)
    publish(url, random_events(1, 60))
    frozen = Stopped(apply_all, url, world.offline, steps=["pathlib.Path.replace"], at=1)
    try:
        apply_all(url, world.offline)
        switched = _switch(client, world, "g1", partition_count=1)
        with pytest.raises(FilesHeld, match="let it go on, or end it"):
            finish(url, world.offline, switched)
        assert frozen.go_on() == 1
    finally:
        frozen.kill()
    finish(url, world.offline, switched)
    assert not list(world.offline.glob("*/live-*"))
    assert list(world.offline.glob("spending/build-g1-*"))
