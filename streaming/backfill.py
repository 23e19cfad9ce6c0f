"""History into both stores, through the window code of the stream.

The offline store gets one row for every instant at which an entity's values changed; the online store gets every
entity as it stands at the end. The log then takes over from there.

Memory holds a part of the entities at a time. What the views make of events is put apart by entity, in temporary
files (`streaming/feeds.py`); then each part is swept, written and forgotten.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mmh3
import numpy as np
import pandas as pd
import redis

from online.write import EntityWriter
from streaming.advance import advance
from streaming.archive import backfilled_parts
from streaming.borrow import borrow
from streaming.entity import NEVER_US, EntityState
from streaming.errors import StreamingError
from streaming.events import EventSchema
from streaming.file_locks import lock_backfill
from streaming.fill import ViewFill, remove_filled
from streaming.history import Past
from streaming.keys import PartitionKeys
from streaming.kind_feeds import KindFeeds, Progress, parts_for
from streaming.log import partition_of
from streaming.plan import EntityKind, SourceEvents, StreamPlan, ViewPlan
from streaming.redis_log import settle_partitions
from streaming.sink import parts_folder
from streaming.timers import member_text
from streaming.unfinished import Mark, check_not_live
from streaming.writes import prepare_writes, send_writes

ENTITIES_PER_WRITE = 2000
STEM = "backfill"
"""What the names of offline rows begin with."""


class _Stopwatch:
    """Adds up the time spent inside of it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._since


