"""The checkpoint of one partition, and what must be on disk before it may move.

Rows for the offline store and events for the archive wait in memory, and are written beside what follows. A checkpoint
moves only once they lie there; where they cannot be written they wait on, up to a bound, and the log waits behind them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import structlog

from streaming.archive import Archive
from streaming.errors import LeaseLost, StoreSetBack
from streaming.log import PartitionReader
from streaming.owner import PartitionOwner, Progress
from streaming.sink import OfflineRows, OfflineSink
from streaming.stats import StreamStats

log = structlog.get_logger()

QUIET_PART = 10
"""Where nothing comes, one in so many of the rows is enough for the checkpoint to move at once."""


class _Flush(NamedTuple):
    """What is logged offline, on its way to the disk.

    Attributes:
        progress: The checkpoint that may be once it lies there.
        rows: Offline rows, and their number; gone once they are written.
        events: For the archive, and their number; gone then too.
        weight: What they count for among what may wait in memory.
        written: Done then.
    """

    progress: Progress
    rows: OfflineRows
    offline_count: int
    events: list[bytes]
    event_count: int
    weight: int
    written: Future[None]


class Checkpoints:
    """Moves the checkpoint of a partition behind what is on disk.

    Args:
        reader: Of the log, which is trimmed behind the checkpoint.
        owner: The right to move it.
        sink: Offline rows in memory, and their files.
        archive: Events in memory, and their files.
        stats: Told what is written.
        interval_s: How often it moves while events flow.
        most_rows: Rows in memory after which it moves at once; large ones count as several.
        await_intent: Waits until what is on its way into the store is written down there.

    Attributes:
        current: Where it stands.
    """

    def __init__(
        self,
        *,
        reader: PartitionReader,
        owner: PartitionOwner,
        sink: OfflineSink,
        archive: Archive,
        stats: StreamStats,
        interval_s: float,
        most_rows: int,
        await_intent: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._owner = owner
        self._sink = sink
        self._archive = archive
        self._stats = stats
        self._interval_s = interval_s
        self._most_rows = most_rows
        self._await_intent = await_intent
        self._files = ThreadPoolExecutor(1, "files")
        self._flush: _Flush | None = None
        self._is_unwritable = False
        self._moved_at = time.monotonic()
        self.current = Progress()

    def start(self) -> Progress:
        """Take up where it stands, and make the files ready to be written behind it; returns where that is.

        Raises:
            StoreSetBack: Files hold something that the store knows nothing of.
        """
        self.current = self._owner.checkpoint()
        self._check_files(self.current)
        self._archive.start(self.current.position, self._owner.check)
        self._sink.start(self.current.intent, self._owner.fence, self._owner.check)
        return self.current

    @property
    def is_flushing(self) -> bool:
        """Whether something is on its way to the disk."""
        return self._flush is not None

    @property
    def is_stuck(self) -> bool:
        """Whether as much waits in memory as may, and cannot be written."""
        flushing = self._flush.weight if self._flush else 0
        return self._is_unwritable and self._waiting + flushing >= self._most_rows

    def move_if_due(self, landed: Progress, *, is_quiet: bool) -> None:
        """End a flush that is done, and begin another where it is time.

        Args:
            landed: Where it may move to.
            is_quiet: Whether nothing comes.
        """
        if self._flush is not None:
            if not self._flush.written.done() and self._waiting < self._most_rows:
                return
            self.end()
        most_rows = self._most_rows // (QUIET_PART if is_quiet else 1)
        is_full = self._waiting >= most_rows and not self._is_unwritable
        if is_full or time.monotonic() - self._moved_at >= self._interval_s:
            self.begin(landed)

    def begin(self, landed: Progress) -> None:
        """Write what is logged offline beside what follows; what is on its way into the store stays before it.

        The flush before must have ended.
        """
        assert self._flush is None
        self._moved_at = time.monotonic()
        if landed == self.current and not self._sink.row_count:
            self._stats.written()
            self._owner.publish_stats(self._stats.summary())
            return
        offline_count, event_count = self._sink.row_count, self._archive.row_count
        weight = self._waiting
        rows, events = self._sink.take(), self._archive.take()
        written = self._files.submit(self._write, rows, events, self.current)
        self._flush = _Flush(landed, rows, offline_count, events, event_count, weight, written)

    def end(self) -> None:
        """Wait for what is written to disk, and move the checkpoint behind it; what could not be written waits."""
        flush, self._flush = self._flush, None
        if flush is None:
            return
        try:
            flush.written.result()
        except OSError as error:
            self._wait_on(flush, error)
        else:
            self._move(flush)
        self._owner.publish_stats(self._stats.summary())

    def close(self) -> None:
        """Wait until nothing is on its way to the disk; nothing else may be asked of it then."""
        self._files.shutdown(cancel_futures=True)

    def _check_files(self, checkpoint: Progress) -> None:
        """See that files hold nothing that the store knows nothing of; those of an emptied one are set aside."""
        if not checkpoint.position:
            return
        ahead = self._archive.ahead(checkpoint.position, self._owner.fence, self._owner.log_end())
        ahead += self._sink.ahead(checkpoint.intent, self._owner.fence)
        if ahead:
            # Another owner may have come since the checkpoint was read, and moved it.
            self._owner.check()
            raise StoreSetBack(
                f"the store is older than its files: of partition {self._owner.keys.partition} it has "
                f"{checkpoint.position} as its checkpoint, and {len(ahead)} files, as {ahead[0]}, are of later ones. "
                "If it was set back to a copy, set the data folder and the offline files back to the same moment, or "
                "have what is later moved aside by `waypost restored`"
            )

    def _write(self, rows: OfflineRows, events: list[bytes], checkpoint: Progress) -> None:
        """A rename cannot be refused to who owns the partition no more, so that is asked before and after.

        What is written is freed here: it is of thousands of batches, and those that come would wait for that.
        """
        if not rows and not events:
            return
        after, first, fence = checkpoint.position, checkpoint.intent + 1, self._owner.fence
        with self._archive.writing():
            self._owner.check()
            self._archive.write(events, after, fence)
            self._sink.write(rows, first, fence)
            try:
                self._owner.check()
            except LeaseLost:
                self._archive.discard(after, fence)
                self._sink.discard(rows, first, fence)
                raise
        for parts in (*rows.values(), events):
            parts.clear()

    def _wait_on(self, flush: _Flush, error: OSError) -> None:
        self._sink.give_back(flush.rows)
        self._archive.give_back(flush.events)
        self._is_unwritable = True
        self._stats.not_written(self._waiting_rows)
        log.warning(
            "materializer.offline_unwritable",
            partition=self._owner.keys.partition,
            rows_waiting=self._waiting_rows,
            error=str(error),
        )

    def _move(self, flush: _Flush) -> None:
        self._is_unwritable = False
        self._stats.written()
        self._stats.offline_rows += flush.offline_count
        if flush.event_count:
            self._stats.archived_at_us = time.time_ns() // 1000
        # What follows from batches before it may be on its way with the next one's intent.
        self._await_intent()
        self._owner.move_checkpoint(flush.progress)
        self._reader.trim(flush.progress.position)
        self.current = flush.progress

    @property
    def _waiting_rows(self) -> int:
        """Rows in memory that nobody writes to disk yet."""
        return max(self._sink.row_count, self._archive.row_count)

    @property
    def _waiting(self) -> int:
        """As many as they count for."""
        return max(self._sink.weight, self._archive.weight)
