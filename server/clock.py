"""Logical time: the system's clock, or one that a replay drives. The only place that reads the wall clock for it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Logical time in microseconds since the epoch, UTC; never runs backwards."""

    def now_us(self) -> int:
        """The time."""


class SystemClock:
    """The system's time; a step back of the system's clock reads as standing still."""

    def __init__(self) -> None:
        self._latest_us = 0

    def now_us(self) -> int:
        """The time."""
        self._latest_us = max(self._latest_us, time.time_ns() // 1_000)
        return self._latest_us


class VirtualClock:
    """Stands still until it is advanced; an earlier time has no effect."""

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """The time."""
        return self._now_us

    def advance(self, now_us: int) -> int:
        """Move to `now_us` unless the clock is past it already; returns the time after that."""
        self._now_us = max(self._now_us, now_us)
        return self._now_us
