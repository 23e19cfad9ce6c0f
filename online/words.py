"""Words of many commands at once: bytes in the store's protocol, cut into runs, one run for each row.

A word is `$length`, its bytes, and line ends around them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from online.write_kernels import join_runs

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """A run of words for each row.

    Attributes:
        data: Holds all of them.
        first: Where each row's run begins, shape (rows,).
        stop: Where it ends; where it begins if the row has none.
        sizes: How many words it has.
    """

    data: ByteArray
    first: IntArray
    stop: IntArray
    sizes: IntArray

    def row(self, number: int) -> bytes:
        """The words of one row."""
        return self.data[self.first[number] : self.stop[number]].tobytes()

    def owned(self, owners: IntArray) -> Spans:
        """The same words, run `i` being of row `owners[i]`, or left out where that is -1."""
        return Spans(self.data, np.array((owners, self.first, self.stop, self.sizes)))


class Spans(NamedTuple):
    """Words for some of many rows; each of them may have several.

    Attributes:
        data: Holds them.
        table: For each span its row, or -1 where it is left out, where it begins in `data`, where it ends, and how many
            words it is; shape (4, spans).
    """

    data: ByteArray
    table: IntArray


def word(item: bytes) -> bytes:
    """Bytes as a word."""
    return b"$%d\r\n%b\r\n" % (len(item), item)


def runs_of(rows: Iterable[Sequence[bytes]]) -> Runs:
    """Words given row by row."""
    items = list(rows)
    return packed_runs([b"".join(map(word, row)) for row in items], [len(row) for row in items])


def packed_runs(rows: Sequence[bytes], counts: Sequence[int]) -> Runs:
    """Runs that are words already, and how many words each has."""
    data, at = side_by_side(rows)
    return Runs(data, at[:-1], at[1:], np.array(counts, dtype=np.int64))


def flat(parts: Iterable[bytes]) -> ByteArray:
    """Bytes one after another, as an array."""
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def side_by_side(items: Sequence[bytes]) -> tuple[ByteArray, IntArray]:
    """Bytes one after another, and where each begins; one more at the end."""
    ends = itertools.accumulate(map(len, items), initial=0)
    return flat(items), np.fromiter(ends, dtype=np.int64, count=len(items) + 1)


def joined(parts: Sequence[Runs], rows: int) -> Runs:
    """For each row its runs of all parts, one after another."""
    kept = [part for part in parts if part.sizes.any()]
    if len(kept) == 1:
        return kept[0]
    sizes = np.zeros(rows, dtype=np.int64)
    first, stop = np.empty((2, rows, len(kept)), dtype=np.int64)
    base = 0
    for number, part in enumerate(kept):
        sizes += part.sizes
        first[:, number], stop[:, number] = part.first, part.stop
        if base:
            first[:, number] += base
            stop[:, number] += base
        base += len(part.data)
    data = np.concatenate([part.data for part in kept]) if kept else np.empty(0, dtype=np.uint8)
    return Runs(*join_spans(data, first, stop), sizes)


def join_spans(data: ByteArray, first: IntArray, stop: IntArray) -> tuple[ByteArray, IntArray, IntArray]:
    """Spans of bytes, shape (rows, spans), those of each row one after another.

    Returns:
        The bytes, and where each row's begin and end.
    """
    out = np.empty(int((stop - first).sum()), dtype=np.uint8)
    at = np.empty(len(first) + 1, dtype=np.int64)
    join_runs(data, first, stop, out, at)
    return out, at[:-1], at[1:]
