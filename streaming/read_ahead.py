"""Reading the log ahead: while a full batch is applied, the next one is read and taken apart beside it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from streaming.log import PartitionReader, Records


class _Ahead(NamedTuple):
    after: int
    limit: int
    records: Future[Records]


class ReadAhead:
    """A reader that knows what comes next as long as the log is longer than what is read at once.

    What it holds is bounded by one batch. A read that goes on elsewhere, or finds nothing held, goes to the log.

    Args:
        reader: Of the partition; it is used by one more thread.
    """

    def __init__(self, reader: PartitionReader) -> None:
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._ahead: _Ahead | None = None

    def read(self, after: int, count: int, wait_ms: int) -> Records:
        """As the reader's."""
        records = self._held(after, count)
        if not len(records):
            records = self._reader.read(after, count, wait_ms)
        return self._and_on(records, count)

    def ask(self, after: int, count: int) -> Callable[[], Records]:
        """As the reader's."""
        records = self._held(after, count)
        if len(records):
            return lambda: self._and_on(records, count)
        asked = self._reader.ask(after, count)
        return lambda: self._and_on(asked(), count)

    def _and_on(self, records: Records, count: int) -> Records:
        """Read what is behind a full batch, beside its work."""
        if records.is_full:
            last = int(records.positions[-1])
            self._ahead = _Ahead(last, count, self._thread.submit(self._reader.read, last, count, 0))
        return records

    def _held(self, after: int, count: int) -> Records:
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return Records.none()
        records = ahead.records.result()
        return records if (ahead.after, ahead.limit) == (after, count) else Records.none()

    def tick(self, now_us: int) -> None:
        """As the reader's."""
        self._reader.tick(now_us)

    def trim(self, until: int) -> None:
        """As the reader's."""
        self._reader.trim(until)
