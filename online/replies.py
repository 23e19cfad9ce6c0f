"""Replies of the store as they came: their bytes, and where each string in them lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from online.errors import ReadTooLargeError
from online.kernels import FIRST, KIND, MAX_LINE_BYTES, START, STOP

MOST_BYTES: Final = 1 << 30
"""Replies that are put together have no more: a place in them is an int32."""
_ERROR_KINDS: Final = (ord("-"), ord("!"))


@dataclass(slots=True, eq=False)
class Replies:
    """Some replies in order; never changed, but not frozen, since that makes each one cost thrice as much.

    Attributes:
        data: uint8: their bytes.
        leaves: int64[strings, 2]: start and length of each string, number or null (length -1) in them.
        table: int64[replies, 5]: see `online.kernels.KIND`.
        errors: How many of them are errors.
        odd: How many are dumps that `online.dumps` does not read.
    """

    data: NDArray[np.uint8]
    leaves: NDArray[np.int64]
    table: NDArray[np.int64]
    errors: int = 0
    odd: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def error(self, row: int) -> str | None:
        """The text of a reply that is an error, or None."""
        if self.table[row, KIND] not in _ERROR_KINDS:
            return None
        start, length = self.leaves[self.table[row, FIRST]].tolist()
        return bytes(self.data[start : start + min(length, MAX_LINE_BYTES)]).decode(errors="replace")

    def texts(self, row: int) -> list[bytes]:
        """The strings of a reply that holds no nulls."""
        _, first, stop, _, _ = self.table[row].tolist()
        spans = self.leaves[first:stop].tolist()
        return [bytes(self.data[start : start + length]) for start, length in spans]

    def one(self, row: int) -> Replies:
        """A copy of one reply that shares nothing with the others."""
        kind, first, stop, start, end = self.table[row].tolist()
        leaves = self.leaves[first:stop].copy()
        leaves[:, 0] -= start
        table = np.array([[kind, 0, stop - first, 0, end - start]])
        return Replies(self.data[start:end].copy(), leaves, table)

    @property
    def size_bytes(self) -> int:
        return self.data.nbytes + self.leaves.nbytes + self.table.nbytes


NOTHING: Final = Replies(np.empty(0, np.uint8), np.empty((0, 2), np.int64), np.empty((0, 5), np.int64))


def merge(parts: Sequence[Replies]) -> Replies:
    """All parts' replies, one after the other.

    Raises:
        ReadTooLargeError: They have more than `MOST_BYTES`.
    """
    if len(parts) < 2:
        return parts[0] if parts else NOTHING
    data = put_together([part.data for part in parts])
    leaf_counts = np.array([len(part.leaves) for part in parts])
    row_counts = np.array([len(part.table) for part in parts])
    bytes_before = _before(np.array([len(part.data) for part in parts]))
    leaves = np.concatenate([part.leaves for part in parts])
    table = np.concatenate([part.table for part in parts])
    leaves[:, 0] += np.repeat(bytes_before, leaf_counts)
    table[:, FIRST : STOP + 1] += np.repeat(_before(leaf_counts), row_counts)[:, None]
    table[:, START:] += np.repeat(bytes_before, row_counts)[:, None]
    return Replies(data, leaves, table, sum(part.errors for part in parts), sum(part.odd for part in parts))


def put_together(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The bytes of replies, one after the other.

    Raises:
        ReadTooLargeError: There are more than `MOST_BYTES`.
    """
    if sum(map(len, parts)) > MOST_BYTES:
        raise ReadTooLargeError(f"the answers have more than {MOST_BYTES >> 30} GiB; ask for fewer rows")
    return np.concatenate(parts)


def _before(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """What lies before each part."""
    sums: NDArray[np.int64] = np.cumsum(counts) - counts
    return sums
