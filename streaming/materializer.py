"""The materializer of one partition: log in, features out.

The order of a batch is what makes a crash harmless. Read behind the checkpoint; compute; write down what is about to be
written (`streaming/journal.py`); write each entity under its revision; log segment changes and settle timers; log rows
offline and archive the events that counted; and only then move the checkpoint. A record that is read again finds its
position already applied on the entities that have it, so no event is lost or counted twice online, and what left the
entities is in the journal.

While records wait in the log, the writes of a batch are on their way beside the computation of the next one, which
takes for granted that they hold. It is thrown away where they do not, before anything of it is written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import redis
import structlog

from online.write import EntityWriter
from streaming.admit import Admitted, Customers, admit, counting, forget_recent, note_ids, would_count
from streaming.advance import Group, advance
from streaming.archive import Archive
from streaming.aside import POISON, halves, letter, letters, put_aside, why
from streaming.borrow import borrow
from streaming.cache import StateCache
from streaming.checkpoints import Checkpoints
from streaming.entity import NEVER_US, EntityState
from streaming.errors import StreamingError
from streaming.events import Events, EventSchema
from streaming.frame import events_frame
from streaming.journal import WHOLE, Intent, Part
from streaming.log import PartitionReader, Records
from streaming.numbering import numbered_texts
from streaming.owner import DeadLetter, PartitionOwner, Progress
from streaming.plan import EntityKind, SourceEvents, StreamPlan, ViewRows
from streaming.reasons import NOT_APPLICABLE, PARTLY_APPLIED
from streaming.recent import SAME, id_hashes
from streaming.recovery import settle_intents
from streaming.redating import redate
from streaming.refusals import refusals
from streaming.sending import Sender, Sent
from streaming.sink import OfflineSink
from streaming.stats import StreamStats
from streaming.timers import Member, Timers
from streaming.verdicts import LEFT_OUT, Verdicts, leaving_out
from streaming.writes import PreparedWrites, Written, prepare_writes

IntArray = npt.NDArray[np.int64]

log = structlog.get_logger()

MAX_WRITE_ATTEMPTS = 20
QUIET_READS = 5
"""After so many reads that found nothing, it is quiet."""
WRITES_MS = 5
"""How long records are waited for beside writes on their way; about as long as a small batch's writes take."""
MOST_FORESEEN = 1_000
"""Events of a larger batch are made rows once it is known which count: the states that tell are read at once then."""
SEARCHED_RECORDS = 1_000
"""So many records are searched at once for what cannot be applied, where much of it was just found."""
MOST_SEARCHED = 8_000
"""At most, where little was."""
CAREFUL_BATCHES = 64
"""How many batches are not computed ahead after one that was void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializerLimits:
    """Bounds of the loop.

    Attributes:
        batch_records: Most records taken at once; the log gives fewer where they are large.
        timers_per_batch: Most due entities taken at once beside a small batch of records; a large one takes as many as
            it has records, so that neither keeps the other waiting.
        wait_ms: How long a read waits for the first record.
        checkpoint_interval_s: How often rows are flushed and the checkpoint moves while events flow.
        checkpoint_rows: Rows held in memory after which the checkpoint moves at once; large ones count as several.
        batch_entities: About the most entities that records taken at once belong to; going by those before, fewer are
            taken where they are of more.
        max_cached_entities: Bound of the state cache.
        max_cached_bytes: Bound of about the memory that it takes.
    """

    batch_records: int = 32_000
    timers_per_batch: int = 128
    wait_ms: int = 20
    checkpoint_interval_s: float = 5.0
    checkpoint_rows: int = 50_000
    batch_entities: int = 32_000
    max_cached_entities: int = 200_000
    max_cached_bytes: int = 192 * 2**20


def _never() -> bool:
    return False


class _Ending(Exception):
    """Records are left to whoever comes next: nothing behind those that are applied may be."""


class _Batch(NamedTuple):
    """What is applied at once.

    Attributes:
        records: As they were read.
        admitted: Which of their events count.
        customers: Entity keys of the events' customers.
        codes: For each event the number of its customer.
        positions: Position of each event that counts.
        feeds: The rows that the events became which count, by view.
        due: Entities that are due, or touched.
        settled: Of those, the ones for which there is nothing to write, and when they are due next.
    """

    records: Records
    admitted: Admitted
    customers: list[bytes]
    codes: IntArray
    positions: IntArray
    feeds: Mapping[str, ViewRows]
    due: set[Member]
    settled: dict[Member, int]

    def counted(self) -> list[bytes]:
        """Customers of whom an event counts."""
        rows = self.admitted.rows
        if len(rows) == len(self.codes):
            return self.customers
        return [self.customers[code] for code in np.unique(self.codes[rows]).tolist()]


class _Moment(NamedTuple):
    """How far the records are read and computed.

    Attributes:
        position: Of the last record.
        record_count: Records since the log began.
        now_us: Logical time.
    """

    position: int = 0
    record_count: int = 0
    now_us: int = 0


class _Flight(NamedTuple):
    """A batch whose writes are on their way.

    Attributes:
        start: Before the batch.
        end: After it.
        until_us: Logical time that everything is brought to once the writes are done.
        due_us: No entity that is due, and that the batch brings forward, was due before.
        sent: The writes.
    """

    batch: _Batch
    start: _Moment
    end: _Moment
    until_us: int
    due_us: int
    sent: Sent | None


class Materializer:
    """Applies one partition of the log. One thread at work, one owner."""

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
        archive: Archive,
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
            archive: Where events that counted are kept.
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
        self._archive = archive
        self._archived = 0
        self._system_now_us = system_now_us
        self._limits = limits
        self._is_ending = _never
        self._timers = Timers(client, owner.keys.timers, self._await_intent)
        self._cache = StateCache(writer, self._partition, limits.max_cached_entities, limits.max_cached_bytes)
        self._most_records = limits.batch_records
        self._at = _Moment()
        self._flight: _Flight | None = None
        self._unkept: tuple[_Flight, int] | None = None
        self._waiting = Records.none()
        self._is_pressed = False
        self._landed = Progress()
        self._careful = 0
        self._drawn_us = NEVER_US
        self._verdicts = Verdicts()
        self._unarchived: list[tuple[Records, IntArray, str]] = []
        self._letters: list[DeadLetter] = []
        self._quiet_reads = 0
        self._sender = Sender(writer, owner, sink)
        self._reached_us = 0
        self.stats = StreamStats()
        self._checkpoints = Checkpoints(
            reader=reader,
            owner=owner,
            sink=sink,
            archive=archive,
            stats=self.stats,
            interval_s=limits.checkpoint_interval_s,
            most_rows=limits.checkpoint_rows,
            await_intent=self._await_intent,
        )

    @property
    def now_us(self) -> int:
        """Logical time."""
        return self._at.now_us

    @property
    def settled_at(self) -> Progress | None:
        """The checkpoint, where everything that was applied is behind it; None where something is not."""
        current = self._checkpoints.current
        is_behind = self._flight is None and not self._checkpoints.is_flushing and self._landed == current
        return current if is_behind else None

    @property
    def next_due_us(self) -> int:
        """When the next entity is due."""
        return self._timers.next_due_us()

    def start(self) -> None:
        """Take up where the checkpoint stands, and deliver what the owner before did not live to deliver.

        Raises:
            LeaseLost: If another owner has come meanwhile; `step` and `checkpoint` raise it too.
            StoreSetBack: If files hold something that the store knows nothing of.
        """
        checkpoint = self._checkpoints.start()
        self._at = _Moment(checkpoint.position, checkpoint.record_count, checkpoint.time_us)
        self._sender.number = max(checkpoint.intent, self._owner.last_number())
        self._archived = checkpoint.archived
        self._sender.created_us = checkpoint.created_us
        self._verdicts = self._owner.verdicts(checkpoint.position)
        self._reached_us = self._verdicts.reached_us
        self._recover()
        self._timers.load()
        self._note_landed(self._at)
        self._show_applied(self._at.now_us)
        self._owner.deliver()

    def _recover(self) -> None:
        intents = self._owner.undelivered(self._checkpoints.current)
        if not intents:
            return
        self._reached_us = max(self._reached_us, *(intent.time_us for intent in intents))
        sender = self._sender
        sender.created_us = max(sender.created_us, *(intent.created_us for intent in intents))
        settled = settle_intents(self._client, self._writer, self._partition, intents)
        self._declare(settled.void)
        announced = self._owner.last_change()
        for intent in settled.intents:
            self._sink.extend(intent.rows)
            if intent.number > announced:
                self._log_changes(intent)
        log.info("materializer.recovered", partition=self._partition, intents=len(intents))

    def _declare(self, void: Mapping[int, frozenset[Part]]) -> None:
        """Write down that parts of intents did not happen."""
        if void:
            self._sender.number += 1
            self._owner.intend(Intent(self._sender.number, void=void), {})

    def step(self, is_ending: Callable[[], bool] = _never) -> int:
        """Apply one batch of records and what fell due; returns how many records were read.

        While the offline folder cannot be written, rows wait in memory up to a bound, and then the log waits.

        Args:
            is_ending: Whether to leave to whoever comes next what is not applied yet of records that take pieces.
        """
        self._is_ending = is_ending
        try:
            return self._step()
        except _Ending:
            self._waiting, self._unarchived, self._letters = Records.none(), [], []
            return 1  # some were, of which the next owner reads the rest

    def _step(self) -> int:
        if self._checkpoints.is_stuck:
            self._land()
            time.sleep(self._limits.wait_ms / 1000)
            self._checkpoint_if_due()
            return 0
        self._tick_if_due()
        records, self._waiting = self._waiting, Records.none()
        if not len(records):
            records = self._read(self._wait_ms())
        if not self._verdicts.are_none:
            records = self._as_judged(self._verdicts.told(records))
        self._quiet_reads = 0 if len(records) else self._quiet_reads + 1
        if len(records) or self._timers.next_due_us() <= self._at.now_us:
            self._apply(records)
        else:
            self._land()
        self._checkpoint_if_due()
        return len(records)

    def _as_judged(self, records: Records) -> Records:
        """Records without events that are dealt with already, as a note says; the archive still lacks them."""
        for reason in LEFT_OUT:
            details = self._verdicts.left_out(records, reason)
            if details:
                events = np.array(list(details), dtype=np.int64)
                self._unarchived.append((records, events, reason))
                self._letters += [letter(records, event, reason, said) for event, said in details.items()]
                records = records.without_events(events, moves_time=reason != NOT_APPLICABLE)
        return records

    def _archive_left_out(self, until: int) -> None:
        """Archive events that were dealt with before, up to a position."""
        coming = []
        for records, events, reason in self._unarchived:
            is_behind = records.event_positions[events] <= until
            if reason == PARTLY_APPLIED:
                self._archived += int(is_behind.sum())
                self.stats.events += int(is_behind.sum())
            self._archive.extend(records, events[is_behind], None if reason == PARTLY_APPLIED else reason)
            if not is_behind.all():
                coming.append((records, events[~is_behind], reason))
        self._unarchived = coming

    def checkpoint(self) -> None:
        """Wait for what is on its way, flush what is logged offline, move the checkpoint and trim the log behind it."""
        self._land()
        self._checkpoints.end()
        self._checkpoints.begin(self._landed)
        self._checkpoints.end()

    def close(self) -> None:
        """Wait until nothing of it is on its way, to the disk or to the store; nothing else may be asked of it then."""
        self._sender.close()
        self._checkpoints.close()

    def _await_intent(self) -> None:
        """Wait until the intent of the writes on their way is written down, with the timers that it announces."""
        if self._flight and self._flight.sent:
            self._flight.sent.await_intent()

    def _note_landed(self, at: _Moment) -> None:
        if self._unarchived:
            self._archive_left_out(at.position)
        self._landed = Progress(
            position=at.position,
            time_us=at.now_us,
            record_count=at.record_count,
            intent=self._sender.number,
            archived=self._archived,
            created_us=self._sender.created_us,
        )

    def _read(self, wait_ms: int) -> Records:
        return self._reader.read(self._at.position, self._most_records, wait_ms)

    def _wait_ms(self) -> int:
        is_busy = self._flight is not None or self._timers.next_due_us() <= self._at.now_us
        return 0 if is_busy else self._limits.wait_ms

    def _tick_if_due(self) -> None:
        if self._system_now_us is None:
            return
        now_us = self._system_now_us()
        if self._timers.next_due_us() <= now_us and self._at.now_us < self._timers.next_due_us():
            self._reader.tick(now_us)

    def _checkpoint_if_due(self) -> None:
        self._checkpoints.move_if_due(self._landed, is_quiet=self._quiet_reads >= QUIET_READS)

    def _apply(self, records: Records) -> None:
        """Apply a batch, with everything that falls due by its end.

        By its end and not by its beginning: the values that an entity had between two events of its own are then seen
        or not whatever entries too many the timers hold, so a crash changes nothing in what is logged of them.

        If something in the batch cannot be computed or stored, the rest is applied without it, and that is put aside.
        """
        before, due = self._at, set[Member]()
        try:
            while True:
                batch = self._draw(records)
                due |= self._due(records)
                writes = self._compute(batch, due)
                if self._land(is_ahead=True):
                    break
                before = self._at
        except POISON:
            self._at = before
            self._land()
            self._apply_apart(records, due, self._take_drawn_us(), self._is_ending)
            return
        coming = self._ask_behind(records)
        try:
            self._launch(batch, writes, before, self._take_drawn_us())
            self._keep_landed()
        finally:
            self._waiting = coming()
        is_ahead = self._may_run_ahead(writes) and self._more_behind(records)
        self._is_pressed = is_ahead and self._are_writes_coming()
        if not is_ahead:
            self._land()

    def _due(self, records: Records) -> set[Member]:
        """Entities that are due now, as many as are taken at once beside such records."""
        self._drawn_us = min(self._drawn_us, self._timers.next_due_us())
        return set(self._timers.due(self._at.now_us, max(len(records), self._limits.timers_per_batch)))

    def _take_drawn_us(self) -> int:
        """Before when none was due that the timers hold no more; whoever takes it keeps readers behind that."""
        drawn_us, self._drawn_us = self._drawn_us, NEVER_US
        return drawn_us

    def _may_run_ahead(self, writes: Sequence[PreparedWrites]) -> bool:
        """Not where others have changed entities lately, nor where the cache could lose one that is on its way."""
        self._careful = max(self._careful - 1, 0)
        return (
            not self._careful
            and 2 * sum(map(len, writes)) <= self._limits.max_cached_entities
            and 2 * self._cache.touched_bytes <= self._limits.max_cached_bytes
        )

    def _ask_behind(self, records: Records) -> Callable[[], Records]:
        """Ask for what waits behind a batch that is not full, before its writes go out: the store answers in turn.

        It delays them. So nothing is asked for while records come more slowly than writes are done.
        """
        if records.is_full or not self._is_pressed:
            return Records.none
        return self._reader.ask(self._at.position, self._most_records)

    def _more_behind(self, records: Records) -> bool:
        """Whether records wait behind those being written; where none did, they are waited for."""
        if not records.is_full and not len(self._waiting):
            self._waiting = self._read(min(WRITES_MS, self._limits.wait_ms))
        return records.is_full or len(self._waiting) > 0

    def _are_writes_coming(self) -> bool:
        sent = self._flight and self._flight.sent
        return sent is not None and not sent.written.done()

    def _apply_apart(
        self, records: Records, due: set[Member], due_us: int, is_ending: Callable[[], bool]
    ) -> None:
        """Find out what cannot be applied, and apply all else, some records after the other.

        States in memory may be ahead of the store now; what was written is skipped by its position. Lateness is judged
        by the time before each record, so the clock must be where the batch began.

        Args:
            records: The batch.
            due: Entities that are due by its end.
            due_us: None of them was due before.
            is_ending: Whether to leave what is not applied yet to whoever comes next.
        """
        self._cache.clear()
        # The timers hold them no more, and they are brought forward behind the last record.
        drawn_us, self._drawn_us = self._drawn_us, min(self._drawn_us, due_us)
        start, size = 0, SEARCHED_RECORDS
        while start < len(records):
            if is_ending():
                raise _Ending
            refused_count = self._apply_searched(records[start : start + size])
            self._owner.deliver()
            self._cache.shrink()
            start += size
            # Large pieces cost less; small ones, where much is put aside, show sooner what has come of them.
            size = SEARCHED_RECORDS if 10 * refused_count > size else min(4 * size, MOST_SEARCHED)
        self._apply_halves(Records.none(), list(due))
        self._drawn_us = drawn_us
        self._show_applied(self._at.now_us)
        self._owner.deliver()

    def _apply_searched(self, records: Records) -> int:
        """Apply records but for those of which it shows before any write that they cannot be; returns how many."""
        details = self._refused(records)
        if details:
            records = self._without_refused(records, details)
        self._apply_halves(records, [])
        return len(details)

    def _refused(self, records: Records) -> dict[int, str]:
        """Events that may count, and that a function or windows refuse by themselves, and why; found without writes."""
        try:
            rows = self._would_count(records)
        except POISON:
            return {}
        return refusals(self._plan, partial(self._source_events, records.events), rows)

    def _would_count(self, records: Records) -> IntArray:
        """Events that would count if each came next."""
        customers, codes = self._customers(records)
        return would_count(
            records,
            Customers(codes, self._cache.load(self._plan.customer, customers)),
            now_us=self._at.now_us,
            lateness_us=self._schema.lateness_us,
            ceiling_us=self._ceiling_us(records),
        )

    def _without_refused(self, records: Records, details: Mapping[int, str]) -> Records:
        """Put those of the refused events aside that would count; of the others it shows why they do not."""
        customers, codes = self._customers(records)
        events = counting(
            records,
            details,
            Customers(codes, self._cache.load(self._plan.customer, customers)),
            now_us=self._at.now_us,
            lateness_us=self._schema.lateness_us,
            ceiling_us=self._ceiling_us(records),
        )
        self._put_aside(records, events, [details[event] for event in events.tolist()])
        return records.without_events(events, moves_time=False)

    def _apply_halves(self, records: Records, due: Sequence[Member]) -> None:
        """Apply in one piece, or else in halves: one event among thousands costs a few pieces more, not thousands."""
        if not len(records) and not due:
            return
        before = self._at
        try:
            self._apply_whole(records, set(due))
        except POISON as error:
            # What it changed in memory it has loaded: a piece is settled before the next, and what fails behind its
            # writes are writes made again, of states loaded anew.
            self._cache.drop_touched()
            self._at = before
            if len(records) + len(due) > 1:
                for some, members in halves(records, due):
                    self._apply_halves(some, members)
            elif len(records):
                self._leave_out(records, error)
            else:
                self._give_up(due, error)

    def _leave_out(self, record: Records, error: Exception) -> None:
        """Go on behind the one record that cannot be applied."""
        now_us = self._at.now_us
        if not len(record.events):
            log.error("touch.not_applied", position=int(record.positions[0]), exc_info=error)
            self.stats.dead += 1
        elif self._is_begun(record):
            now_us = self._let_stand(record, error)
        else:
            self._put_aside(record, np.arange(1), [why(error)])
        self._at = _Moment(int(record.positions[-1]), self._at.record_count + 1, now_us)
        self._bury(self._at.position)
        self._note_landed(self._at)
        self._show_applied(self._at.now_us)

    def _is_begun(self, record: Records) -> bool:
        """Whether the record's customer has its event already, though another of its entities cannot take it."""
        customers, _ = self._customers(record)
        (state,) = self._cache.load(self._plan.customer, customers)
        if state.recent_ids is None or state.position < record.positions[-1]:
            return False
        (hashed,) = id_hashes(record.events.event_ids).tolist()
        return state.recent_ids.look_up(hashed, int(record.positions[-1])) == SAME

    def _let_stand(self, record: Records, error: Exception) -> int:
        """Count an event that is applied in part and cannot be wholly, and say so; returns the time behind it."""
        self.stats.events += 1
        self._archived += 1
        self._archive.extend(record, np.arange(1))
        said = letter(record, 0, PARTLY_APPLIED, why(error))
        self._owner.note([leaving_out(PARTLY_APPLIED, said.position, said.detail)])
        self._letters.append(said)
        moved_us = max(int(record.time_us[0]), int(record.events.event_us[0]))
        return max(self._at.now_us, min(moved_us, self._ceiling_us(record)))

    def _put_aside(self, records: Records, events: IntArray, details: Sequence[str]) -> None:
        """Put events aside that cannot be applied, each with why."""
        self.stats.dead += len(events)
        said = zip(events.tolist(), details, strict=True)
        dead = [letter(records, event, NOT_APPLICABLE, detail) for event, detail in said]
        self._owner.note(leaving_out(NOT_APPLICABLE, one.position, one.detail) for one in dead)
        self._archive.extend(records, events, NOT_APPLICABLE)
        self._letters += dead

    def _give_up(self, due: Sequence[Member], error: Exception) -> None:
        """Go on without the one entity that is due and cannot be brought forward."""
        self.stats.dead += 1
        for kind, key in due:
            log.error("entity.not_advanced", kind=kind, key=key.hex(), exc_info=error)
        self._owner.conclude({}, due)
        self._show_applied(self._at.now_us)

    def _apply_whole(self, records: Records, due: set[Member]) -> None:
        """Apply a batch with nothing on its way before it or after it."""
        before = self._at
        batch = self._draw(records)
        flight = self._launch(batch, self._compute(batch, due), before, self._drawn_us)
        self._finish_flight(flight, is_ahead=False)

    def _draw(self, records: Records) -> _Batch:
        """Find out what records bring, and move the clock to their end."""
        customers, codes = self._customers(records)
        fetch = self._cache.ask([(self._plan.customer, customers)])
        try:
            foreseen = self._foreseen(records.events) if fetch.kinds else None
        finally:
            fetch.take()
        admitted = self._admit(records, customers, codes)
        all_count = len(admitted.rows) == len(records.events)
        feeds = foreseen if foreseen and all_count else self._transform(records.events, admitted.rows)
        position = int(records.positions[-1]) if len(records) else self._at.position
        self._at = _Moment(position, self._at.record_count + len(records), admitted.now_us)
        positions = records.event_positions[admitted.rows]
        touches = {member for _, member in records.touches if member[0] in self._plan.kind_by_name}
        return _Batch(records, admitted, customers, codes, positions, feeds, touches, {})

    def _compute(self, batch: _Batch, due: set[Member]) -> list[PreparedWrites]:
        """Compute everything before anything is written, so that what cannot be computed leaves no trace.

        Kinds of whose entities all states are in memory come first, while the others' are on their way.
        """
        batch.due.update(due)
        touched = {kind.name: (kind, self._touched(kind, batch)) for kind in self._plan.kinds}
        fetch = self._cache.ask(touched.values())
        made: dict[str, list[PreparedWrites]] = {}
        try:
            self._sender.watch(touched.values())
            # Those that are due are as many whatever is read.
            count = sum(len(keys) for _, keys in touched.values()) - len(batch.due)
            self._bound_reads(batch.records, count)
            made |= {
                name: self._prepare(*touched[name], batch) for name in touched if name not in fetch.kinds
            }
        finally:
            fetch.take()
        made |= {name: self._prepare(*touched[name], batch) for name in touched if name in fetch.kinds}
        return [part for name in touched for part in made[name]]

    def _bound_reads(self, records: Records, entity_count: int) -> None:
        """What a batch has in memory grows with its entities: have the next ones take records of few enough.

        A batch of fewer records than might have come tells nothing of larger ones.
        """
        if not records.is_full:
            return
        fitting = len(records) * self._limits.batch_entities // max(entity_count, 1)
        # In halves, so that it changes seldom: what was read ahead is of no use then.
        halvings = 0
        while self._limits.batch_records >> halvings > max(fitting, 1):
            halvings += 1
        self._most_records = max(1, self._limits.batch_records >> halvings)

    def _launch(
        self, batch: _Batch, writes: Sequence[PreparedWrites], start: _Moment, due_us: int
    ) -> _Flight:
        """Send off that what a batch writes be written down, and written."""
        self._owner.note(self._verdicts.of(batch.records, batch.admitted))
        self._reached_us = max(self._reached_us, self._at.now_us)
        if not writes:
            self._sender.unwatch()
        sent = self._send(writes, {}) if writes else None
        self._owner.deliver()
        self._foresee(batch, writes)
        until_us = min(self._at.now_us, self._timers.next_due_us() - 1)
        self._flight = _Flight(batch, start, self._at, until_us, due_us, sent)
        self._cache.shrink()
        return self._flight

    def _foresee(self, batch: _Batch, writes: Sequence[PreparedWrites]) -> None:
        """Let what was due be due again beside writes on their way; the index learns of it when they are done."""
        if not batch.due:
            return
        coming = batch.settled | {
            member: int(part.due_us[number])
            for part in writes
            for member, number in _members(part, batch.due)
        }
        self._timers.remember({member: due_us for member, due_us in coming.items() if due_us != NEVER_US})

    def _land(self, *, is_ahead: bool = False) -> bool:
        """Wait for the writes on their way, and do what follows from them.

        Args:
            is_ahead: Whether the batch behind them is computed already; its intent tells what follows from them.

        Returns:
            Whether they held as they were sent; where not, what was computed behind them is void.
        """
        held = self._flight is None or self._land_flight(self._flight, is_ahead=is_ahead)
        if not is_ahead:
            self._owner.deliver()
        return held

    def _land_flight(self, flight: _Flight, *, is_ahead: bool) -> bool:
        try:
            return self._finish_flight(flight, is_ahead=is_ahead)
        except POISON:
            self._at = flight.start
            # What of it is written has its rows logged: the checkpoint may not fall between.
            self._apply_apart(self._as_judged(flight.batch.records), flight.batch.due, flight.due_us, _never)
            return False

    def _finish_flight(self, flight: _Flight, *, is_ahead: bool) -> bool:
        self._flight = None
        refused: dict[str, list[bytes]] = {}
        hidden: frozenset[Part] = frozenset()
        readable_us = time.time_ns() // 1000
        if flight.sent:
            refused, hidden, readable_us = self._conclude(flight.sent, flight.batch)
        held = not refused and not hidden
        if not held:
            self._at = flight.end
            if is_ahead:
                self._cache.clear()
                self._careful = CAREFUL_BATCHES
            readable_us = self._write_again(refused, hidden, flight.batch)
        self._settle(flight.batch.settled)
        self._archived += len(flight.batch.admitted.rows)
        self._note_landed(flight.end)
        self._verdicts.forget(flight.end.position)
        self._show_applied(flight.until_us)
        self._unkept = flight, readable_us
        if not (held and is_ahead):
            self._keep_landed()
        return held

    def _keep_landed(self) -> None:
        """Count and archive a batch that landed; beside the writes of the next one where that waited for it."""
        if self._unkept is None:
            return
        (flight, readable_us), self._unkept = self._unkept, None
        self._count(flight.batch, flight.end.now_us, readable_us)
        self._bury(flight.end.position)
        records, admitted = flight.batch.records, flight.batch.admitted
        self._archive.extend(records, admitted.rows)
        for reason, events in put_aside(admitted).items():
            self._archive.extend(records, events, reason)

    def _touched(self, kind: EntityKind, batch: _Batch) -> list[bytes]:
        """Entities of a kind that are due or that the batch changes."""
        due = [key for name, key in batch.due if name == kind.name]
        return list(dict.fromkeys([*due, *self._fed(kind, batch)]))

    def _fed(self, kind: EntityKind, batch: _Batch) -> list[bytes]:
        """Entities of a kind that events of the batch belong to; some may be there twice."""
        keys: list[bytes] = []
        for plan in kind.views:
            if plan.view.name in batch.feeds:
                keys += batch.feeds[plan.view.name].keys
        return [*keys, *batch.counted()] if kind is self._plan.customer else keys

    def _forget_gone(
        self, kind: EntityKind, keys: Sequence[bytes], batch: _Batch
    ) -> tuple[Sequence[bytes], list[EntityState]]:
        """Load states, but of entities that are due and that the store knows no more: erased, or expired.

        An entity that is touched may be new.
        """
        states = self._cache.load(kind, keys)
        if all(state.revision for state in states):
            return keys, states
        fed = {
            *self._fed(kind, batch),
            *(key for _, (name, key) in batch.records.touches if name == kind.name),
        }
        gone = [key for key, state in zip(keys, states, strict=True) if not state.revision and key not in fed]
        if not gone:
            return keys, states
        self._cache.drop(gone)
        batch.settled.update({(kind.name, key): NEVER_US for key in gone})
        known = [
            (key, state) for key, state in zip(keys, states, strict=True) if state.revision or key in fed
        ]
        return [key for key, _ in known], [state for _, state in known]

    def _count(self, batch: _Batch, now_us: int, readable_us: int) -> None:
        records, admitted = batch.records, batch.admitted
        rows = admitted.rows
        self.stats.events += len(rows)
        self.stats.late += len(admitted.late)
        self.stats.duplicates += admitted.duplicate_count
        arrived_us = records.arrived_us[records.event_rows[rows]]
        self.stats.freshen(arrived_us, records.events.event_us[rows], readable_us, now_us)
        self.stats.ahead += len(admitted.ahead)
        self.stats.dead += len(admitted.crowded)
        self._letters += letters(records, admitted, self._schema)

    def _ceiling_us(self, records: Records) -> int:
        """How far time may move: not behind where it was, for this owner or the last, where the clock is set back."""
        noted_us = self._verdicts.ceiling_us(records)
        if noted_us is not None:
            return noted_us
        if self._system_now_us is None:
            return NEVER_US - 1
        most_us = self._system_now_us() + self._schema.max_future_s * 1_000_000
        return max(most_us, self._at.now_us, self._reached_us)

    def _show_applied(self, until_us: int) -> None:
        """Tell readers how far features are current: not past an entity that is due and waits its turn."""
        waiting_us = min(self._timers.next_due_us(), self._drawn_us)
        self._owner.show(replace(self._landed, time_us=min(until_us, waiting_us - 1)))

    def _customers(self, records: Records) -> tuple[list[bytes], IntArray]:
        """Entity keys of the customers of a batch's events, and for each event the number of its own."""
        codes, customer_ids = numbered_texts(records.events.customer_ids)
        kind = self._plan.customer
        places = range(len(customer_ids))
        keys = kind.keys.encode_many({kind.key_names[0]: (customer_ids, places)})
        return keys, codes

    def _admit(self, records: Records, customers: list[bytes], codes: IntArray) -> Admitted:
        states = self._cache.load(self._plan.customer, customers)
        lateness_us = self._schema.lateness_us
        admitted = admit(
            records,
            Customers(codes, states),
            now_us=self._at.now_us,
            lateness_us=lateness_us,
            ceiling_us=self._ceiling_us(records),
        )
        for state in states:
            state.is_noted = True
        forget_recent(states, self._checkpoints.current.time_us, lateness_us)
        return admitted

    def _foreseen(self, events: Events) -> dict[str, ViewRows] | None:
        """The rows of events if all of them count, as most do, made while states are on their way that tell."""
        if len(events) > MOST_FORESEEN:
            return None
        try:
            return self._transform(events, np.arange(len(events)))
        except POISON:
            return None

    def _transform(self, events: Events, rows: IntArray) -> dict[str, ViewRows]:
        return self._plan.rows(self._source_events(events, rows)) if len(rows) else {}

    def _source_events(self, events: Events, rows: IntArray) -> SourceEvents:
        """Some events as the transformations take them."""
        events = events.take(rows)
        return SourceEvents(
            events_frame(events, self._schema.property_types),
            np.array(events.event_ids, dtype=object),
            np.array(events.customer_ids, dtype=object),
            events.event_us,
        )

    def _prepare(self, kind: EntityKind, keys: Sequence[bytes], batch: _Batch) -> list[PreparedWrites]:
        """Bring entities to the batch's end and encode their writes, under the number that comes next."""
        if not keys:
            return []
        keys, states = self._forget_gone(kind, keys, batch)
        if not keys:
            return []
        news = self._note_ids(keys, states, batch) if kind is self._plan.customer else set[bytes]()
        borrowed = borrow(self._client, kind, keys)
        groups = advance(kind, keys, states, batch.feeds, batch.positions, borrowed, self._at.now_us)
        return [writes for group in groups if (writes := self._prepare_group(group, news, batch)) is not None]

    def _prepare_group(self, group: Group, news: set[bytes], batch: _Batch) -> PreparedWrites | None:
        wanted = group.fed | (group.before_us < self._at.now_us)
        changed = news | {change.key for change in group.changes}
        if changed:
            wanted |= np.array([key in changed for key in group.keys], dtype=np.bool_)
        entities = np.flatnonzero(wanted)
        if len(entities) < len(wanted):
            self._leave_alone(group, np.flatnonzero(~wanted), batch)
        if not len(entities):
            return None
        for number in entities.tolist():
            state = group.states[number]
            state.position = max(state.position, self._at.position)
            state.mark = self._sender.number + 1
        return prepare_writes(group, entities, self._partition)

    def _leave_alone(self, group: Group, entities: IntArray, batch: _Batch) -> None:
        """Nothing is news to entities: a replay came to them again."""
        for number in entities.tolist():
            member = group.kind.name, group.keys[number]
            if member in batch.due:
                batch.settled[member] = group.states[number].announced_us = int(group.due_us[number])

    def _note_ids(self, keys: Sequence[bytes], states: Sequence[EntityState], batch: _Batch) -> set[bytes]:
        """Note event ids on states that were read again after a refused write, and so do not know them yet.

        Returns:
            Customers to whom one of the records is news.
        """
        rows = batch.admitted.rows
        if not len(rows):
            return set()
        unnoted = {key: place for place, key in enumerate(keys) if not states[place].is_noted}
        if unnoted:
            self._note_again(unnoted, states, batch)
        stood = {key: state.position for key, state in zip(keys, states, strict=True)}
        # Of a customer's positions the last one stands, which is the highest.
        last = dict(zip(batch.codes[rows].tolist(), batch.positions.tolist(), strict=True))
        return {
            batch.customers[code]
            for code, position in last.items()
            if position > stood.get(batch.customers[code], position)
        }

    def _note_again(self, places: Mapping[bytes, int], states: Sequence[EntityState], batch: _Batch) -> None:
        """Note event ids on the states that have a place."""
        rows, records = batch.admitted.rows, batch.records
        place_of = np.array([places.get(key, -1) for key in batch.customers], dtype=np.int64)
        owners = place_of[batch.codes]
        note_ids(
            Customers(owners, states),
            rows[owners[rows] >= 0],
            records.events.event_us,
            batch.admitted.hashes,
            records.event_positions,
            self._schema.lateness_us,
        )

    def _write_again(self, refused: Mapping[str, list[bytes]], hidden: frozenset[Part], batch: _Batch) -> int:
        """Write what somebody else changed meanwhile, read and computed again.

        Returns:
            Wall time at which it was done.
        """
        self._sender.unwatch()  # what the next batch looked at changes now
        readable_us = time.time_ns() // 1000
        failed: Exception | None = None
        for _ in range(MAX_WRITE_ATTEMPTS):
            writes: list[PreparedWrites] = []
            for kind in self._plan.kinds:
                try:
                    writes += self._prepare(kind, refused.get(kind.name, []), batch)
                except POISON as error:
                    # The others take what they can first: who counts an event must have it wherever it fits.
                    failed = failed or error
            if not writes and not hidden:
                if failed:
                    raise failed
                return readable_us
            void = {self._sender.number: hidden} if hidden else {}
            refused, hidden, readable_us = self._conclude(self._send(writes, void), batch)
        count = sum(map(len, refused.values()))
        raise StreamingError(f"{count} entities were refused {MAX_WRITE_ATTEMPTS} times")

    def _send(self, writes: Sequence[PreparedWrites], void: Mapping[int, frozenset[Part]]) -> Sent:
        if redate(self._client, writes):
            self._sender.unwatch()  # some of what was looked at is changed by that
        sent = self._sender.send(writes, void, self._at.now_us)
        self._timers.remember(sent.announced)
        return sent

    def _conclude(self, sent: Sent, batch: _Batch) -> tuple[dict[str, list[bytes]], frozenset[Part], int]:
        """Wait for writes, and do what follows from them.

        Returns:
            What was refused, by kind; what of the intent did not happen: the refused, and rows of views of which
            another writer had brought a later one; and the wall time at which the writes were done.
        """
        writes, (written, done_us) = sent.writes, sent.written.result()
        refused: dict[str, list[bytes]] = {}
        hidden: set[Part] = set()
        for part, outcome in zip(writes, written, strict=True):
            accepted = outcome.accepted
            gone = [part.keys[number] for number in (~accepted).nonzero()[0].tolist()]
            if gone:
                refused.setdefault(part.kind.name, []).extend(gone)
                self._cache.drop(gone)
                hidden.update((key, WHOLE) for key in gone)
            views, unseen = (part.fresh & ~outcome.visible & accepted).nonzero()
            for view, number in zip(views.tolist(), unseen.tolist(), strict=True):
                hidden.add((part.keys[number], part.kind.shown[view].view.name))
            self.stats.writes += len(part)
            self.stats.refused_writes += len(gone)
            self.stats.state_bytes_written += outcome.state_bytes
        true = sent.intent.without(hidden)
        self._sink.extend(true.rows)
        self._log_changes(true)
        if batch.due:
            self._settle(_due(writes, written, batch.due))
        return refused, frozenset(hidden), done_us

    def _settle(self, members: Mapping[Member, int]) -> None:
        if not members:
            return
        ahead = {member: due_us for member, due_us in members.items() if due_us != NEVER_US}
        self._owner.conclude(ahead, [member for member in members if member not in ahead])
        self._timers.remember(ahead)

    def _log_changes(self, intent: Intent) -> None:
        self.stats.flip(change.segment for change in intent.changes)
        keys = [self._plan.kind_by_name[change.kind].keys.decode(change.key) for change in intent.changes]
        self._owner.log_changes(intent.number, intent.changes, keys)

    def _bury(self, until: int) -> None:
        """Put events aside in the dead-letter log, up to a position: it takes them in order."""
        dead = [one for one in self._letters if one.position <= until]
        if not dead:
            return
        self._letters = [one for one in self._letters if one.position > until]
        for one in dead:
            log.warning("event.buried", position=one.position, reason=one.reason, detail=one.detail)
        self._owner.bury(dead)


def _due(writes: Sequence[PreparedWrites], written: Sequence[Written], due: set[Member]) -> dict[Member, int]:
    """Of those that were due, the ones that are written, and when they are due next."""
    settled = {}
    for part, outcome in zip(writes, written, strict=True):
        for member, number in _members(part, due):
            if outcome.accepted[number]:
                settled[member] = part.states[number].announced_us = int(part.due_us[number])
    return settled


def _members(part: PreparedWrites, due: set[Member]) -> list[tuple[Member, int]]:
    """Those of the due that are written by a part, and their numbers in it."""
    wanted = {key for name, key in due if name == part.kind.name}
    return [((part.kind.name, key), number) for number, key in enumerate(part.keys) if key in wanted]
