"""What is logged offline is written beside the batches, and the checkpoint moves behind it alone."""

from __future__ import annotations

from typing import Any

import pytest
import redis

import streaming.checkpoints
from streaming.archive import read_live
from streaming.errors import LeaseLost
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.materializer import Materializer
from tests.support.lazy import LazyExecutor
from tests.support.stopping import Stopped
from tests.support.stores import wait_until
from tests.support.stream_world import PROJECT, START_US, World, drain, features, publish
from tests.support.valkey import emptied
from tests.support.worlds import apply_all, everyone_offline

EVENTS = 30
"""Each has a row of its customer and one of that customer in its category: the world's checkpoint is due once."""


@pytest.fixture
def client(url: str) -> redis.Redis:
    """A client of a store whose log has one event of each customer."""
    client = emptied(url)
    publish(
        url,
        [
            (at_us, EventRecord(f"e{at_us}", "buy", f"c{at_us}", at_us, {"category": "tea", "amount": 2.0}))
            for at_us in range(START_US, START_US + EVENTS)
        ],
    )
    return client


def _counted(client: redis.Redis, world: World) -> int:
    """Events that online values hold, by the entities of both kinds."""
    return len(features(client, world.plan)) // 2


def _stored_position(client: redis.Redis) -> int:
    stored: Any = client.hget(PartitionKeys(PROJECT, 0).checkpoint, "position")
    return int(stored or 0)


def _is_settled(materializer: Materializer) -> bool:
    return materializer.settled_at is not None


def _everyone() -> list[str]:
    return sorted(f"c{at_us}" for at_us in range(START_US, START_US + EVENTS))


def _drained(world: World, client: redis.Redis) -> Materializer:
    materializer = world.materializer(client)
    drain(materializer)
    return materializer


def test_batches_do_not_wait_for_the_disk(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long files take, values are fresh; the checkpoint stays until they are there."""
    monkeypatch.setattr(streaming.checkpoints, "ThreadPoolExecutor", LazyExecutor)
    world = World.create()
    materializer = _drained(world, client)
    assert _counted(client, world) == EVENTS
    assert _stored_position(client) == 0
    assert everyone_offline(world) == []
    assert not _is_settled(materializer)
    materializer.checkpoint()
    assert everyone_offline(world) == _everyone()
    assert _is_settled(materializer)
    assert _stored_position(client) > 0


def test_who_dies_before_the_files_are_there_leaves_them_to_the_next(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken to be written and was not is in the journal still."""
    world = World.create()
    with monkeypatch.context() as patched:
        patched.setattr(streaming.checkpoints, "ThreadPoolExecutor", LazyExecutor)
        _drained(world, client)
    _drained(world, client).checkpoint()
    assert everyone_offline(world) == _everyone()


def test_what_could_not_be_written_is_written_later_with_what_came_since(client: redis.Redis) -> None:
    """A file lies where the folder should be: rows wait, values stay fresh, and each row is written once."""
    world = World.create()
    blocked = world.offline / "spending"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.touch()
    materializer = world.materializer(client)
    read = 0
    while read < EVENTS // 2:
        read += materializer.step()
    materializer.checkpoint()
    assert _stored_position(client) == 0
    read += materializer.step()
    assert _counted(client, world) == read
    blocked.unlink()
    materializer.checkpoint()
    drain(materializer)
    materializer.checkpoint()
    assert _counted(client, world) == EVENTS
    assert everyone_offline(world) == _everyone()
    assert _stored_position(client) > 0


def _files(world: World) -> list[str]:
    """Parts that are read."""
    return sorted(map(str, [*world.offline.glob("*/live-*"), *world.archive.glob("live-*")]))


def _archived(client: redis.Redis, world: World) -> int:
    return sum(map(len, read_live(world.archive, 0, 0, _stored_position(client))))


def test_files_of_who_is_owner_no_more_are_not_written(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread comes to them when another has written all, under names that nobody would look at again."""
    world = World.create()
    with monkeypatch.context() as patched:
        patched.setattr(streaming.checkpoints, "ThreadPoolExecutor", LazyExecutor)
        before = _drained(world, client)
    _drained(world, client).checkpoint()
    files = _files(world)
    with pytest.raises(LeaseLost):
        before.checkpoint()
    assert _files(world) == files
    assert everyone_offline(world) == _everyone()
    assert _archived(client, world) == EVENTS


@pytest.mark.parametrize("at", range(6))
def test_who_stood_still_amid_its_files_takes_them_back(client: redis.Redis, url: str, at: int) -> None:
    """Frozen before any rename, it goes on when another has written all: each row and each event is there once."""
    world = World.create()
    steps = ["streaming.owner.PartitionOwner.check", "pathlib.Path.replace"]
    frozen = Stopped(apply_all, url, world.offline, steps=steps, at=at)
    try:
        _drained(world, client).checkpoint()
        files = [name for name in _files(world) if name.endswith("-2.parquet")]
        assert frozen.go_on() == 1
    finally:
        frozen.kill()
    assert _files(world) == files
    assert everyone_offline(world) == _everyone()
    assert _archived(client, world) == EVENTS


def test_large_rows_move_the_checkpoint_sooner(url: str) -> None:
    """What waits in memory is bounded by what it takes: a few events of 100 KB are as good as fifty small ones."""
    client, world = emptied(url), World.create()
    for number in range(3):
        large = EventRecord(f"e{number}" * 50_000, "buy", "ada", START_US, {"category": "tea", "amount": 2.0})
        publish(url, [(START_US, large)])
    materializer = _drained(world, client)
    wait_until(lambda: materializer.step() == 0 and _stored_position(client) > 0, "the checkpoint")
