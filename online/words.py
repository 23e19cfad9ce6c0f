"""Words of many commands at once: bytes in the store's protocol, cut into runs, one run for each row.

A word is `$length`, its bytes, and line ends around them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from online.keys import STATE_MARK
from online.slots import TAG_BYTES, slot_tags
from online.write_kernels import fill_crc, join_runs, put_heads, put_keys

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


_MARK = np.frombuffer(STATE_MARK, dtype=np.uint8)
_KEY_ROOM = 2 * 16 + 1 + TAG_BYTES + len(STATE_MARK)
_HEAD_ROOM = 16 + 2 * 32


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

    def spread(self, places: IntArray, size: int) -> Runs:
        """The same runs for `size` rows, run `i` being that of row `places[i]`, left out where that is -1."""
        own = places >= 0
        rows = places[own]
        first, stop, count = np.zeros((3, size), dtype=np.int64)
        first[rows], stop[rows], count[rows] = self.first[own], self.stop[own], self.sizes[own]
        return Runs(self.data, first, stop, count)


def word(item: bytes) -> bytes:
    """Bytes as a word."""
    return b"$%d\r\n%b\r\n" % (len(item), item)


def runs_of(rows: Iterable[Sequence[bytes]]) -> Runs:
    """Words given row by row."""
    items = list(rows)
    return packed_runs([b"".join(map(word, row)) for row in items], [len(row) for row in items])


def no_runs(rows: int) -> Runs:
    """No words for any row."""
    none = np.zeros(rows, dtype=np.int64)
    return Runs(np.empty(0, dtype=np.uint8), none, none, none)


def packed_runs(rows: Sequence[bytes], counts: Sequence[int]) -> Runs:
    """Runs that are words already, and how many words each has."""
    at = np.fromiter(itertools.accumulate(map(len, rows), initial=0), dtype=np.int64, count=len(rows) + 1)
    return Runs(flat(rows), at[:-1], at[1:], np.array(counts, dtype=np.int64))


def flat(parts: Iterable[bytes]) -> ByteArray:
    """Bytes one after another, as an array."""
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


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


def packed_keys(keys: Sequence[bytes]) -> tuple[ByteArray, IntArray]:
    """Entity keys, each followed by the key of its state, as words.

    Returns:
        The words, and for each entity where its first word begins, its second, and where that ends.
    """
    blob = b"".join(keys)
    key_at = np.fromiter(itertools.accumulate(map(len, keys), initial=0), dtype=np.int64, count=len(keys) + 1)
    out = np.empty(2 * len(blob) + len(keys) * _KEY_ROOM, dtype=np.uint8)
    places = np.empty((len(keys), 3), dtype=np.int64)
    tags, crcs = _slot_tables()
    length = put_keys(np.frombuffer(blob, dtype=np.uint8), key_at, tags, _MARK, crcs, out, places)
    return out[:length], places


def packed_heads(heads: ByteArray, revisions: IntArray) -> Runs:
    """Each write's head, revision and next revision as words; `heads` has shape (rows, bytes)."""
    rows, size = heads.shape
    out = np.empty(rows * (size + _HEAD_ROOM), dtype=np.uint8)
    at = np.empty(rows + 1, dtype=np.int64)
    length = put_heads(heads, revisions, out, at)
    return Runs(out[:length], at[:-1], at[1:], np.full(rows, 3, dtype=np.int64))


@cache
def _slot_tables() -> tuple[ByteArray, IntArray]:
    crcs = np.empty(256, dtype=np.int64)
    fill_crc(crcs)
    return np.frombuffer(b"".join(slot_tags()), dtype=np.uint8).reshape(-1, TAG_BYTES), crcs
