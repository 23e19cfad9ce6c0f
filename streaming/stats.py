"""Figures of one partition, for `waypost status` and the metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

FRESHNESS_SAMPLES = 50_000


@dataclass(slots=True)
class StreamStats:
    """Counts since the process started, and the latest freshness samples (bounded)."""

    events: int = 0
    late: int = 0
    ahead: int = 0
    duplicates: int = 0
    dead: int = 0
    writes: int = 0
    refused_writes: int = 0
    offline_rows: int = 0
    segment_changes: int = 0
    freshness_us: deque[int] = field(default_factory=lambda: deque(maxlen=FRESHNESS_SAMPLES))

    def freshen(self, arrived_us: Iterable[int], readable_us: int) -> None:
        """Note how long events took from their arrival until their features were readable, in wall time."""
        self.freshness_us.extend(readable_us - arrived for arrived in arrived_us)

    def summary(self) -> dict[str, float]:
        """All figures by name; freshness in milliseconds, over the latest samples."""
        figures: dict[str, float] = {
            name: getattr(self, name)
            for name in (
                "events",
                "late",
                "ahead",
                "duplicates",
                "dead",
                "writes",
                "refused_writes",
                "offline_rows",
                "segment_changes",
            )
        }
        if self.freshness_us:
            p50, p99 = np.percentile(np.fromiter(self.freshness_us, dtype=np.float64), [50, 99])
            figures |= {
                "freshness_ms_p50": round(float(p50) / 1000, 3),
                "freshness_ms_p99": round(float(p99) / 1000, 3),
            }
            figures["freshness_samples"] = len(self.freshness_us)
        return figures
