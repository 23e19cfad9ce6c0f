"""A materializer's memory is bounded, however many entities there are and however much each of them is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from online.write import EntityWriter
from streaming.cache import StateCache
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
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
)
from tests.support.valkey import emptied

CUSTOMERS = [f"c{number}" for number in range(300)]


def _buys(customers: list[str], prefix: str = "e") -> list[tuple[int, EventRecord]]:
    return [
        (START_US, EventRecord(f"{prefix}{n}", "buy", name, START_US, {"category": "tea", "amount": 1.0}))
        for n, name in enumerate(customers)
    ]


def test_states_in_memory_are_bounded_by_what_they_take(url: str) -> None:
    """The least recently used go, states count for what they have become, and nothing is counted that is gone."""
    client, world = emptied(url), World.create()
    publish(url, _buys(CUSTOMERS))
    drain(world.materializer(client, batch_records=1_000))
    kind = world.plan.customer
    keys = [kind.keys.encode({"customer_id": name}) for name in CUSTOMERS]
    cache = StateCache(EntityWriter(client), 0, 1_000, max_bytes=2**62)
    states = cache.load(kind, keys)
    cache.shrink()
    assert cache.size_bytes == cache.touched_bytes == sum(state.size_bytes for state in states)
    assert len(cache) == 300
    one_of_them = cache.size_bytes // 300
    small = StateCache(EntityWriter(client), 0, 1_000, max_bytes=100 * one_of_them)
    for start in range(0, 300, 10):
        states = small.load(kind, keys[start : start + 10])
        small.shrink()
        assert small.size_bytes <= 100 * one_of_them
    assert 90 <= len(small) <= 100
    assert small.load(kind, keys[-10:]) == states
    before = states[0].weighed_bytes
    hundred = np.arange(1, 101)
    states[0].recent.note(hundred, hundred, hundred)
    small.shrink()
    assert states[0].weighed_bytes > before + 1_600
    assert small.size_bytes <= 100 * one_of_them
    before = small.size_bytes
    small.load(kind, keys[-20:])
    small.drop(keys[-10:])
    assert small.size_bytes < before
    before = small.size_bytes
    small.shrink()
    assert small.size_bytes == before
    assert 9 * one_of_them < small.touched_bytes < 11 * one_of_them
    small.clear()
    assert (small.size_bytes, len(small)) == (0, 0)


@pytest.mark.parametrize("limits", [{"max_cached_bytes": 3_000}, {"batch_entities": 2}])
def test_features_are_the_same_with_little_memory(url: str, limits: dict[str, int]) -> None:
    """Also where not even the entities of one batch fit: none is lost on its way to the store."""
    arrivals = random_events(3, 200)
    world, client = World.create(), emptied(url)
    publish(url, arrivals)
    tick(url, START_US + 300 * MINUTE_US)
    drain(world.materializer(client, batch_records=20))
    expected = features(client, world.plan)
    world, client = World.create(), emptied(url)
    publish(url, arrivals)
    tick(url, START_US + 300 * MINUTE_US)
    materializer = world.materializer(client, batch_records=20, limits=limits)
    drain(materializer)
    assert features(client, world.plan) == expected
    assert materializer.stats.dead == 0


def test_batches_are_of_fewer_records_where_those_are_of_more_entities(url: str) -> None:
    """And of as many as before where they are of few."""
    world, client = World.create(), emptied(url)
    publish(url, _buys(CUSTOMERS))
    publish(url, _buys(["ada"] * 400, "f"))
    materializer = world.materializer(client, batch_records=64, limits={"batch_entities": 20})
    read = [materializer.step() for _ in range(60)]
    drain(materializer)
    stored: Any = client.hget(PartitionKeys(PROJECT, 0).applied, "record_count")
    assert int(stored) == 700
    assert read[0] == 64
    assert set(read[1:25]) <= {4, 8, 16}
    assert 64 in read[25:]
