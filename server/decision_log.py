"""The decision log: a bounded queue off the request's path, flushed to Parquet within 100 ms.

What an overflow or a failed write loses is counted in `waypost_decision_records_lost`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import pyarrow as pa
import structlog

from decision.schema import Catalog
from server import decision_files
from server.config import DecisionLogBounds
from server.decision_codec import Decided, record_bytes, record_to_proto
from server.decision_files import Row
from server.metrics import Metrics
from waypost.decision.v1 import decision_pb2

_LEAST_BYTES = 4_096
"""About what a record takes beside its arrays."""

_log = structlog.get_logger("server")


class DecisionLog:
    """Takes decisions in without waiting and writes them in the background.

    Args:
        folder: Where the Parquet files go.
        bounds: Length and size of the queue, time to flush, files per merge.
        metrics: Counts what is written and lost.

    Attributes:
        held_bytes: About what the records that wait or are being written take.
        lost_count: Records lost.
    """

    def __init__(self, folder: Path, bounds: DecisionLogBounds, metrics: Metrics) -> None:
        self._folder = folder
        self._bounds = bounds
        self._metrics = metrics
        self._queue: deque[tuple[Decided, Catalog]] = deque()
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.held_bytes = 0
        self.lost_count = 0

    def start(self) -> None:
        """Start writing; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="decision-log")

    def append(self, decided: Decided, catalog: Catalog) -> None:
        """Queue a decision; a full queue drops and counts it. `catalog` is that of the decision's bundle."""
        held_bytes = self.held_bytes + decided.nbytes + _LEAST_BYTES
        if len(self._queue) >= self._bounds.queue_records or held_bytes > self._bounds.queue_mib << 20:
            self._lose(1)
            return
        self.held_bytes = held_bytes
        self._queue.append((decided, catalog))
        self._filled.set()

    async def close(self) -> None:
        """Stop the writer and write what is queued."""
        self._closing = True
        self._filled.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        # Half of the bound gathers a batch, the other half is left for writing it.
        gather_s = self._bounds.flush_ms / 2_000
        while self._queue or not self._closing:
            await self._filled.wait()
            if not self._closing:
                await asyncio.sleep(gather_s)
            await self._flush()

    async def _flush(self) -> None:
        self._filled.clear()
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        batch_bytes = self.held_bytes
        self._metrics.records_queued.set(len(batch))
        try:
            await asyncio.to_thread(self._write, batch)
        except Exception as error:  # noqa: BLE001 - a failed write must not end the log: it is counted and reported
            _log.error("decision_log.write_failed", records=len(batch), exc_info=error)
            self._lose(len(batch))
        else:
            self._metrics.records_written.inc(len(batch))
            await self._merge()
        self.held_bytes -= batch_bytes
        self._metrics.records_queued.set(len(self._queue))

    def _write(self, batch: list[tuple[Decided, Catalog]]) -> None:
        if batch:
            decision_files.write_rows(self._folder, [_row(decided, catalog) for decided, catalog in batch])

    async def _merge(self) -> None:
        """Merge small files; another server on the same folder may have been quicker, which loses nothing."""
        try:
            await asyncio.to_thread(decision_files.merge, self._folder, self._bounds.compact_files)
        except (OSError, pa.ArrowInvalid) as error:
            _log.warning("decision_log.not_merged", error=str(error))

    def _lose(self, count: int) -> None:
        self.lost_count += count
        self._metrics.records_lost.inc(count)


def _row(decided: Decided, catalog: Catalog) -> Row:
    response = decided.response
    return Row(
        decision_id=response.decision_id,
        decided_at_us=decided.now_us,
        placement=decided.request.placement,
        customer_id=decided.request.customer_id,
        bundle_version=decided.bundle_version,
        model_version=decided.model_version,
        degraded=tuple(_kind(item.kind) for item in response.degraded),
        record=record_bytes(record_to_proto(decided, catalog)),
    )


def _kind(kind: decision_pb2.DegradationKind.ValueType) -> str:
    return decision_pb2.DegradationKind.Name(kind).removeprefix("DEGRADATION_KIND_").lower()
