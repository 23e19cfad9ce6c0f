"""Backfills of the tests' small shop."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import redis

from online.write import EntityWriter
from streaming.backfill import BackfillReport, backfill
from streaming.events import EventRecord, Events
from streaming.frame import events_frame
from streaming.history import EVENTS_AT_ONCE, Past
from streaming.kind_feeds import Progress
from tests.support.stream_world import SCHEMA, World, stream_plan


def fill(
    client: redis.Redis,
    world: World,
    events: Sequence[EventRecord],
    until_us: int,
    progress: Progress = lambda _stage, _done, _total: None,
    at_once: int = EVENTS_AT_ONCE,
) -> BackfillReport:
    """Fill both stores with events, of which those published again count once."""
    distinct = list({event.event_id: event for event in events}.values())
    return backfill(
        client=client,
        archive=world.archive,
        writer=EntityWriter(client),
        plan=world.plan,
        schema=SCHEMA,
        events=Past.of_frame(events_frame(Events.of(distinct), SCHEMA.property_types), at_once),
        until_us=until_us,
        partition_count=1,
        progress=progress,
    )


def fill_until_killed(
    url: str, offline: Path, stage: str, events: Sequence[EventRecord], until_us: int
) -> None:
    """Fill, and be killed when that tells of a stage for the second time, or of its end."""
    told = 0

    def progress(at: str, done: int, total: int) -> None:
        nonlocal told
        told += at == stage
        if at == stage and (told == 2 or done == total):
            os.kill(os.getpid(), signal.SIGKILL)

    world = World(offline, stream_plan(offline))
    fill(redis.Redis.from_url(url), world, events, until_us, progress, at_once=20)
