"""What the server's log says of a store that reads get no answer from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger("server")

PATIENCE_S = 60.0
"""Least time between two outages that are told, so that a store that comes and goes does not fill the log."""


class StoreLog:
    """Told of every read how the store answered; says once that it does not, and why, and once that it does again.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = -math.inf
        self._is_told = False

    def __call__(self, error: str | None) -> None:
        """Note a read.

        Args:
            error: Why there was no answer, or None.
        """
        if error is not None:
            now = self._clock()
            if not self._is_told and now >= self._told_at + PATIENCE_S:
                self._told_at, self._is_told = now, True
                _log.warning("store.unanswered", error=error)
        elif self._is_told:
            self._is_told = False
            _log.info("store.answers_again", silent_s=round(self._clock() - self._told_at, 1))
