"""The materializer of one partition: log in, features out.

The order of a batch is what makes a crash harmless. Read behind the checkpoint; compute; announce timers; write each
entity under its revision; settle timers; log rows offline; and only then move the checkpoint. A record that is read
again finds its position already applied on the entities that have it, so no event is lost or counted twice online.
Its offline row is then logged from the state as it stands: of rows that were still in memory at a crash, the last of
each entity survives (docs/adr/0008).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import redis
import structlog

from online.errors import KeyEncodingError, ValueEncodeError
from online.write import EntityWriter
from streaming.admit import Admitted, admit, forget_recent, note_recent
from streaming.advance import NEVER_US, SegmentChange, advance
from streaming.borrow import borrow
from streaming.cache import StateCache
from streaming.entity import EntityState
from streaming.errors import StreamingError, TransformError
from streaming.events import EventSchema
from streaming.frame import events_frame
from streaming.keys import PartitionKeys
from streaming.log import LogRecord, PartitionReader
from streaming.plan import EntityKind, StreamPlan, ViewRows
from streaming.sink import OfflineSink
from streaming.stats import StreamStats
from streaming.timers import Member, Timers
from streaming.windows.errors import SumOverflow, ValueRefused
from streaming.writes import PreparedWrite, apply_writes, prepare_write

log = structlog.get_logger()

MAX_CHANGES = 100_000
MAX_DEAD_LETTERS = 100_000
MAX_WRITE_ATTEMPTS = 20
POISON = (ValueRefused, SumOverflow, TransformError, ValueEncodeError, KeyEncodingError, OverflowError)
"""What one event can cause by its content; it must never stop the events behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializerLimits:
    """Bounds of the loop.

    Attributes:
        batch_records: Most records taken at once.
        timers_per_batch: Most due entities taken at once beside a small batch of records; a large one takes as many as
            it has records, so that neither keeps the other waiting.
        wait_ms: How long a read waits for the first record.
        checkpoint_interval_s: How often rows are flushed and the checkpoint moves while events flow.
        checkpoint_rows: Rows held in memory after which the checkpoint moves at once.
        max_cached_entities: Bound of the state cache.
    """

    batch_records: int = 1000
    timers_per_batch: int = 128
    wait_ms: int = 20
    checkpoint_interval_s: float = 5.0
    checkpoint_rows: int = 50_000
    max_cached_entities: int = 200_000


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is applied at once: admitted records, the rows they became by view, and entities that are due."""

    admitted: Admitted
    feeds: Mapping[str, ViewRows]
    due: set[Member]


class Materializer:
    """Applies one partition of the log. One thread, one owner."""

    def __init__(
        self,
        *,
        client: redis.Redis,
        reader: PartitionReader,
        writer: EntityWriter,
        plan: StreamPlan,
        schema: EventSchema,
        keys: PartitionKeys,
        sink: OfflineSink,
        system_now_us: Callable[[], int] | None,
        limits: MaterializerLimits,
    ) -> None:
        """Make the materializer; `start` before the first `step`.

        Args:
            client: Connection to the store.
            reader: The partition's records.
            writer: The conditional write.
            plan: What to compute.
            schema: For the lateness bound and the types of properties.
            keys: The partition's keys.
            sink: Where feature rows are logged.
            system_now_us: The clock that drives ticks while nothing arrives; None where something else appends them.
            limits: Bounds.
        """
        self._client = client
        self._reader = reader
        self._writer = writer
        self._plan = plan
        self._schema = schema
        self._keys = keys
        self._sink = sink
        self._system_now_us = system_now_us
        self._limits = limits
        self._timers = Timers(client, keys.timers)
        self._cache = StateCache(writer, limits.max_cached_entities)
        self._position = 0
        self._checkpoint = 0
        self._record_count = 0
        self._unflushed = False
        self._now_us = 0
        self._checkpoint_us = 0
        self._checkpointed_at = time.monotonic()
        self.stats = StreamStats()

    @property
    def now_us(self) -> int:
        """Logical time."""
        return self._now_us

    @property
    def next_due_us(self) -> int:
        """When the next entity is due."""
        return self._timers.next_due_us()

    def start(self) -> None:
        """Take up where the checkpoint stands."""
        stored: Any = self._client.hgetall(self._keys.checkpoint)
        self._position = self._checkpoint = int(stored.get(b"position", 0))
        self._now_us = self._checkpoint_us = int(stored.get(b"time_us", 0))
        self._record_count = int(stored.get(b"record_count", 0))
        self._timers.load()
        self._show_applied()

    def step(self) -> int:
        """Apply one batch of records and what fell due; returns how many records were read.

        While the offline folder cannot be written, rows wait in memory up to a bound, and then the log waits.
        """
        if self._unflushed and self._sink.row_count >= self._limits.checkpoint_rows:
            time.sleep(self._limits.wait_ms / 1000)
            self._checkpoint_if_due()
            return 0
        self._tick_if_due()
        records = self._reader.read(self._position, self._limits.batch_records, self._wait_ms())
        due = set(self._timers.due(self._now_us, max(len(records), self._limits.timers_per_batch)))
        if records or due:
            self._apply(records, due)
        self._checkpoint_if_due()
        return len(records)

    def checkpoint(self) -> None:
        """Flush what is logged offline, then move the checkpoint and trim the log behind it."""
        self._checkpointed_at = time.monotonic()
        if self._position != self._checkpoint or self._now_us != self._checkpoint_us or self._sink.row_count:
            if not self._flush():
                return
            moved = {"position": self._position, "time_us": self._now_us, "record_count": self._record_count}
            self._client.hset(self._keys.checkpoint, mapping=moved)
            self._reader.trim(self._position)
            self._checkpoint, self._checkpoint_us = self._position, self._now_us
        self._client.hset(self._keys.stats, mapping=self.stats.summary())

    def _flush(self) -> bool:
        rows = self._sink.row_count
        try:
            self._sink.flush(f"{self._position}-{time.time_ns()}")
        except OSError as error:
            self._unflushed = True
            log.warning(
                "materializer.offline_unwritable", rows_waiting=self._sink.row_count, error=str(error)
            )
            return False
        self._unflushed = False
        self.stats.offline_rows += rows
        return True

    def _wait_ms(self) -> int:
        return 0 if self._timers.next_due_us() <= self._now_us else self._limits.wait_ms

    def _tick_if_due(self) -> None:
        if self._system_now_us is None:
            return
        now_us = self._system_now_us()
        if self._timers.next_due_us() <= now_us and self._now_us < self._timers.next_due_us():
            self._reader.tick(now_us)

    def _checkpoint_if_due(self) -> None:
        waited_s = time.monotonic() - self._checkpointed_at
        full = self._sink.row_count >= self._limits.checkpoint_rows and not self._unflushed
        if full or waited_s >= self._limits.checkpoint_interval_s:
            self.checkpoint()

    def _apply(self, records: Sequence[LogRecord], due: set[Member]) -> None:
        """Apply a batch; if something in it cannot be computed or stored, one by one, and put that aside alone."""
        before = self._position, self._now_us
        try:
            self._apply_batch(records, due)
        except POISON:
            # States in memory may be ahead of the store now; what was written is skipped by its position. Lateness
            # is judged by the time before each record, so the clock goes back to where the batch began.
            self._position, self._now_us = before
            self._cache.clear()
            for record in records:
                self._apply_alone(record)
            for member in due:
                self._advance_alone(member)
        self._record_count += len(records)
        self._show_applied()

    def _apply_alone(self, record: LogRecord) -> None:
        try:
            self._apply_batch([record], set())
        except POISON as error:
            self._cache.clear()
            self._position = record.position
            self.stats.dead += 1
            self._bury([record], "NOT_APPLICABLE", str(error))

    def _advance_alone(self, member: Member) -> None:
        try:
            self._apply_batch([], {member})
        except POISON as error:
            self._cache.clear()
            self.stats.dead += 1
            log.exception("entity.not_advanced", kind=member[0], key=member[1].hex(), detail=str(error))
            self._timers.settle({member: NEVER_US})

    def _apply_batch(self, records: Sequence[LogRecord], due: set[Member]) -> None:
        """Compute everything before anything is written, so that what cannot be computed leaves no trace."""
        admitted = self._admit(records)
        feeds = self._transform(admitted.records) if admitted.records else {}
        if records:
            self._position = records[-1].position
        self._now_us = admitted.now_us
        batch = _Batch(admitted, feeds, due)
        prepared = [
            (kind, self._prepare(kind, self._touched(kind, batch), batch)) for kind in self._plan.kinds
        ]
        for kind, writes in prepared:
            self._write_all(kind, writes, batch)
        self._count(admitted)
        self._cache.shrink()

    def _touched(self, kind: EntityKind, batch: _Batch) -> list[bytes]:
        """Entities of a kind that the batch changes or that are due."""
        keys = dict.fromkeys(key for name, key in batch.due if name == kind.name)
        for plan in kind.views:
            if plan.view.name in batch.feeds:
                keys.update(dict.fromkeys(batch.feeds[plan.view.name].keys))
        if kind is self._plan.customer:
            keys.update(dict.fromkeys(self._customer_keys(batch.admitted.records).values()))
        return list(keys)

    def _count(self, admitted: Admitted) -> None:
        self.stats.events += len(admitted.records)
        self.stats.late += len(admitted.late)
        self.stats.duplicates += admitted.duplicate_count
        self.stats.freshen((record.arrived_us for record in admitted.records), time.time_ns() // 1000)
        lateness_s = self._schema.lateness_s
        self._bury(admitted.late, "LATE", f"arrived more than {lateness_s} s after its event time")
        self.stats.ahead += len(admitted.ahead)
        ahead_s = self._schema.max_future_s
        self._bury(admitted.ahead, "AHEAD", f"lies more than {ahead_s} s ahead of the materializer's clock")

    def _ceiling_us(self) -> int:
        if self._system_now_us is None:
            return NEVER_US - 1
        return self._system_now_us() + self._schema.max_future_s * 1_000_000

    def _show_applied(self) -> None:
        """Tell readers how far features are current: not past an entity that is due and waits its turn."""
        applied = {
            "position": self._position,
            "time_us": min(self._now_us, self._timers.next_due_us() - 1),
            "record_count": self._record_count,
        }
        self._client.hset(self._keys.applied, mapping=applied)

    def _admit(self, records: Sequence[LogRecord]) -> Admitted:
        keys = self._customer_keys(records)
        states = self._cache.load(self._plan.customer, list(dict.fromkeys(keys.values())))
        customers = {customer_id: states[key] for customer_id, key in keys.items()}
        lateness_us = self._schema.lateness_us
        admitted = admit(
            records,
            customers,
            now_us=self._now_us,
            lateness_us=lateness_us,
            ceiling_us=self._ceiling_us(),
        )
        for state in states.values():
            forget_recent(state, self._checkpoint_us, lateness_us)
        return admitted

    def _customer_keys(self, records: Sequence[LogRecord]) -> dict[str, bytes]:
        customer_ids = dict.fromkeys(
            record.event.customer_id for record in records if record.event is not None
        )
        kind = self._plan.customer
        return {
            customer_id: kind.keys.encode({kind.key_names[0]: customer_id}) for customer_id in customer_ids
        }

    def _transform(self, records: Sequence[LogRecord]) -> dict[str, ViewRows]:
        events = [record.event for record in records if record.event is not None]
        frame: pd.DataFrame = events_frame(events, self._schema.property_types)
        return {plan.view.name: plan.rows(frame) for kind in self._plan.kinds for plan in kind.views}

    def _prepare(self, kind: EntityKind, keys: Sequence[bytes], batch: _Batch) -> list[PreparedWrite]:
        """Bring entities to the batch's end and encode their writes."""
        if not keys:
            return []
        records = batch.admitted.records
        positions = [record.position for record in records]
        states = self._cache.load(kind, keys)
        if kind is self._plan.customer:
            self._note_ids(records, states)
        applied = {key: state.positions.get(self._keys.partition, 0) for key, state in states.items()}
        updates = advance(
            kind,
            states,
            batch.feeds,
            lambda key, source: positions[source] > applied[key],
            borrow(self._client, kind, keys),
            self._now_us,
        )
        for update in updates:
            update.state.positions[self._keys.partition] = max(applied[update.key], self._position)
        return [prepare_write(kind, update) for update in updates]

    def _write_all(self, kind: EntityKind, writes: Sequence[PreparedWrite], batch: _Batch) -> None:
        """Write entities; those that somebody else changed meanwhile are read and computed again."""
        for _ in range(MAX_WRITE_ATTEMPTS):
            if not writes:
                return
            writes = self._prepare(kind, self._write(kind, writes, batch.due), batch)
        raise StreamingError(
            f"{len(writes)} entities of kind {kind.name} were refused {MAX_WRITE_ATTEMPTS} times"
        )

    def _note_ids(self, records: Sequence[LogRecord], states: Mapping[bytes, EntityState]) -> None:
        """Note event ids on states that were read again after a refused write, and so do not know them yet."""
        keys = self._customer_keys(records)
        for record in records:
            assert record.event is not None
            state = states.get(keys[record.event.customer_id])
            if state is not None:
                note_recent(state, record.event, record.position, self._schema.lateness_us)

    def _write(self, kind: EntityKind, writes: Sequence[PreparedWrite], due: set[Member]) -> list[bytes]:
        """Write and do what follows from it; returns the keys of those refused."""
        wanted = {(kind.name, entry.update.key): entry.update.due_us for entry in writes}
        self._timers.announce(wanted)
        accepted, refused = apply_writes(self._writer, writes)
        self._cache.drop(refused)
        self.stats.writes += len(writes)
        self.stats.refused_writes += len(refused)
        self._timers.settle({m: wanted[m] for done in accepted if (m := (kind.name, done.update.key)) in due})
        self._announce_changes(kind, [change for done in accepted for change in done.update.changes])
        created_us = time.time_ns() // 1000
        for done in accepted:
            keys = kind.keys.decode(done.update.key)
            for view, (values, _) in done.views.items():
                self._sink.add(view, keys, values, done.update.at_us, created_us)
        return refused

    def _announce_changes(self, kind: EntityKind, changes: Sequence[SegmentChange]) -> None:
        if not changes:
            return
        self.stats.segment_changes += len(changes)
        pipeline = self._client.pipeline(transaction=False)
        for change in changes:
            fields: dict[Any, Any] = {
                "segment": change.segment,
                "entered": int(change.entered),
                "at_us": change.at_us,
                "entity": "|".join(str(value) for value in kind.keys.decode(change.key).values()),
            }
            pipeline.xadd(self._keys.changes, fields, maxlen=MAX_CHANGES, approximate=True)
        pipeline.execute()

    def _bury(self, records: Sequence[LogRecord], reason: str, detail: str) -> None:
        """Put events aside in the dead-letter log, with the reason and their bytes."""
        if not records:
            return
        pipeline = self._client.pipeline(transaction=False)
        for record in records:
            assert record.event is not None
            log.warning("event.buried", event_id=record.event.event_id, reason=reason, detail=detail)
            fields: dict[Any, Any] = {
                "reason": reason,
                "detail": detail,
                "position": record.position,
                "event": record.event.to_bytes(),
            }
            pipeline.xadd(self._keys.dead_letters, fields, maxlen=MAX_DEAD_LETTERS, approximate=True)
        pipeline.execute()
