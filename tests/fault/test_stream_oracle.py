"""What the stream leaves in the store, compared with values worked out from the events themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from decision.schema import Value
from online.keys import EntityKeys, feature_field
from online.values import decode_value
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import PartitionReader, Records
from streaming.redis_log import RedisPartitionReader
from tests.support.stream_world import (
    CATEGORY,
    CATEGORY_NAMES,
    CUSTOMER,
    CUSTOMER_NAMES,
    MINUTE_US,
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
from tests.support.valkey import emptied

SECOND_US = 1_000_000


@pytest.fixture(scope="module")
def world() -> World:
    return World.create()


@pytest.fixture
def client(url: str) -> redis.Redis:
    return emptied(url)


def _accepted(arrivals: list[tuple[int, EventRecord]]) -> list[EventRecord]:
    """Each event once, unless it came later than the bound."""
    seen: dict[str, EventRecord] = {}
    now_us = 0
    for at_us, event in arrivals:
        now_us = max(now_us, at_us)
        if event.event_us >= now_us - SCHEMA.lateness_us:
            seen.setdefault(event.event_id, event)
    return list(seen.values())


def _within(events: list[EventRecord], now_us: int, minutes: int) -> list[EventRecord]:
    start_us = now_us // MINUTE_US * MINUTE_US - minutes * MINUTE_US
    return [event for event in events if event.event_us >= start_us]


def _expected_spending(events: list[EventRecord], now_us: int) -> dict[str, Value]:
    half_hour = [float(e.properties["amount"]) for e in _within(events, now_us, 30)]  # type: ignore[arg-type]
    last = max(events, key=lambda e: (e.event_us, e.event_id))
    return {
        "total_30m": round(sum(half_hour), 6),
        "count_5m": len(_within(events, now_us, 5)),
        "largest_30m": max(half_hour, default=None),
        "last_category": last.properties["category"],
        "last_buy_at": last.event_us // SECOND_US * SECOND_US,
        "categories_30m": len({e.properties["category"] for e in _within(events, now_us, 30)}),
    }


def _stored(
    client: redis.Redis, world: World, view: str, keys: EntityKeys, row: dict[str, Value]
) -> dict[str, Value]:
    defined = next(
        p.view
        for kind in world.plan.kinds
        for p in (*kind.views, kind.segments_view)
        if p and p.view.name == view
    )
    stored: Any = client.execute_command("HGETALL", keys.encode(row))  # type: ignore[no-untyped-call]
    return {
        feature.name: decode_value(feature.value_type, stored.get(feature_field(view, feature.name), b""))
        for feature in defined.features
    }


STARTS = {
    "any": START_US,
    "leap day": 1_709_164_500_000_000,  # a quarter of an hour before 29 February 2024 begins
    "clocks forward": 1_711_846_500_000_000,  # and before 31 March 2024, 01:00 UTC
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(2))
def test_stream_leaves_what_the_events_say(
    client: redis.Redis, url: str, world: World, seed: int, start: str
) -> None:
    """Late events count within the bound, repeated ones once, and time alone empties the windows."""
    arrivals = random_events(seed + 100, 150, STARTS[start])
    publish(url, arrivals)
    materializer = world.materializer(client, batch_records=11)
    keys = EntityKeys(PROJECT, (CUSTOMER,))
    newest_us = max(at_us for at_us, _ in arrivals)
    for wait_us in (0, 7 * MINUTE_US, 40 * MINUTE_US):
        tick(url, newest_us + wait_us)
        drain(materializer)
        now_us = materializer.now_us
        for customer in CUSTOMER_NAMES:
            buys = [e for e in _accepted(arrivals) if e.customer_id == customer and e.event_type == "buy"]
            expected = _expected_spending(buys, now_us)
            assert _stored(client, world, "spending", keys, {"customer_id": customer}) == expected
            members = _stored(client, world, "segments", keys, {"customer_id": customer})
            quiet = expected["last_buy_at"] < now_us - 10 * MINUTE_US  # type: ignore[operator]
            assert members == {"spender": expected["total_30m"] > 50, "quiet": quiet}  # type: ignore[operator]


class _Trickle:
    """A reader that finds a few records at a time, though more wait behind them."""

    def __init__(self, reader: PartitionReader, most: int) -> None:
        self._reader, self._most = reader, most
        self.tick, self.trim = reader.tick, reader.trim

    def read(self, after: int, count: int, wait_ms: int) -> Records:
        return replace(self._reader.read(after, min(count, self._most), wait_ms), is_full=False)

    def ask(self, after: int, count: int) -> Callable[[], Records]:
        asked = self._reader.ask(after, min(count, self._most))
        return lambda: replace(asked(), is_full=False)


def _applied(client: redis.Redis) -> int:
    stored: Any = client.hget(PartitionKeys(PROJECT, 0).applied, "record_count")
    return int(stored)


@pytest.mark.parametrize("most", [1, 4])
def test_batches_that_are_not_full_run_ahead_too(
    client: redis.Redis, url: str, world: World, most: int
) -> None:
    """What is read behind a batch before its writes are sent is applied next: as though it had come after them."""
    arrivals = random_events(7, 120)
    materializer = world.materializer(client, batch_records=1000)
    for start in range(0, len(arrivals), most):
        publish(url, arrivals[start : start + most])
        drain(materializer)
    one_by_one = features(client, world.plan)
    client.flushall()
    publish(url, arrivals)
    keys = PartitionKeys(PROJECT, 0)
    reader = _Trickle(RedisPartitionReader(client, keys), most)
    materializer = world.materializer(client, batch_records=1000, reader=reader)
    assert materializer.step() == most
    assert _applied(client) == 0, "its writes are on their way"
    drain(materializer)
    assert _applied(client) == len(arrivals)
    assert features(client, world.plan) == one_by_one


def test_segment_flips_when_nothing_but_time_has_passed(client: redis.Redis, url: str, world: World) -> None:
    """Quiet for ten minutes is noticed ten minutes later, once, with no event."""
    buy = EventRecord("e1", "buy", "ada", START_US, {"category": "tea", "amount": 99.0})
    publish(url, [(START_US, buy)])
    materializer = world.materializer(client)
    drain(materializer)
    for minutes in (9, 11, 12, 50):
        tick(url, START_US + minutes * MINUTE_US)
        drain(materializer)
    entries = client.xrange(PartitionKeys(PROJECT, 0).changes)
    changes = [(f[b"segment"], f[b"entered"], (int(f[b"at_us"]) - START_US) // MINUTE_US) for _, f in entries]  # type: ignore[union-attr]
    assert changes == [(b"spender", b"1", 0), (b"quiet", b"1", 11), (b"spender", b"0", 50)]


def test_late_purchase_leaves_its_window_on_time(client: redis.Redis, url: str, world: World) -> None:
    """Also where its customer was looked at before, found up to date, and left to a later time."""
    materializer = world.materializer(client)

    def buy(event_id: str, event_minutes: int, arrival_minutes: int) -> None:
        at_us, event_us = (START_US + minutes * MINUTE_US for minutes in (arrival_minutes, event_minutes))
        event = EventRecord(event_id, "buy", "ada", event_us, {"category": "tea", "amount": 1.0})
        publish(url, [(at_us, event)])
        drain(materializer)

    buy("e1", 0, 0)
    buy("e2", 8, 8)
    buy("e3", 5, 9)
    tick(url, START_US + 12 * MINUTE_US)
    drain(materializer)
    keys = EntityKeys(PROJECT, (CUSTOMER,))
    assert _stored(client, world, "spending", keys, {"customer_id": "ada"})["count_5m"] == 1


def test_partitions_that_share_an_entity_lose_nothing(client: redis.Redis, url: str, world: World) -> None:
    """Two partitions feed the same categories in turns: a refused write is computed again on the other's."""
    arrivals = [(at_us, event) for at_us, event in random_events(7, 120) if event.event_type == "buy"]
    publish(url, arrivals, partition_count=2)
    first, second = (world.materializer(client, partition=number, batch_records=3) for number in (0, 1))
    while first.step() + second.step():
        pass
    tick(url, max(at_us for at_us, _ in arrivals), partition_count=2)
    drain(first)
    drain(second)
    accepted = _accepted(arrivals)
    keys = EntityKeys(PROJECT, (CATEGORY,))
    for category in CATEGORY_NAMES:
        bought = [event for event in accepted if event.properties["category"] == category]
        stored = _stored(client, world, "demand", keys, {"category": category})
        assert stored["count_total"] == len(bought)
        within = _within(bought, max(at_us for at_us, _ in arrivals), 30)
        assert stored["buyers_30m"] == len({event.customer_id for event in within})
    assert first.stats.refused_writes + second.stats.refused_writes > 0


