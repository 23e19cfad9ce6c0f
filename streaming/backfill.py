"""History into both stores, through the window code of the stream.

The offline store gets one row for every instant at which an entity's values changed; the online store gets every
entity as it stands at the end. The log then takes over from there.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mmh3
import numpy as np
import pandas as pd
import pyarrow as pa
import redis

from online.write import EntityWriter
from streaming.admit import Customers, note_ids
from streaming.advance import advance
from streaming.archive import write_backfilled
from streaming.borrow import borrow
from streaming.entity import NEVER_US, EntityState
from streaming.errors import StreamingError
from streaming.events import EventSchema
from streaming.keys import PartitionKeys
from streaming.log import partition_of
from streaming.plan import EntityKind, SourceEvents, StreamPlan, ViewPlan, ViewRows
from streaming.recent import id_hashes
from streaming.redis_log import settle_partitions
from streaming.sink import (
    KeyColumns,
    arrow_type,
    column_array,
    parts_folder,
    timestamp_array,
    view_schema,
    write_part,
)
from streaming.timers import member_text
from streaming.windows.sweep import Sweep, sweep_chunks
from streaming.writes import prepare_writes, send_writes

ENTITIES_PER_WRITE = 2000
ROWS_PER_PART = 1_000_000

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


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
    """Have nobody look for garbage: states are many objects and make no cycles, so that it is a fifth of the time."""
    were_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were_on:
            gc.enable()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillReport:
    """What a backfill did; `computing_s` leaves out the writing to either store."""

    event_count: int
    offline_rows: dict[str, int]
    online_entities: dict[str, int]
    seconds: float
    computing_s: float


@_no_collections()
def backfill(
    *,
    client: redis.Redis,
    writer: EntityWriter,
    plan: StreamPlan,
    schema: EventSchema,
    events: pd.DataFrame,
    archive: Path,
    until_us: int,
    partition_count: int,
    progress: Progress,
) -> BackfillReport:
    """Fill both stores from a frame of events.

    Args:
        client: Connection to the store.
        writer: The conditional write.
        plan: What to compute.
        schema: For the lateness bound.
        events: History, columns as in `streaming.frame.events_frame`; event ids must be distinct per customer.
        archive: The project's archive, where they are kept.
        until_us: Logical time at which the stream takes over; no event lies behind it.
        partition_count: Of the log.
        progress: Told how far it is.

    Raises:
        StreamingError: If the log has been applied already, or an event lies behind `until_us`.
    """
    started = time.monotonic()
    writing = _Stopwatch()
    settle_partitions(client, plan.project, partition_count)
    _check(client, plan, events, until_us, partition_count)
    with writing:
        write_backfilled(archive, events)
    source = SourceEvents.of(events.sort_values(["event_time", "event_id"], kind="stable", ignore_index=True))
    states: dict[str, dict[bytes, EntityState]] = {kind.name: {} for kind in plan.kinds}
    offline_rows: dict[str, int] = {}
    feeds = plan.rows(source)
    for kind in plan.kinds:
        for view_plan in kind.views:
            rows = feeds.pop(view_plan.view.name)
            if view_plan.windows is None:
                fill_latest(kind, view_plan, rows, states[kind.name], until_us)
                continue
            folder = parts_folder(view_plan.view) if view_plan.view.offline_path else None
            offline_rows[view_plan.view.name] = fill_view(
                (kind, view_plan),
                rows,
                states[kind.name],
                until_us,
                (folder, "backfill"),
                progress,
                writing,
            )
    _recent_ids(plan, schema, source, states[plan.customer.name], until_us)
    entities = {name: len(own) for name, own in states.items()}
    for kind in plan.kinds:
        _load_online(
            client, writer, kind, plan, states[kind.name], until_us, partition_count, (progress, writing)
        )
    _hand_over(client, plan.project, until_us, partition_count)
    seconds = time.monotonic() - started
    return BackfillReport(
        event_count=len(events),
        offline_rows=offline_rows,
        online_entities=entities,
        seconds=seconds,
        computing_s=seconds - writing.seconds,
    )


def _check(
    client: redis.Redis, plan: StreamPlan, events: pd.DataFrame, until_us: int, partition_count: int
) -> None:
    for partition in range(partition_count):
        keys = PartitionKeys(plan.project, partition)
        if client.exists(keys.checkpoint, keys.applied):
            raise StreamingError(
                f"project {plan.project!r} is live in this store already: a materializer has run on it. Backfill "
                "first, into an empty store (`waypost up --backfill FILE` does both in order)"
            )
    if len(events) and _micros(events["event_time"]).max() > until_us:
        newest = events["event_time"].max()
        raise StreamingError(
            f"the newest event is at {newest}, behind the time at which the stream takes over"
        )


def _micros(times: pd.Series) -> np.ndarray:
    utc = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    micros: np.ndarray = utc.astype("datetime64[us]").view(np.int64)
    return micros


def fill_view(
    planned: tuple[EntityKind, ViewPlan],
    rows: ViewRows,
    states: dict[bytes, EntityState],
    until_us: int,
    parts: tuple[Path | None, str],
    progress: Progress,
    writing: AbstractContextManager[None],
) -> int:
    """Compute all of a windowed view's past; returns the number of its offline rows.

    Args:
        planned: The view and its kind.
        rows: All there are.
        states: Of the kind's entities; the view's tiles are put there.
        until_us: Logical time that they are brought to.
        parts: Folder and beginning of the names of the offline rows; no folder for none.
        progress: Told how far it is.
        writing: Entered while something is written.
    """
    kind, plan = planned
    folder, stem = parts
    assert plan.windows is not None
    view = plan.view
    place, count = list(kind.windows).index(plan.stored), len(kind.windows)
    batch = rows.batch(rows.codes, plan.windows)
    keys = KeyColumns(plan.keys, rows.keys)
    key_columns = [keys.column(key) for key in view.join_keys]
    written = 0
    for number, chunk in enumerate(
        sweep_chunks(plan.windows, batch, len(rows.keys), until_us, ROWS_PER_PART)
    ):
        if folder is not None:
            table = _offline_table(plan, key_columns, chunk)
            with writing:
                write_part(folder, f"{stem}-{number:05d}", table)
            written += table.num_rows
        for offset, tiles in enumerate(chunk.final.states):
            key = rows.keys[chunk.first_entity + offset]
            state_of(states, key, until_us).put_tiles(place, count, tiles)
        progress(view.name, chunk.first_entity + len(chunk.final.states), len(rows.keys))
    return written


def state_of(states: dict[bytes, EntityState], key: bytes, until_us: int) -> EntityState:
    """The state of an entity, a new one at `until_us` where there is none."""
    state = states.get(key)
    if state is None:
        state = states[key] = EntityState(until_us)
    return state


def _offline_table(plan: ViewPlan, key_columns: Sequence[pa.Array], chunk: Sweep) -> pa.Table:
    schema = view_schema(plan.view)
    entity = pa.array(chunk.entity)
    instants = timestamp_array(chunk.event_us)
    keys = [column.take(entity) for column in key_columns]
    features = [
        column_array(chunk.columns[feature.name], arrow_type(feature.value_type))
        for feature in plan.view.features
    ]
    return pa.Table.from_arrays([*keys, *features, instants, instants], schema=schema)


def fill_latest(
    kind: EntityKind, plan: ViewPlan, rows: ViewRows, states: dict[bytes, EntityState], until_us: int
) -> None:
    """Put the newest row of each entity, of a view without windows, into the entities' states."""
    own = [state_of(states, key, until_us) for key in rows.keys]
    advance(kind, rows.keys, own, {plan.view.name: rows}, None, {}, until_us)


