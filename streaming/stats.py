"""Figures of one partition, for `waypost status` and the metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streaming.stats_kernels import count_times

IntArray = npt.NDArray[np.int64]

FRESHNESS_SAMPLES = 50_000
FRESHNESS_BUCKETS_S = (
    0.002,
    0.004,
    0.008,
    0.015,
    0.025,
    0.04,
    0.08,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    30,
    60,
    300,
    3_600,
)
_BOUNDS_S = np.array(FRESHNESS_BUCKETS_S, dtype=np.float64)
COUNTS = (
    "events",
    "late",
    "ahead",
    "duplicates",
    "dead",
    "writes",
    "refused_writes",
    "state_bytes_written",
    "offline_rows",
    "failed_flushes",
    "segment_changes",
)
"""Names of the counts, as they stand in the store and in the metrics."""


@dataclass(slots=True)
class Freshness:
    """How long something took until it was readable: counts by bucket, the last one without a bound, and their sum."""

    counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(FRESHNESS_BUCKETS_S) + 1, dtype=np.int64)
    )
    sum_s: float = 0.0

    def note(self, times_us: IntArray) -> None:
        """Count times in microseconds; those below zero, from clocks that differ, count as zero."""
        self.sum_s += count_times(times_us, _BOUNDS_S, self.counts)


class Latest:
    """The latest of many numbers, at most so many of them, in no order."""

    def __init__(self, most: int) -> None:
        self._held: IntArray = np.empty(most, dtype=np.int64)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, len(self._held))

    def extend(self, numbers: IntArray) -> None:
        """Take numbers, the latest last."""
        most = len(self._held)
        kept = numbers[-most:]
        start = (self._count + len(numbers) - len(kept)) % most
        room = most - start
        self._held[start : start + len(kept)] = kept[:room]
        self._held[: max(len(kept) - room, 0)] = kept[room:]
        self._count += len(numbers)

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Of what is held, which must be something."""
        found: list[float] = np.percentile(self._held[: len(self)], percents).tolist()
        return found


@dataclass(slots=True)
class StreamStats:
    """Counts since this owner took the partition, and the latest freshness samples (bounded).

    Attributes:
        arrival: From an event's arrival until its features were readable, in wall time.
        event_time: From the event's own time until then, in logical time.
        flips: Entries and exits by segment.
        failed_flushes: How often files could not be written.
        rows_waiting: Rows in memory since the last of those; 0 where it went well since.
        archived_at_us: Wall time at which events were last archived; 0 before the first.
        written_at_us: Wall time at which all there was lay in files last.
    """

    events: int = 0
    late: int = 0
    ahead: int = 0
    duplicates: int = 0
    dead: int = 0
    writes: int = 0
    refused_writes: int = 0
    state_bytes_written: int = 0
    offline_rows: int = 0
    failed_flushes: int = 0
    segment_changes: int = 0
    flips: Counter[str] = field(default_factory=Counter)
    rows_waiting: int = 0
    archived_at_us: int = 0
    written_at_us: int = 0
    arrival: Freshness = field(default_factory=Freshness)
    event_time: Freshness = field(default_factory=Freshness)
    freshness_us: Latest = field(default_factory=lambda: Latest(FRESHNESS_SAMPLES))
    _read_at: float = field(default_factory=time.monotonic)
    _read_events: int = 0

    def freshen(self, arrived_us: IntArray, event_us: IntArray, readable_us: int, now_us: int) -> None:
        """Note events whose features are readable since `readable_us` of wall time, `now_us` of logical time."""
        if not len(arrived_us):
            return
        waited_us = readable_us - arrived_us
        self.freshness_us.extend(waited_us)
        self.arrival.note(waited_us)
        self.event_time.note(now_us - event_us)

    def flip(self, segments: Iterable[str]) -> None:
        """Count entries and exits."""
        for segment in segments:
            self.segment_changes += 1
            self.flips[segment] += 1

    def written(self) -> None:
        """Note that everything up to now lies in files."""
        self.rows_waiting = 0
        self.written_at_us = time.time_ns() // 1000

    def not_written(self, rows_waiting: int) -> None:
        """Note that files could not be written, and how much waits for that."""
        self.failed_flushes += 1
        self.rows_waiting = rows_waiting

    def summary(self) -> dict[str, float]:
        """All figures by name: counts, events per second since the last call, freshness over the latest samples."""
        figures: dict[str, float] = {name: getattr(self, name) for name in COUNTS}
        figures |= {f"flips:{segment}": count for segment, count in self.flips.items()}
        if self.archived_at_us:
            figures["archived_at_us"] = self.archived_at_us
        now = time.monotonic()
        passed_s = max(now - self._read_at, 1e-3)
        figures["events_per_s"] = round((self.events - self._read_events) / passed_s, 1)
        self._read_at, self._read_events = now, self.events
        if len(self.freshness_us):
            p50, p99 = self.freshness_us.percentiles([50, 99])
            figures |= {"freshness_ms_p50": round(p50 / 1000, 3), "freshness_ms_p99": round(p99 / 1000, 3)}
            figures["freshness_samples"] = len(self.freshness_us)
        figures["rows_waiting"] = self.rows_waiting
        figures["written_at_us"] = self.written_at_us
        return figures
