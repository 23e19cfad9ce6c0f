"""A log with many events that views refuse, compared with one that has none of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming.materializer
import streaming.owner
from decision.schema import Value
from streaming.archive import archived_events, read_live, read_put_aside
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import Records
from streaming.materializer import Materializer
from streaming.positions import pack_position
from tests.support.doomed import doomed, drain_over_crashes
from tests.support.stream_world import (
    MINUTE_US,
    PROJECT,
    SCHEMA,
    START_US,
    TRANSFORMS,
    World,
    drain,
    features,
    publish,
    tick,
    without_segment_times,
)
from tests.support.valkey import emptied

LATER_US = START_US + 24 * 60 * MINUTE_US
PARTS: dict[str, dict[str, Value]] = {
    "good": {"category": "tea", "amount": 2.0},
    "too large for a sum": {"category": "tea", "amount": 9.3e12},
    "no key": {"category": 5, "amount": 1.0},
    "the function raises": {"category": "boom", "amount": 1.0},
}
Arrival = tuple[int, EventRecord]
KINDS = st.sampled_from(["good", *PARTS])
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 120, 400]),
        st.sampled_from([-100, 0, 0, 300, 550, 900]),
        st.sampled_from(["ada", "bob"]),
        KINDS,
        st.none() | st.integers(0, 5),
    ),
    max_size=40,
)
"""Seconds since the one before, how late, whose, what it is, and of which of those before it is a repetition."""


LEAVES = "leaves int64 (±9.2e12 with six decimals); sum a smaller unit or a shorter window"


class Told(NamedTuple):
    """What a materializer says of a log: letters by position, and what it counted."""

    letters: list[tuple[int, str]]
    events: int
    late: int
    duplicates: int
    dead: int


@pytest.fixture(scope="module", autouse=True)
def patched() -> Iterator[None]:
    """Functions that raise on some events or cut characters in two, and few records and letters at once."""
    buys, looks = TRANSFORMS["spending"], TRANSFORMS["looked"]

    def raising(events: pd.DataFrame) -> pd.DataFrame:
        if (events["category"] == "boom").any():
            raise ZeroDivisionError
        return buys(events)

    def cutting(events: pd.DataFrame) -> pd.DataFrame:
        rows = looks(events)
        return rows.assign(category=rows["category"].replace("cut", "\ud800"))

    with pytest.MonkeyPatch.context() as patch:
        for view in ("spending", "demand", "taste"):
            patch.setitem(TRANSFORMS, view, raising)
        patch.setitem(TRANSFORMS, "looked", cutting)
        patch.setattr(streaming.materializer, "SEARCHED_RECORDS", 8)
        patch.setattr(streaming.owner, "LETTERS_AT_ONCE", 3)
        yield


def _arrivals(drawn: Sequence[tuple[int, int, str, str, int | None]]) -> list[Arrival]:
    arrivals: list[Arrival] = []
    now_us = START_US
    for number, (gap_s, lag_s, customer, kind, again) in enumerate(drawn):
        now_us += gap_s * 1_000_000
        event = EventRecord(f"e{number}", "buy", customer, now_us - lag_s * 1_000_000, PARTS[kind])
        if again is not None and again < number:
            # Its id and its time, but it may have been mended.
            event = replace(arrivals[-1 - again][1], properties=PARTS[kind])
        arrivals.append((now_us, event))
    return arrivals


def _walk(arrivals: Sequence[Arrival]) -> Told:
    """What must be said, found record by record."""
    known: defaultdict[str, set[str]] = defaultdict(set)
    letters: list[tuple[int, str]] = []
    clock_us = events = duplicates = 0
    for place, (now_us, event) in enumerate(arrivals):
        if event.event_us < max(clock_us, now_us) - SCHEMA.lateness_us:
            letters.append((place, "LATE"))
        elif event.event_id in known[event.customer_id]:
            duplicates += 1
        elif event.properties != PARTS["good"]:
            letters.append((place, "NOT_APPLICABLE"))
            continue
        else:
            known[event.customer_id].add(event.event_id)
            events += 1
        clock_us = max(clock_us, now_us, event.event_us)
    reasons = Counter(reason for _, reason in letters)
    return Told(letters, events, reasons["LATE"], duplicates, reasons["NOT_APPLICABLE"])


def _publish(url: str, arrivals: Sequence[Arrival]) -> tuple[redis.Redis, list[bytes]]:
    """An emptied store with a log of them, and their positions."""
    client = emptied(url)
    publish(url, arrivals)
    tick(url, LATER_US)
    log: Any = client.xrange(PartitionKeys(PROJECT, 0).log)
    return client, [place for place, _ in log]


def _letters(client: redis.Redis, places: Sequence[bytes]) -> list[tuple[int, str]]:
    """By the number of the record, and why."""
    stored: Any = client.xrange(PartitionKeys(PROJECT, 0).dead_letters)
    return [(places.index(place), fields[b"reason"].decode()) for place, fields in stored]


def _archived(client: redis.Redis, world: World) -> list[EventRecord]:
    position: Any = client.hget(PartitionKeys(PROJECT, 0).checkpoint, "position")
    tables = read_live(world.archive, 0, 0, int(position))
    return [EventRecord.from_bytes(text) for table in tables for text in archived_events(table)]


def _aside(client: redis.Redis, world: World, places: Sequence[bytes]) -> list[tuple[int, str]]:
    """What the archive has of events that were put aside, as `_letters`."""
    position: Any = client.hget(PartitionKeys(PROJECT, 0).checkpoint, "position")
    numbers = {pack_position(place): number for number, place in enumerate(places)}
    tables = read_put_aside(world.archive, 0, 0, int(position))
    rows = [row for table in tables for row in table.select(["position", "reason"]).to_pylist()]
    return sorted((numbers[row["position"]], row["reason"]) for row in rows)


def _undisturbed(url: str, arrivals: Sequence[Arrival]) -> tuple[Any, list[EventRecord]]:
    """Features and the archive where what must be put aside was never published."""
    aside = {place for place, reason in _walk(arrivals).letters if reason == "NOT_APPLICABLE"}
    world = World.create()
    client, _ = _publish(url, [one for place, one in enumerate(arrivals) if place not in aside])
    with closing(world.materializer(client, batch_records=100)) as materializer:
        drain(materializer)
        materializer.checkpoint()
    return without_segment_times(features(client, world.plan)), _archived(client, world)


@settings(max_examples=25)
@given(drawn=ARRIVALS, batch_records=st.sampled_from([1, 5, 100]))
def test_what_is_refused_is_as_if_it_had_never_come(
    url: str, drawn: list[tuple[int, int, str, str, int | None]], batch_records: int
) -> None:
    """Its id may come again, and it moves no time; late and repeated events are told by what was applied alone."""
    arrivals = _arrivals(drawn)
    expected = _undisturbed(url, arrivals)
    world = World.create()
    client, places = _publish(url, arrivals)
    limits = {"checkpoint_rows": 10_000}
    with closing(world.materializer(client, batch_records=batch_records, limits=limits)) as materializer:
        drain(materializer)
        stats = materializer.stats
        materializer.checkpoint()
    counts = (stats.events, stats.late, stats.duplicates, stats.dead)
    assert Told(_letters(client, places), *counts) == _walk(arrivals)
    assert (without_segment_times(features(client, world.plan)), _archived(client, world)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_among_what_is_refused_loses_and_doubles_nothing(url: str, seed: int) -> None:
    """What was put aside stays aside, and all else is as where nobody died, at whatever command that was."""
    rng = random.Random(seed)
    kinds = [kind for kind in PARTS for _ in range(5)] + ["good"] * 20
    drawn = [
        (
            rng.choice([0, 1, 120]),
            rng.choice([-100, 0, 0, 300, 550, 900]),
            rng.choice(["ada", "bob"]),
            kind,
            again,
        )
        for kind in rng.choices(kinds, k=20)
        for again in [None, *([rng.randrange(5)] if rng.random() < 0.3 else [])]
        for _ in range(rng.randrange(1, 4))
    ]
    arrivals = _arrivals(drawn)
    expected = _undisturbed(url, arrivals)
    world = World.create()
    client, places = _publish(url, arrivals)
    crashes = drain_over_crashes(
        lambda: world.materializer(doomed(url), batch_records=rng.choice([5, 100])), rng, 15
    )
    assert crashes > 5
    assert _letters(client, places) == _walk(arrivals).letters
    assert _aside(client, world, places) == _walk(arrivals).letters
    assert (without_segment_times(features(client, world.plan)), _archived(client, world)) == expected


def test_letters_come_while_others_are_looked_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that are refused, the first lie there before the last are searched, and readers see how far it is.

    The time stands still meanwhile.
    """
    arrivals = _arrivals([(1, 0, "ada", "the function raises", None)] * 20)
    client, places = _publish(url, arrivals)
    keys, seen = PartitionKeys(PROJECT, 0), list[tuple[int, ...]]()
    search = Materializer._refused

    def watched(self: Materializer, records: Records) -> dict[int, str]:
        letters: Any = client.xlen(keys.dead_letters)
        shown: Any = client.hmget(keys.applied, ["record_count", "time_us"])
        seen.append((letters, *(int(number or 0) for number in shown)))
        return search(self, records)

    monkeypatch.setattr(Materializer, "_refused", watched)
    with closing(World.create().materializer(client, batch_records=100)) as materializer:
        drain(materializer)
    assert seen == [(0, 0, 0), (8, 8, 0), (16, 16, 0)]
    assert _letters(client, places) == _walk(arrivals).letters