def _recent_ids(
    plan: StreamPlan,
    schema: EventSchema,
    events: SourceEvents,
    customers: dict[bytes, EntityState],
    until_us: int,
) -> None:
    """Ids that may still be published again in time: position 0 marks them as older than the log."""
    tail = np.flatnonzero(events.event_us >= until_us - schema.lateness_us)
    codes, customer_ids = pd.factorize(events.customer_ids[tail])
    names = {plan.customer.key_names[0]: (customer_ids.tolist(), range(len(customer_ids)))}
    owners = [state_of(customers, key, until_us) for key in plan.customer.keys.encode_many(names)]
    note_ids(
        Customers(codes.astype(np.int64), owners),
        np.arange(len(tail)),
        events.event_us[tail],
        id_hashes(events.event_ids[tail].tolist()),
        np.zeros(len(tail), dtype=np.int64),
        schema.lateness_us,
    )


def _load_online(
    client: redis.Redis,
    writer: EntityWriter,
    kind: EntityKind,
    plan: StreamPlan,
    states: dict[bytes, EntityState],
    until_us: int,
    partition_count: int,
    told: tuple[Progress, _Stopwatch],
) -> None:
    progress, writing = told
    keys = list(states)
    for start in range(0, len(keys), ENTITIES_PER_WRITE):
        chunk = keys[start : start + ENTITIES_PER_WRITE]
        own = [states.pop(key) for key in chunk]
        groups = advance(kind, chunk, own, {}, None, borrow(client, kind, chunk), until_us)
        prepared = [prepare_writes(group, np.arange(len(group.keys)), None) for group in groups]
        with writing:
            entries = (
                entry for group in groups for entry in zip(group.keys, group.due_us.tolist(), strict=True)
            )
            announce(client, kind, plan, entries, partition_count)
            written = send_writes(writer, prepared)
        refused = sum(int((~outcome.accepted).sum()) for outcome in written)
        if refused:
            raise StreamingError(f"the store already holds state of {refused} entities of kind {kind.name}")
        progress(f"online {kind.name}", start + len(chunk), len(keys))


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


def _hand_over(client: redis.Redis, project: str, until_us: int, partition_count: int) -> None:
    for partition in range(partition_count):
        checkpoint = {"position": 0, "time_us": until_us}
        client.hset(PartitionKeys(project, partition).checkpoint, mapping=checkpoint)