@contextmanager
def _no_collections() -> Iterator[None]:
    """Have nobody look for garbage: states are many objects and make no cycles, so that it is a fifth of the time.

    What is there before is passed over where it is looked for nevertheless.
    """
    were_on = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if were_on:
            gc.enable()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillReport:
    """What a backfill did; `computing_s` leaves out the writing to either store.

    Attributes:
        most_rows: The most rows of a view that were in memory at once.
    """

    event_count: int
    offline_rows: dict[str, int]
    online_entities: dict[str, int]
    seconds: float
    computing_s: float
    most_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the steps of a backfill share."""

    client: redis.Redis
    writer: EntityWriter
    plan: StreamPlan
    schema: EventSchema
    until_us: int
    partition_count: int
    progress: Progress
    writing: _Stopwatch


@_no_collections()
def backfill(
    *,
    client: redis.Redis,
    writer: EntityWriter,
    plan: StreamPlan,
    schema: EventSchema,
    events: Past,
    archive: Path,
    until_us: int,
    partition_count: int,
    progress: Progress,
) -> BackfillReport:
    """Fill both stores from past events, of which there may be more than fit into memory.

    Args:
        client: Connection to the store.
        writer: The conditional write.
        plan: What to compute.
        schema: For the lateness bound.
        events: History.
        archive: The project's archive, where the events are kept; temporary files are there meanwhile.
        until_us: Logical time at which the stream takes over; no event lies behind it.
        partition_count: Of the log.
        progress: Told how far it is.

    Raises:
        StreamingError: If the log has been applied already, or an event lies behind `until_us`.
        FilesHeld: If another backfill is at work on the archive.
    """
    started = time.monotonic()
    run = _Run(
        client=client,
        writer=writer,
        plan=plan,
        schema=schema,
        until_us=until_us,
        partition_count=partition_count,
        progress=progress,
        writing=_Stopwatch(),
    )
    entities: dict[str, int] = {}
    offline_rows: dict[str, int] = {}
    with ExitStack() as files:
        files.enter_context(lock_backfill(archive))
        settle_partitions(client, plan.project, partition_count)
        check_not_live(client, plan.project, partition_count)
        part_count = parts_for(events.count, events.at_once)
        feeds = [KindFeeds(kind, part_count, archive, files, events.at_once) for kind in plan.kinds]
        mark = Mark(client, plan, partition_count)
        with mark.put():
            event_count = _read(run, events, archive, feeds)
        for own in feeds:
            entities[own.kind.name] = _fill(run, own, mark, offline_rows)
        mark.hand_over(until_us)
    seconds = time.monotonic() - started
    return BackfillReport(
        event_count=event_count,
        offline_rows=offline_rows,
        online_entities=entities,
        seconds=seconds,
        computing_s=seconds - run.writing.seconds,
        most_rows=max(own.most_rows for own in feeds),
    )


def _read(run: _Run, events: Past, archive: Path, feeds: list[KindFeeds]) -> int:
    """Archive the events and put what the views make of them apart; returns how many they are."""
    count, tail_us = 0, run.until_us - run.schema.lateness_us
    with events.reading(archive, lambda seen: run.progress("reading", seen, events.count)) as (
        newest,
        frames,
    ):
        if newest > run.until_us:
            raise StreamingError(
                f"the newest event is at {_instant(newest)}, which is yet to come when the stream takes over "
                f"({_instant(run.until_us)}): leave such events out, or set the clock of this machine"
            )
        with backfilled_parts(archive) as add:
            for frame in frames:
                with run.writing:
                    add(frame)
                source = SourceEvents.of(frame)
                rows = run.plan.rows(source)
                for own in feeds:
                    own.add(rows)
                    if own.kind is run.plan.customer:
                        own.add_recent(source, tail_us)
                count += len(frame)
                run.progress("transforming", count, events.count)
                del frame, source, rows
                gc.collect()  # a view's function may leave cycles
    return count


def _fill(run: _Run, feeds: KindFeeds, mark: Mark, offline_rows: dict[str, int]) -> int:
    """Fill both stores with the entities of a kind; returns how many they are, and notes offline rows by view."""
    kind, until_us = feeds.kind, run.until_us
    fills = {
        plan.view.name: _view_fill(kind, plan, run.writing) for plan in kind.views if plan.windows is not None
    }
    count = 0
    for part in range(feeds.part_count):
        states: dict[bytes, EntityState] = {}
        if kind is run.plan.customer:
            feeds.put_recent(part, states, until_us, run.schema.lateness_us)
        feeds.bring(part, fills, states, until_us, run.progress)
        mark.check()
        # Parts have about as many entities each.
        likely = (count + len(states)) * feeds.part_count // (part + 1)
        for written in _load_online(run, kind, states):
            count += written
            run.progress(f"online {kind.name}", count, likely)
        gc.collect()
    offline_rows |= {name: fill.written for name, fill in fills.items()}
    return count


def _view_fill(kind: EntityKind, plan: ViewPlan, writing: _Stopwatch) -> ViewFill:
    """Begin a view with windows; offline rows of a backfill before are removed."""
    folder = parts_folder(plan.view) if plan.view.offline_path else None
    if folder is not None:
        remove_filled(folder, STEM)
    return ViewFill(kind, plan, (folder, STEM), writing)


def _load_online(run: _Run, kind: EntityKind, states: dict[bytes, EntityState]) -> Iterator[int]:
    """Write entities, which are forgotten; yields how many, again and again."""
    keys = list(states)
    for start in range(0, len(keys), ENTITIES_PER_WRITE):
        chunk = keys[start : start + ENTITIES_PER_WRITE]
        own = [states.pop(key) for key in chunk]
        groups = advance(kind, chunk, own, {}, None, borrow(run.client, kind, chunk), run.until_us)
        prepared = [prepare_writes(group, np.arange(len(group.keys)), None) for group in groups]
        with run.writing:
            entries = (
                entry for group in groups for entry in zip(group.keys, group.due_us.tolist(), strict=True)
            )
            announce(run.client, kind, run.plan, entries, run.partition_count)
            written = send_writes(run.writer, prepared)
        refused = sum(int((~outcome.accepted).sum()) for outcome in written)
        if refused:
            raise StreamingError(f"the store already holds state of {refused} entities of kind {kind.name}")
        yield len(chunk)


def announce(
    client: redis.Redis,
    kind: EntityKind,
    plan: StreamPlan,
    entries: Iterable[tuple[bytes, int]],
    partition_count: int,
) -> None:
    """Enter when entities are due, with the partition that will own the entity's next event, or any for shared ones."""
    due: dict[int, dict[bytes, int]] = {}
    for key, due_us in entries:
        if due_us == NEVER_US:
            continue
        if kind is plan.customer:
            customer_id = str(kind.keys.decode(key)[kind.key_names[0]])
            partition = partition_of(customer_id, partition_count)
        else:
            partition = mmh3.hash(key, signed=False) % partition_count
        due.setdefault(partition, {})[member_text((kind.name, key))] = due_us
    pipeline = client.pipeline(transaction=False)
    for partition, members in due.items():
        pipeline.zadd(PartitionKeys(plan.project, partition).timers, members, lt=True)
    pipeline.execute()


def _instant(time_us: int) -> str:
    return str(pd.Timestamp(time_us, unit="us", tz="UTC"))
