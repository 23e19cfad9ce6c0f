"""The system's clock is set back under the materializer: logical time stays, and nothing is put aside for that."""

from __future__ import annotations

import time
from typing import Any

import pyarrow.dataset as ds
import pytest
import redis

from streaming.archive import read_live
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.materializer import Materializer
from tests.support.stream_world import MINUTE_US, PROJECT, SCHEMA, START_US, World, drain, publish

HOUR_US = 60 * MINUTE_US
SECOND_US = 1_000_000
KEYS = PartitionKeys(PROJECT, 0)


class Clock:
    """A system's clock that can be set."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def _buy(number: int, at_us: int) -> EventRecord:
    return EventRecord(f"e{number}", "buy", "ada", at_us, {"category": "tea", "amount": 2.0})


def _counts(materializer: Materializer) -> tuple[int, int, int]:
    stats = materializer.stats
    return stats.events, stats.ahead, stats.late


def test_a_clock_set_back_puts_nothing_aside_up_to_the_time_that_was_reached(
    client: redis.Redis, url: str
) -> None:
    """Beyond it, time stands still and events are ahead until the clock is there again, and no longer."""
    clock = Clock(START_US)
    materializer = World.create().materializer(client, system_now_us=clock)
    publish(url, [(START_US, _buy(0, START_US))])
    drain(materializer)
    assert materializer.now_us == START_US
    clock.now_us -= HOUR_US
    # Servers on other machines go on, and so do events.
    publish(url, [(START_US + SECOND_US, _buy(1, START_US - SECOND_US)), (START_US, _buy(2, START_US))])
    drain(materializer)
    assert _counts(materializer) == (3, 0, 0)
    publish(url, [(START_US + MINUTE_US, _buy(3, START_US + MINUTE_US))])
    drain(materializer)
    assert _counts(materializer) == (3, 1, 0)
    assert materializer.now_us == START_US
    # Servers on this machine are set back too, by less than the lateness bound or by more.
    publish(url, [(START_US - MINUTE_US, _buy(4, START_US - MINUTE_US)), (clock(), _buy(5, clock()))])
    drain(materializer)
    assert _counts(materializer) == (4, 1, 1)
    clock.now_us = START_US + MINUTE_US - SCHEMA.max_future_s * SECOND_US
    publish(url, [(START_US + MINUTE_US, _buy(6, START_US + MINUTE_US))])
    drain(materializer)
    assert _counts(materializer) == (5, 1, 1)
    assert materializer.now_us == START_US + MINUTE_US


def test_a_clock_set_back_delays_timers_until_it_is_there_again(client: redis.Redis, url: str) -> None:
    """What falls due does so once, at the logical time it always had; an event elsewhere moves time as ever."""
    clock = Clock(START_US)
    materializer = World.create().materializer(client, system_now_us=clock)
    publish(url, [(START_US, _buy(0, START_US))])
    drain(materializer)
    due_us = materializer.next_due_us
    clock.now_us = START_US - HOUR_US
    drain(materializer)
    assert (materializer.now_us, materializer.next_due_us) == (START_US, due_us)
    clock.now_us = due_us
    drain(materializer)
    assert materializer.now_us == due_us < materializer.next_due_us


@pytest.mark.parametrize("behind", ["checkpoint", "journal"])
def test_an_owner_whose_clock_is_behind_takes_up_at_the_time_that_was_reached(
    client: redis.Redis, url: str, behind: str
) -> None:
    """What counted for the owner before counts when it is read again, or the archive would lack what was applied."""
    clock, world = Clock(START_US + 9 * MINUTE_US), World.create()
    first = world.materializer(client, system_now_us=clock)
    arrivals = [START_US + minutes * MINUTE_US for minutes in range(10)]
    publish(url, [(at_us, _buy(number, at_us)) for number, at_us in enumerate(arrivals)])
    while first.now_us < arrivals[-1]:
        first.step()
    if behind == "checkpoint":
        first.checkpoint()
    first.close()
    second = world.materializer(client, system_now_us=Clock(START_US - HOUR_US))
    drain(second)
    second.checkpoint()
    assert second.now_us == arrivals[-1]
    assert not client.exists(KEYS.dead_letters)
    checkpoint: Any = client.hgetall(KEYS.checkpoint)
    tables = list(read_live(world.archive, 0, 0, int(checkpoint[b"position"])))
    assert sum(map(len, tables)) == int(checkpoint[b"archived"]) == len(arrivals)


@pytest.mark.parametrize("behind", ["checkpoint", "journal"])
def test_rows_of_one_moment_are_told_apart_by_when_they_were_created(
    client: redis.Redis, url: str, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    """Logical time stands still while the clock is behind; of the rows of an entity the later must be created later."""
    world, clock = World.create(), Clock(START_US)
    first = world.materializer(client, system_now_us=clock)
    publish(url, [(START_US, _buy(0, START_US))])
    drain(first)
    if behind == "checkpoint":
        first.checkpoint()
    first.close()
    wall_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns - HOUR_US * 1_000)
    second = world.materializer(client, system_now_us=Clock(START_US - HOUR_US))
    publish(url, [(START_US - MINUTE_US, _buy(1, START_US - MINUTE_US))])
    drain(second)
    second.checkpoint()
    rows = ds.dataset(world.offline / "spending", format="parquet").to_table().to_pylist()
    rows.sort(key=lambda row: (row["event_timestamp"], row["created"]))
    assert len({row["event_timestamp"] for row in rows}) == 1
    assert [row["count_5m"] for row in rows] == [1, 2]