def test_event_that_cannot_be_aggregated_is_put_aside_alone(
    client: redis.Redis, url: str, world: World
) -> None:
    """A sum beyond int64 goes to the dead letters with its bytes; the events around it count."""
    amounts = [19.99, 9.2e12, 9.2e12, 0.01]
    publish(
        url,
        [
            (
                START_US + n,
                EventRecord(f"e{n}", "buy", "ada", START_US + n, {"category": "tea", "amount": amount}),
            )
            for n, amount in enumerate(amounts)
        ],
    )
    materializer = world.materializer(client)
    drain(materializer)
    ((_, letter),) = client.xrange(PartitionKeys(PROJECT, 0).dead_letters)  # type: ignore[misc]
    assert letter[b"reason"] == b"NOT_APPLICABLE"
    assert EventRecord.from_bytes(letter[b"event"]).event_id == "e2"
    found = _stored(client, world, "spending", EntityKeys(PROJECT, (CUSTOMER,)), {"customer_id": "ada"})
    assert found["count_5m"] == 3
    shared = _stored(client, world, "demand", EntityKeys(PROJECT, (CATEGORY,)), {"category": "tea"})
    assert shared["count_total"] == 3
    assert materializer.stats.dead == 1


def test_one_bad_event_does_not_make_its_batch_late(client: redis.Redis, url: str, world: World) -> None:
    """Taken in halves, the events around a bad one are judged by the time before each, as in an undisturbed batch."""
    arrivals = [
        (
            at_us,
            EventRecord(
                f"e{n}", "buy", "ada", at_us, {"category": "tea", "amount": 1e300 if n == 15 else 1.0}
            ),
        )
        for n, at_us in enumerate(range(START_US, START_US + 30 * MINUTE_US, MINUTE_US))
    ]
    publish(url, arrivals)
    materializer = world.materializer(client, batch_records=1000)
    drain(materializer)
    assert (materializer.stats.late, materializer.stats.dead) == (0, 1)
    keys = EntityKeys(PROJECT, (CATEGORY,))
    assert _stored(client, world, "demand", keys, {"category": "tea"})["count_total"] == 29


