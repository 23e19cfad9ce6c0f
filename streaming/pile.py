"""Rows that come a few at a time and are written many at once."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.packed import row_count

LARGE_BYTES = 2_048
"""A row of more counts as several where it is asked how much there is."""


class Pile:
    """Packed rows (`streaming/packed.py`), one part behind another.

    Thousands of parts are freed in no time, as they are plain bytes; of thousands of small tables that is not so.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self.row_count = 0

    @property
    def weight(self) -> int:
        """Rows, or more where they are large: so memory is bounded by whatever bounds it."""
        return max(self.row_count, self._size_bytes // LARGE_BYTES)

    def add(self, parts: Sequence[bytes]) -> None:
        """Have rows behind all others."""
        self._parts += parts
        self._count(parts)

    def take(self) -> list[bytes]:
        """Everything, in order; other rows come from now on."""
        taken, self._parts = self._parts, []
        self._size_bytes = self.row_count = 0
        return taken

    def give_back(self, parts: Sequence[bytes]) -> None:
        """Have what was taken last before all that came since."""
        self._parts = [*parts, *self._parts]
        self._count(parts)

    def _count(self, parts: Sequence[bytes]) -> None:
        self._size_bytes += sum(map(len, parts))
        self.row_count += sum(map(row_count, parts))