@pytest.mark.parametrize(
    ("kind", "properties", "detail"),
    [
        (
            "buy",
            {"category": "tea", "amount": 9.3e12},
            "view spending: column 'amount': 9300000000000.0 is past ±9.2e12, the range of a sum",
        ),
        (
            "buy",
            {"category": "tea", "amount": 9.2e12},
            f"sum of spending.total_30m {LEAVES}",
        ),
        ("buy", PARTS["no key"], "view demand: join key 'category' = 5 is not text; send STRING as text"),
        (
            "buy",
            PARTS["the function raises"],
            "view spending: the transformation failed: ZeroDivisionError()",
        ),
        ("look", {"category": 5}, "feature looked.category: 5 is not text"),
        (
            "look",
            {"category": "cut"},
            "feature looked.category: '\\ud800' is not valid Unicode text",
        ),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_a_letter_names_field_and_value(
    url: str, kind: str, properties: dict[str, Value], detail: str, before: int
) -> None:
    """And not where in a batch the event was, nor how numpy writes its value, wherever that is."""
    client, world = emptied(url), World.create()
    large: dict[str, Value] = {"category": "jam", "amount": 9.2e12}
    events = [
        *(EventRecord(f"e{n}", "buy", f"c{n}", START_US + n, PARTS["good"]) for n in range(before)),
        EventRecord("large", "buy", "ada", START_US + 7, large),
        EventRecord("bad", kind, "ada", START_US + 8, properties),
    ]
    publish(url, [(event.event_us, event) for event in events])
    with closing(world.materializer(client, batch_records=100)) as materializer:
        drain(materializer)
    ((_, letter),) = client.xrange(PartitionKeys(PROJECT, 0).dead_letters)  # type: ignore[misc]
    assert letter[b"detail"].decode() == detail


def test_an_owner_that_is_to_end_leaves_the_rest_to_the_next(url: str) -> None:
    """It ends between two runs of what takes pieces; nothing is passed over."""
    rng = random.Random(5)
    kinds = rng.choices(list(PARTS), k=60)
    arrivals = _arrivals([(1, 0, rng.choice(["ada", "bob"]), kind, None) for kind in kinds])
    expected = _undisturbed(url, arrivals)
    world = World.create()
    client, places = _publish(url, arrivals)
    keys, steps = PartitionKeys(PROJECT, 0), 0
    while int(client.hget(keys.checkpoint, "record_count") or 0) < len(arrivals):  # type: ignore[arg-type]
        letters: Any = client.xlen(keys.dead_letters)
        steps, enough = steps + 1, letters + 3
        with closing(world.materializer(client, batch_records=30)) as materializer:
            materializer.step(partial(lambda enough: client.xlen(keys.dead_letters) >= enough, enough))
            materializer.checkpoint()
    with closing(world.materializer(client)) as materializer:
        drain(materializer)
        materializer.checkpoint()
    assert steps > 5
    assert _letters(client, places) == _walk(arrivals).letters
    assert _aside(client, world, places) == _walk(arrivals).letters
    assert (without_segment_times(features(client, world.plan)), _archived(client, world)) == expected


def test_memory_stays_bounded_while_much_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """States that are loaded for one piece make room before the next."""
    arrivals = [
        (now_us, replace(event, customer_id=f"c{number}"))
        for number, (now_us, event) in enumerate(_arrivals([(1, 0, "ada", "no key", None)] * 80))
    ]
    client, _ = _publish(url, arrivals)
    held: list[int] = []
    search = Materializer._apply_searched

    def watched(self: Materializer, records: Records) -> int:
        held.append(len(self._cache))
        return search(self, records)

    monkeypatch.setattr(Materializer, "_apply_searched", watched)
    limits = {"max_cached_entities": 10}
    with closing(World.create().materializer(client, batch_records=100, limits=limits)) as materializer:
        drain(materializer)
    assert len(held) > 5
    assert max(held) <= 10
