"""An event that cannot be applied comes while the writes of the batch before it are on their way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

import streaming.materializer
from online.keys import EntityKeys
from online.store import connect_async
from streaming.advance import advance
from streaming.archive import archived_events, read_live
from streaming.errors import TransformError
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import Records
from streaming.materializer import Materializer
from streaming.redis_log import RedisLog
from streaming.touch import Touch
from tests.support.stream_world import (
    CUSTOMER,
    MINUTE_US,
    PROJECT,
    START_US,
    TRANSFORMS,
    World,
    drain,
    publish,
)
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


@pytest.mark.parametrize("batch_records", [1, 3, 100])
def test_what_was_put_aside_leaves_no_trace_in_the_next_owner(url: str, batch_records: int) -> None:
    """One that dies before its checkpoint leaves states behind that are past the event: it must not count as applied.

    Mended and sent again under the same id, it counts, and the archive has it once.
    """
    client, world = emptied(url), World.create()
    keys = PartitionKeys(PROJECT, 0)
    first, bad, last, mended = (
        EventRecord(name, "buy", "ada", START_US + n, {"category": "tea", "amount": amount})
        for n, (name, amount) in enumerate([("e0", 1.0), ("e1", 9.3e12), ("e2", 2.0), ("e1", 4.0)])
    )
    publish(url, [(START_US + n, event) for n, event in enumerate([first, bad, last])])
    drain(world.materializer(client, batch_records=batch_records))
    heir = world.materializer(client, batch_records=batch_records)
    drain(heir)
    publish(url, [(START_US + 10, mended)])
    drain(heir)
    heir.checkpoint()

    assert client.xlen(keys.dead_letters) == 1
    checkpoint: Any = client.hgetall(keys.checkpoint)
    tables = read_live(world.archive, 0, 0, int(checkpoint[b"position"]))
    found = [EventRecord.from_bytes(text) for table in tables for text in archived_events(table)]
    assert [event.properties["amount"] for event in found] == [1.0, 2.0, 4.0]


def test_events_beside_those_that_are_refused_are_applied_in_few_pieces(url: str, monkeypatch: Any) -> None:
    """What is refused whatever the state is found before anything is written; the others are one piece."""
    client, world = emptied(url), World.create()
    amounts = {40: 9.3e12, 41: 9.3e12, 150: 9.3e12}
    events = [
        EventRecord(
            f"e{n}", "buy", f"c{n % 7}", START_US + n, {"category": "tea", "amount": amounts.get(n, 1.0)}
        )
        for n in range(200)
    ]
    # One that does not count is told by itself.
    late_us = START_US - 30 * MINUTE_US
    events[60] = EventRecord("late", "buy", "c1", late_us, {"category": "tea", "amount": 9.3e12})
    publish(url, [(START_US + n, event) for n, event in enumerate(events)])
    pieces: list[int] = []
    apply = Materializer._apply_whole

    def counted(self: Materializer, records: Records, due: Any) -> None:
        pieces.append(len(records))
        apply(self, records, due)

    monkeypatch.setattr(Materializer, "_apply_whole", counted)
    materializer = world.materializer(client, batch_records=500)
    drain(materializer)
    assert pieces == [200]
    assert materializer.stats.events == 196
    assert materializer.stats.late == 1
    assert client.xlen(PartitionKeys(PROJECT, 0).dead_letters) == 4


def test_a_touch_that_cannot_be_applied_is_passed_over(url: str, monkeypatch: Any) -> None:
    client, world = emptied(url), World.create()
    event = EventRecord("e0", "buy", "ada", START_US, {"category": "tea", "amount": 1.0})
    publish(url, [(START_US, event)])
    materializer = world.materializer(client)
    drain(materializer)
    ada = EntityKeys(PROJECT, (CUSTOMER,)).encode({CUSTOMER.name: "ada"})

    async def touch() -> None:
        async with connect_async(url) as connection:
            log = RedisLog(connection, PROJECT, 1, 1_000)
            await log.touch([Touch("ada", (world.plan.customer.name, ada))], START_US + 1)

    asyncio.run(touch())

    def refusing(kind: Any, keys: Any, states: Any, feeds: Any, *rest: Any) -> Any:
        if ada in keys and not feeds:
            raise TransformError("a stored value cannot be encoded")
        return advance(kind, keys, states, feeds, *rest)

    monkeypatch.setattr(streaming.materializer, "advance", refusing)
    drain(materializer)
    publish(url, [(START_US + 2, replace(event, event_id="e1", event_us=START_US + 2))])
    drain(materializer)
    assert materializer.stats.events == 2
    assert materializer.stats.dead == 1


@pytest.mark.parametrize("view", ["spending", "looked"])
def test_a_text_that_is_no_text_is_put_aside(url: str, monkeypatch: Any, view: str) -> None:
    """A transformation may cut a character in two; UTF-8 has no bytes for the halves."""
    client = emptied(url)
    transform = TRANSFORMS[view]

    def cut(events: pd.DataFrame) -> pd.DataFrame:
        rows = transform(events)
        return rows.assign(category=rows["category"].replace("cut", "\ud800"))

    monkeypatch.setitem(TRANSFORMS, view, cut)
    kind = "buy" if view == "spending" else "look"
    categories = ["tea", "cut", "tea"] if view == "spending" else ["tea", "tea", "cut"]
    events = [
        EventRecord(f"e{n}", kind, "ada", START_US + n, {"category": category, "amount": 1.0})
        for n, category in enumerate(categories)
    ]
    publish(url, [(START_US + n, event) for n, event in enumerate(events)])
    materializer = World.create().materializer(client)
    drain(materializer)
    assert materializer.stats.events == 2
    letters: Any = client.xrange(PartitionKeys(PROJECT, 0).dead_letters)
    assert [letter[b"reason"] for _, letter in letters] == [b"NOT_APPLICABLE"]
