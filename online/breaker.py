"""A circuit breaker: after failures in a row one trial at a time, and at growing, jittered distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

THRESHOLD: Final = 3
"""Failures in a row that open it."""
FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.25


class Breaker:
    """Decides who may bother a server that failed.

    Args:
        clock: Seconds, monotonic.
        random: Draws from [0, 1); spreads the trials of many processes.

    Attributes:
        opened: How often it opened so far.
    """

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._failures = 0
        self._retry_at = 0.0
        self._in_trial = False
        self.opened = 0

    @property
    def closed(self) -> bool:
        """Whether everybody may go on."""
        return self._failures < THRESHOLD

    def admit(self, ends_at: float) -> float | None:
        """Seconds that a call has to wait before it is the trial; None where it is refused.

        Refused are calls beside a trial, and calls that end before the next trial may begin. Who is admitted owes an
        `end_trial`.
        """
        wait_s = max(self._retry_at - self._clock(), 0.0)
        if self._in_trial or self._clock() + wait_s >= ends_at:
            return None
        self._in_trial = True
        return wait_s

    def end_trial(self) -> None:
        """Let another call be the trial; what came of this one, `success` and `failure` say."""
        self._in_trial = False

    def success(self) -> None:
        """The server answered."""
        self._failures = 0

    def failure(self) -> None:
        """The server could not be reached, broke off or stayed silent."""
        self._failures += 1
        if self.closed:
            return
        self.opened += self._failures == THRESHOLD
        pause_s = min(FIRST_PAUSE_S * 2 ** min(self._failures - THRESHOLD, 10), LONGEST_PAUSE_S)
        self._retry_at = self._clock() + pause_s * (0.5 + self._random() / 2)
