"""What is logged offline about an instant does not depend on what happened after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from decision.schema import FeatureRef, Service
from online.write import EntityWriter
from streaming.backfill import backfill
from streaming.events import EventRecord, Events
from streaming.frame import events_frame
from streaming.history import Past
from tests.support.stream_world import MINUTE_US, SCHEMA, START_US, World, catalog, random_events
from tests.support.valkey import emptied
from training.dataset import features_at
from training.labels import TIME

END_US = START_US + 600 * MINUTE_US
REFS = tuple(
    FeatureRef(view=view, feature=feature)
    for view, feature in (
        ("spending", "total_30m"),
        ("spending", "count_5m"),
        ("spending", "last_buy_at"),
        ("demand", "total_30m"),
        ("spending", "categories_30m"),
        ("demand", "count_total"),
        ("demand", "buyers_30m"),
        ("taste", "mean_30m"),
    )
)


def _training_rows(url: str, events: Sequence[EventRecord], at_us: Sequence[int]) -> list[dict[str, object]]:
    """Features of one customer and category at each instant, joined from the log that a backfill of `events` leaves."""
    client = emptied(url)
    world = World.create()
    backfill(
        client=client,
        archive=world.archive,
        writer=EntityWriter(client),
        plan=world.plan,
        schema=SCHEMA,
        events=Past.of_frame(events_frame(Events.of(events), SCHEMA.property_types)),
        until_us=END_US,
        partition_count=1,
        progress=lambda _stage, _done, _total: None,
    )
    service = Service(name="model_v1", features=REFS)
    definitions = replace(catalog(world.offline), services=(service,))
    rows = pa.table(
        {"customer_id": ["ada"] * len(at_us), "category": ["tea"] * len(at_us), TIME: list(at_us)}
    )
    joined: list[dict[str, object]] = features_at(catalog=definitions, service=service, rows=rows).to_pylist()
    return joined


@pytest.mark.parametrize("seed", range(3))
def test_purchase_shifted_behind_an_instant_changes_nothing_at_it(url: str, seed: int) -> None:
    """The windows, the log and the join together: what comes later is not seen, and what came earlier is."""
    distinct = {event.event_id: event for _, event in random_events(seed, 120)}
    buys = sorted(
        (e for e in distinct.values() if e.event_type == "buy" and e.event_us < END_US - 60 * MINUTE_US),
        key=lambda event: event.event_us,
    )
    moved = next(
        e for e in buys[len(buys) // 2 :] if e.customer_id == "ada" and e.properties["category"] == "tea"
    )
    before = [moved.event_us - lead_us for lead_us in (1, MINUTE_US, 40 * MINUTE_US)]
    later = replace(moved, event_us=moved.event_us + 37 * MINUTE_US)
    shifted = [later if event is moved else event for event in distinct.values()]
    original = list(distinct.values())
    assert _training_rows(url, original, before) == _training_rows(url, shifted, before)
    after = [moved.event_us]
    assert _training_rows(url, original, after) != _training_rows(url, shifted, after)
