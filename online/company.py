"""Whether a read that waits is likely to be joined by others."""

from __future__ import annotations

from typing import Final

LONELY: Final = 32
"""So many pipelines of one read in a row say that there is one caller at a time."""
ASK_AGAIN: Final = 16
"""One in so many is held even so, since callers that come one by one while no read is held may come together."""


class Company:
    """Tells from the last pipelines whether holding a read brings others.

    Being joined counts at once, and being alone only if it goes on: to hold a read for nothing costs it some
    microseconds, and to send each by itself costs a busy server much of what it can do.
    """

    def __init__(self) -> None:
        self._alone = 0

    def expected(self) -> bool:
        """Whether to hold the next read."""
        return self._alone < LONELY or self._alone % ASK_AGAIN == 0

    def sent(self, count: int) -> None:
        """Note how many reads left together."""
        self._alone = self._alone + 1 if count == 1 else 0
