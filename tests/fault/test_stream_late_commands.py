"""Commands that their sender has given up and that the store carries out later, when another has begun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

import streaming.checkpoints
from online.errors import StoreUnavailableError
from streaming.events import EventRecord
from streaming.journal import Intent
from streaming.keys import PartitionKeys
from streaming.owner import PartitionOwner, Progress
from tests.support.frozen import Way, freezable
from tests.support.lazy import LazyExecutor
from tests.support.materializers import PROJECT as CLINIC
from tests.support.materializers import START_US as CLINIC_START_US
from tests.support.materializers import Site, visits
from tests.support.stores import wait_until
from tests.support.stream_world import PROJECT, START_US, World, drain, features, publish
from tests.support.worlds import everyone_offline

EVENTS = 60


@pytest.fixture
def way(url: str) -> Iterator[Way]:
    with freezable(url.removeprefix("redis://").removesuffix("/0")) as way:
        yield way


def _scripts_run(client: redis.Redis) -> int:
    figures: Any = client.info("commandstats")
    return int(figures.get("cmdstat_evalsha", {}).get("calls", 0))


def test_a_checkpoint_that_moves_late_moves_not(
    client: redis.Redis, url: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to the store when the next owner has read the checkpoint, and not yet what is undelivered.

    The next owner would write a part in the place of the one whose intents the late command trims.
    """
    publish(
        url,
        [
            (at_us, EventRecord(f"e{at_us}", "buy", f"c{at_us}", at_us, {"category": "tea", "amount": 2.0}))
            for at_us in range(START_US, START_US + EVENTS)
        ],
    )
    world, move, undelivered = World.create(), PartitionOwner.move_checkpoint, PartitionOwner.undelivered

    def move_held(self: PartitionOwner, progress: Progress) -> None:
        self.deliver()
        way.hold()
        move(self, progress)

    with monkeypatch.context() as patched:
        patched.setattr(streaming.checkpoints, "ThreadPoolExecutor", LazyExecutor)
        patched.setattr(PartitionOwner, "move_checkpoint", move_held)
        with (
            redis.Redis.from_url(f"redis://{way.address}/0?socket_timeout=0.5") as slow,
            closing(world.materializer(slow)) as materializer,
            pytest.raises(StoreUnavailableError),
        ):
            drain(materializer)

    def undelivered_late(self: PartitionOwner, checkpoint: Progress) -> list[Intent]:
        before = _scripts_run(client)
        way.release()
        wait_until(lambda: _scripts_run(client) > before, "the late command")
        return undelivered(self, checkpoint)

    with monkeypatch.context() as patched:
        patched.setattr(PartitionOwner, "undelivered", undelivered_late)
        successor = world.materializer(client)
    drain(successor)
    successor.checkpoint()
    assert everyone_offline(world) == [f"c{at_us}" for at_us in range(START_US, START_US + EVENTS)]
    assert len(features(client, world.plan)) == 2 * EVENTS + 1
    stored: Any = client.hgetall(PartitionKeys(PROJECT, 0).checkpoint)
    assert int(stored[b"archived"]) == EVENTS


@pytest.mark.timeout(200)
def test_an_owner_that_lost_the_store_begins_under_a_number_of_its_own(
    client: redis.Redis, way: Way, tmp_path: Path
) -> None:
    """So what it sent before is refused, whenever it comes; and what came of it all is what should."""
    slow = f"redis://{way.address}/0?socket_timeout=1"
    site = Site(tmp_path / "site", slow, partition_count=1, lease_ms=60_000, checkpoint_interval_s=0.1)
    arrivals = visits(60)
    fence = PartitionKeys(CLINIC, 0).fence
    try:
        site.start()
        site.publish(arrivals[:30])
        site.wait(lambda: site.applied() >= 30, "the first half")
        before = int(client.get(fence) or 0)  # type: ignore[arg-type]
        way.hold()
        site.wait(lambda: "materializer.store_lost" in site.said(), "the loss is noticed")
        way.release()
        site.publish(arrivals[30:])
        site.tick(CLINIC_START_US + 40 * 86_400_000_000)
        site.wait(lambda: site.applied() == site.appended(), "everything")
        assert int(client.get(fence) or 0) > before  # type: ignore[arg-type]
    finally:
        site.stop()
    assert len(set(site.archived(0))) == 60
