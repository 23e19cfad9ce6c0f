"""An event that cannot be applied comes while the writes of the batch before it are on their way."""

from __future__ import annotations

from typing import Any

from streaming.archive import archived_events, read_live
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from tests.support.stream_world import MINUTE_US, PROJECT, START_US, World, drain, publish
from tests.support.valkey import emptied


def test_the_batch_before_a_bad_event_is_counted_and_archived(url: str) -> None:
    """What a batch that landed was put off for is done before anything behind it is applied alone."""
    client, world = emptied(url), World.create()
    keys = PartitionKeys(PROJECT, 0)
    amounts = [19.99, 9.2e12, 9.2e12, 0.01]
    events = [
        EventRecord(f"e{n}", "buy", "ada", START_US + n, {"category": "tea", "amount": amount})
        for n, amount in enumerate(amounts)
    ]
    late = EventRecord("late", "buy", "ada", START_US - 30 * MINUTE_US, {"category": "tea", "amount": 1.0})
    publish(url, [(START_US + n, event) for n, event in enumerate([*events[:2], late, *events[2:]])])
    materializer = world.materializer(client, batch_records=3)
    drain(materializer)
    materializer.checkpoint()

    assert materializer.stats.events == 3
    assert materializer.stats.late == 1
    letters: Any = client.xrange(keys.dead_letters)
    assert [letter[b"reason"] for _, letter in letters] == [b"LATE", b"NOT_APPLICABLE"]
    checkpoint: Any = client.hgetall(keys.checkpoint)
    assert int(checkpoint[b"archived"]) == 3
    tables = read_live(world.archive, 0, 0, int(checkpoint[b"position"]))
    found = [EventRecord.from_bytes(text).event_id for table in tables for text in archived_events(table)]
    assert found == ["e0", "e1", "e3"]