@pytest.mark.parametrize("category", [5, None, "x" * 70_000])
def test_property_of_the_wrong_kind_never_stops_the_stream(
    client: redis.Redis, url: str, world: World, category: Value
) -> None:
    """What slips past validation and cannot be keyed or encoded is put aside; the next event counts."""
    bad = EventRecord("e1", "buy", "ada", START_US, {"category": category, "amount": 1.0})
    good = EventRecord("e2", "buy", "ada", START_US + 1, {"category": "tea", "amount": 2.0})
    publish(url, [(START_US, bad), (START_US + 1, good)])
    drain(world.materializer(client))
    keys = EntityKeys(PROJECT, (CATEGORY,))
    assert _stored(client, world, "demand", keys, {"category": "tea"})["count_total"] == 1


def test_few_events_that_cannot_be_applied_hold_up_few_pieces(
    client: redis.Redis, url: str, world: World
) -> None:
    """Three among a thousand are found by halves; all others count, and none of them waits for a write of its own."""
    bad = {100, 101, 777}
    events = [
        EventRecord(
            f"e{n}", "buy", f"c{n % 50}", START_US + n, {"category": 5 if n in bad else "tea", "amount": 1.0}
        )
        for n in range(1000)
    ]
    publish(url, [(event.event_us, event) for event in events])
    materializer = world.materializer(client, batch_records=1000)
    drain(materializer)
    assert (materializer.stats.events, materializer.stats.dead) == (997, 3)
    keys = EntityKeys(PROJECT, (CATEGORY,))
    assert _stored(client, world, "demand", keys, {"category": "tea"})["count_total"] == 997
    intents = int(client.hget(PartitionKeys(PROJECT, 0).applied, "intent") or 0)  # type: ignore[arg-type]
    assert 0 < intents <= 3 * 10


