"""The materializer of one partition: log in, features out.

The order of a batch is what makes a crash harmless. Read behind the checkpoint; compute; write down what is about to be
written (`streaming/journal.py`); write each entity under its revision; log segment changes and settle timers; log rows
offline; and only then move the checkpoint. A record that is read again finds its position already applied on the
entities that have it, so no event is lost or counted twice online, and what left the entities is in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import redis
import structlog

from online.errors import KeyEncodingError, ValueEncodeError
from online.write import EntityWriter
from streaming.admit import Admitted, admit, forget_recent, note_recent
from streaming.advance import NEVER_US, Source, Update, advance
from streaming.borrow import borrow
from streaming.cache import StateCache
from streaming.entity import EntityState
from streaming.errors import StreamingError, TransformError
from streaming.events import EventSchema
from streaming.frame import events_frame
from streaming.journal import WHOLE, Intent, Part
from streaming.log import LogRecord, PartitionReader
from streaming.owner import DeadLetter, PartitionOwner, Progress
from streaming.plan import EntityKind, StreamPlan, ViewRows
from streaming.recent import MAX_RECENT_IDS
from streaming.recovery import settle_intents
from streaming.sink import OfflineSink
from streaming.stats import StreamStats
from streaming.timers import Member, Timers
from streaming.windows.errors import SumOverflow, ValueRefused
from streaming.writes import PreparedWrite, apply_writes, prepare_write

log = structlog.get_logger()

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

    batch_records: int = 16_000
    timers_per_batch: int = 128
    wait_ms: int = 20
    checkpoint_interval_s: float = 5.0
    checkpoint_rows: int = 50_000
    max_cached_entities: int = 200_000


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is applied at once.

    Attributes:
        admitted: Records that count.
        feeds: The rows they became, by view.
        due: Entities that are due.
        settled: Of those, the ones for which there is nothing to write, and when they are due next.
    """

    admitted: Admitted
    feeds: Mapping[str, ViewRows]
    due: set[Member]
    settled: dict[Member, int] = field(default_factory=dict)


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
        owner: PartitionOwner,
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
            owner: The right to write into the partition.
            sink: Where feature rows are logged.
            system_now_us: The clock that drives ticks while nothing arrives; None where something else appends them.
            limits: Bounds.
        """
        self._client = client
        self._reader = reader
        self._writer = writer
        self._plan = plan
        self._schema = schema
        self._owner = owner
        self._partition = owner.keys.partition
        self._sink = sink
        self._system_now_us = system_now_us
        self._limits = limits
        self._timers = Timers(client, owner.keys.timers)
        self._cache = StateCache(writer, limits.max_cached_entities)
        self._position = 0
        self._record_count = 0
        self._now_us = 0
        self._number = 0
        self._checkpoint = Progress()
        self._created_us = 0
        self._unflushed = False
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
        """Take up where the checkpoint stands, and deliver what the owner before did not live to deliver.

        Raises:
            LeaseLost: If another owner has come meanwhile; `step` and `checkpoint` raise it too.
        """
        self._checkpoint = checkpoint = self._owner.checkpoint()
        self._position, self._now_us = checkpoint.position, checkpoint.time_us
        self._record_count, self._number = checkpoint.record_count, checkpoint.intent
        self._recover()
        self._timers.load()
        self._show_applied()

    def _recover(self) -> None:
        intents = self._owner.undelivered(self._checkpoint)
        if not intents:
            return
        settled = settle_intents(self._client, self._writer, self._partition, intents)
        self._number = intents[-1].number
        if settled.void:
            self._number += 1
            self._owner.intend(Intent(self._number, void=settled.void), {})
        announced = self._owner.last_change()
        for intent in settled.intents:
            self._sink.extend(intent.rows)
            if intent.number > announced:
                self._log_changes(intent)
        log.info("materializer.recovered", partition=self._partition, intents=len(intents))

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
        progress = self._progress(self._now_us)
        if progress != self._checkpoint or self._sink.row_count:
            if not self._flush():
                return
            self._owner.move_checkpoint(progress)
            self._reader.trim(self._position)
            self._checkpoint = progress
        self._owner.publish_stats(self.stats.summary())

    def _progress(self, time_us: int) -> Progress:
        return Progress(
            position=self._position, time_us=time_us, record_count=self._record_count, intent=self._number
        )

    def _flush(self) -> bool:
        rows = self._sink.row_count
        try:
            self._sink.flush(self._checkpoint.intent + 1, self._owner.fence)
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
            self._bury([_letter(record, "NOT_APPLICABLE", "", str(error))])

    def _advance_alone(self, member: Member) -> None:
        try:
            self._apply_batch([], {member})
        except POISON as error:
            self._cache.clear()
            self.stats.dead += 1
            log.exception("entity.not_advanced", kind=member[0], key=member[1].hex(), detail=str(error))
            self._owner.conclude({}, [member])

    def _apply_batch(self, records: Sequence[LogRecord], due: set[Member]) -> None:
        """Compute everything before anything is written, so that what cannot be computed leaves no trace."""
        admitted = self._admit(records)
        feeds = self._transform(admitted.records) if admitted.records else {}
        if records:
            self._position = records[-1].position
        self._now_us = admitted.now_us
        batch = _Batch(admitted, feeds, due)
        self._write_all(batch)
        self._count(admitted)
        self._cache.shrink()

    def _touched(self, kind: EntityKind, batch: _Batch) -> list[bytes]:
        """Entities of a kind that are due or that the batch changes."""
        due = dict.fromkeys(key for name, key in batch.due if name == kind.name)
        return list(due | self._fed(kind, batch))

    def _fed(self, kind: EntityKind, batch: _Batch) -> dict[bytes, None]:
        """Entities of a kind that events of the batch belong to."""
        keys: dict[bytes, None] = {}
        for plan in kind.views:
            if plan.view.name in batch.feeds:
                keys.update(dict.fromkeys(batch.feeds[plan.view.name].keys))
        if kind is self._plan.customer:
            keys.update(dict.fromkeys(self._customer_keys(batch.admitted.records).values()))
        return keys

    def _forget_gone(
        self, kind: EntityKind, states: Mapping[bytes, EntityState], batch: _Batch
    ) -> dict[bytes, EntityState]:
        """Leave out entities that are due and that the store knows no more: erased, or expired with their key."""
        if all(state.revision for state in states.values()):
            return dict(states)
        fed = self._fed(kind, batch)
        gone = [key for key, state in states.items() if not state.revision and key not in fed]
        self._cache.drop(gone)
        batch.settled.update({(kind.name, key): NEVER_US for key in gone})
        return {key: state for key, state in states.items() if state.revision or key in fed}

    def _count(self, admitted: Admitted) -> None:
        self.stats.events += len(admitted.records)
        self.stats.late += len(admitted.late)
        self.stats.duplicates += admitted.duplicate_count
        self.stats.freshen(
            [record.arrived_us for record in admitted.records],
            [record.event.event_us for record in admitted.records if record.event is not None],
            time.time_ns() // 1000,
            self._now_us,
        )
        self.stats.ahead += len(admitted.ahead)
        self.stats.dead += len(admitted.crowded)
        late = f"arrived more than {self._schema.lateness_s} s after its event time"
        ahead = f"lies more than {self._schema.max_future_s} s ahead of the materializer's clock"
        crowded = f"its customer brought {MAX_RECENT_IDS} events within {self._schema.lateness_s} s already"
        self._bury(
            [
                *(_letter(record, "CROWDED", "customer_id", crowded) for record in admitted.crowded),
                *(_letter(record, "LATE", "event_time", late) for record in admitted.late),
                *(_letter(record, "AHEAD", "event_time", ahead) for record in admitted.ahead),
            ]
        )

    def _ceiling_us(self) -> int:
        if self._system_now_us is None:
            return NEVER_US - 1
        return self._system_now_us() + self._schema.max_future_s * 1_000_000

    def _show_applied(self) -> None:
        """Tell readers how far features are current: not past an entity that is due and waits its turn."""
        self._owner.show(self._progress(min(self._now_us, self._timers.next_due_us() - 1)))

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
            state.is_noted = True
            forget_recent(state, self._checkpoint.time_us, lateness_us)
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
        """Bring entities to the batch's end and encode their writes, under the number that comes next."""
        if not keys:
            return []
        records = batch.admitted.records
        positions = np.array([record.position for record in records], dtype=np.int64)
        states = self._forget_gone(kind, self._cache.load(kind, keys), batch)
        applied = [state.positions.get(self._partition, 0) for state in states.values()]
        times = [state.time_us for state in states.values()]
        news = self._note_ids(records, states) if kind is self._plan.customer else set[bytes]()
        source = Source(self._partition, positions)
        borrowed = borrow(self._client, kind, list(states))
        updates = advance(kind, states, batch.feeds, source, borrowed, self._now_us)
        writes = []
        for update, position, time_us in zip(updates, applied, times, strict=True):
            quiet = not update.fed and update.key not in news
            if quiet and time_us >= self._now_us and not update.changes:
                self._leave_alone(kind, update, batch)
                continue
            update.state.positions[self._partition] = max(position, self._position)
            update.state.marks[self._partition] = self._number + 1
            writes.append(prepare_write(kind, update))
        return writes

    def _leave_alone(self, kind: EntityKind, update: Update, batch: _Batch) -> None:
        """Nothing is news to an entity: a replay came to it again."""
        member = kind.name, update.key
        if member in batch.due:
            batch.settled[member] = update.due_us

    def _note_ids(self, records: Sequence[LogRecord], states: Mapping[bytes, EntityState]) -> set[bytes]:
        """Note event ids on states that were read again after a refused write, and so do not know them yet.

        Returns:
            Customers to whom one of the records is news.
        """
        news: set[bytes] = set()
        wanted = {}
        for customer_id, key in self._customer_keys(records).items():
            state = states.get(key)
            if state is not None:
                wanted[customer_id] = key, state, state.positions.get(self._partition, 0)
        if not wanted:
            return news
        for record in records:
            assert record.event is not None
            if (found := wanted.get(record.event.customer_id)) is not None:
                key, state, position = found
                if record.position > position:
                    news.add(key)
                if not state.is_noted:
                    note_recent(state, record.event, record.position, self._schema.lateness_us)
        return news

    def _write_all(self, batch: _Batch) -> None:
        """Write entities; those that somebody else changed meanwhile are read and computed again."""
        writes = [
            write
            for kind in self._plan.kinds
            for write in self._prepare(kind, self._touched(kind, batch), batch)
        ]
        void: dict[int, frozenset[Part]] = {}
        for _ in range(MAX_WRITE_ATTEMPTS):
            if not writes and not void:
                break
            refused, hidden = self._write(writes, void, batch)
            void = {self._number: hidden} if hidden else {}
            writes = [
                write
                for kind in self._plan.kinds
                for write in self._prepare(
                    kind, [entry.update.key for entry in refused if entry.kind is kind], batch
                )
            ]
        else:
            raise StreamingError(f"{len(writes)} entities were refused {MAX_WRITE_ATTEMPTS} times")
        self._settle(batch.settled)

    def _write(
        self, writes: Sequence[PreparedWrite], void: Mapping[int, frozenset[Part]], batch: _Batch
    ) -> tuple[list[PreparedWrite], frozenset[Part]]:
        """Write under one intent and do what follows from it.

        Returns:
            What was refused, and what of the intent did not happen: the refused, and rows of views of which another
            writer had brought a later one.
        """
        intent = self._intent(writes, void)
        wanted = {(entry.kind.name, entry.update.key): entry.update.due_us for entry in writes}
        announced = self._timers.earlier(wanted)
        self._owner.intend(intent, announced)
        self._timers.remember(announced)
        self._number = intent.number
        accepted, refused = apply_writes(self._writer, writes)
        self._cache.drop([entry.update.key for entry in refused])
        seen = {(entry.update.key, view) for entry in accepted for view in entry.views}
        meant = {(entry.update.key, view) for entry in writes for view in entry.views}
        gone = {(entry.update.key, WHOLE) for entry in refused}
        keys = {key for key, _ in gone}
        hidden = frozenset(gone | {part for part in meant - seen if part[0] not in keys})
        self.stats.writes += len(writes)
        self.stats.refused_writes += len(refused)
        self.stats.state_bytes_written += sum(len(entry.write.state.data) for entry in accepted)
        true = intent.without(hidden)
        self._sink.extend(true.rows)
        self._log_changes(true)
        members = ((entry.kind.name, entry.update.key) for entry in accepted)
        self._settle({member: wanted[member] for member in members if member in batch.due})
        return refused, hidden

    def _intent(self, writes: Sequence[PreparedWrite], void: Mapping[int, frozenset[Part]]) -> Intent:
        self._created_us = max(time.time_ns() // 1000, self._created_us + 1)
        rows = self._sink.batch(self._created_us)
        for entry in writes:
            for shown, number in entry.views.values():
                rows.add(shown, number, entry.update.key, entry.update.at_us)
        changes = tuple(change for entry in writes for change in entry.update.changes)
        return Intent(number=self._number + 1, rows=rows.tables(), changes=changes, void=void)

    def _settle(self, members: Mapping[Member, int]) -> None:
        ahead = {member: due_us for member, due_us in members.items() if due_us != NEVER_US}
        self._owner.conclude(ahead, [member for member in members if member not in ahead])
        self._timers.remember(ahead)

    def _log_changes(self, intent: Intent) -> None:
        self.stats.flip(change.segment for change in intent.changes)
        keys = [self._plan.kind_by_name[change.kind].keys.decode(change.key) for change in intent.changes]
        self._owner.log_changes(intent.number, intent.changes, keys)

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Put events aside in the dead-letter log, with the reason and their bytes."""
        if not letters:
            return
        for letter in letters:
            log.warning("event.buried", position=letter.position, reason=letter.reason, detail=letter.detail)
        self._owner.bury(letters)


def _letter(record: LogRecord, reason: str, field_name: str, detail: str) -> DeadLetter:
    assert record.event is not None
    return DeadLetter(
        position=record.position,
        reason=reason,
        field=field_name,
        detail=detail,
        arrived_us=record.arrived_us,
        event=record.event.to_bytes(),
    )