def test_watermark_waits_for_entities_that_are_due(client: redis.Redis, url: str, world: World) -> None:
    """Features are never said to be current while the window of some entity still shows what has left it."""
    customers = [f"c{n}" for n in range(400)]
    publish(
        url,
        [
            (START_US, EventRecord(c, "buy", c, START_US, {"category": "tea", "amount": 1.0}))
            for c in customers
        ],
    )
    materializer = world.materializer(client, batch_records=1000)
    drain(materializer)
    later_us = START_US + 40 * MINUTE_US
    tick(url, later_us)
    keys = EntityKeys(PROJECT, (CUSTOMER,))
    applied = PartitionKeys(PROJECT, 0).applied
    steps = 0
    while int(client.hget(applied, "time_us") or 0) < later_us:  # type: ignore[arg-type]
        materializer.step()
        steps += 1
    assert steps > 2
    for customer in customers:
        assert _stored(client, world, "spending", keys, {"customer_id": customer})["count_5m"] == 0


def test_clock_that_is_ahead_makes_nobody_late(client: redis.Redis, url: str) -> None:
    """A record stamped hours ahead moves time no further than the materializer's own clock allows."""
    world = World.create()
    first, second, third = (
        EventRecord(f"e{n}", "buy", "ada", START_US + n, {"category": "tea", "amount": 1.0}) for n in range(3)
    )
    ahead_us = START_US + 120 * MINUTE_US
    ahead = EventRecord("f", "buy", "ada", ahead_us, {"category": "tea", "amount": 1.0})
    publish(url, [(START_US, first), (ahead_us, ahead), (START_US + 1, second), (START_US + 2, third)])
    materializer = world.materializer(client, system_now_us=lambda: START_US + 10)
    materializer.step()
    assert (materializer.stats.events, materializer.stats.late, materializer.stats.ahead) == (3, 0, 1)


def test_rows_wait_for_an_offline_folder_that_cannot_be_written(
    client: redis.Redis, url: str, tmp_path: Path
) -> None:
    """The stream goes on, the checkpoint does not move, and once there is room everything is there."""
    world = World.create()
    blocked = world.offline / "spending"
    blocked.write_text("a file where a folder should be")
    publish(url, random_events(3, 60))
    materializer = world.materializer(client)
    for _ in range(40):
        materializer.step()
    materializer.checkpoint()
    checkpoint = PartitionKeys(PROJECT, 0).checkpoint
    assert not client.exists(checkpoint)
    blocked.rename(tmp_path / "moved")
    materializer.checkpoint()
    drain(materializer)
    assert client.exists(checkpoint)
    assert list(blocked.glob("*.parquet"))


def test_late_event_is_put_aside_and_counted(client: redis.Redis, url: str, world: World) -> None:
    """What comes after the lateness bound changes no feature and is not lost silently."""
    late = EventRecord(
        "e2", "buy", "ada", START_US - SCHEMA.lateness_us - 1, {"category": "tea", "amount": 1.0}
    )
    publish(url, [(START_US, late)])
    materializer = world.materializer(client)
    drain(materializer)
    assert materializer.stats.late == 1
    assert client.xlen(PartitionKeys(PROJECT, 0).dead_letters) == 1


def test_state_stays_bounded_when_events_keep_coming(client: redis.Redis, url: str, world: World) -> None:
    """Tiles and event ids behind the bounds are dropped, so that an entity's state does not grow with its history."""
    arrivals = [
        (at_us, EventRecord(f"e{at_us}", "buy", "ada", at_us, {"category": "tea", "amount": 1.0}))
        for at_us in range(START_US, START_US + 600 * MINUTE_US, MINUTE_US)
    ]
    publish(url, arrivals)
    materializer = world.materializer(client, batch_records=20)
    sizes = []
    while materializer.step():
        materializer.checkpoint()
        sizes.append(_state_bytes(client))
    half = len(sizes) // 2
    assert max(sizes[half:]) <= max(sizes[:half]) * 1.1


def _state_bytes(client: redis.Redis) -> int:
    """Names and contents of all fields of all states; memory usage also counts what the allocator rounds up."""
    fields: list[Any] = [client.hgetall(key) for key in client.scan_iter(match="{*}wp:*", count=1000)]
    return sum(len(name) + len(data) for state in fields for name, data in state.items())
