"""Hashes as `DUMP` gives them: the server copies a compact hash in one piece where HGETALL writes string by string.

A dump is a type, the hash, a version and a checksum (Redis 7.0's and Valkey's `rdb.h`). Two types are read: 16, a
listpack in one string, and 4, strings in turn. Whatever else one may hold (numbers in place of their text, compressed
strings, fields that expire) is left to HGETALL.
"""

from __future__ import annotations

from typing import Final

from numba import int64, njit, types

from online.kernels import END, FIRST, FLAGS, KIND, START, STOP
from online.memory import byte_at, half_at

_BULK, _NULL, _MAP = 36, 95, 37
_STRINGS, _LISTPACK = 4, 16
_TRAILER_BYTES: Final = 10
_HEADER_BYTES: Final = 6
_LISTPACK_END = 0xFF

MOST_STRINGS: Final = 1 << 22
"""Dumps of one pipeline that hold more are not read: a byte may be a string, and takes sixteen in the table."""
NO_ROOM: Final = -1
"""The table of strings is full."""
ODD: Final = -1
"""What is dumped is nothing that is read here."""

_table = int64[:, ::1]
_span = types.UniTuple(int64, 2)


@njit([_span(int64, int64)], **FLAGS)
def length_at(at, stop):  # type: ignore[no-untyped-def]
    """Read a length; returns it and the place behind it, -1 where it is none or stands for something else."""
    if at >= stop:
        return 0, -1
    first = byte_at(at)
    low = first & 63
    if first < 0x40:
        return low, at + 1
    if first < 0x80 and at + 2 <= stop:
        return low << 8 | byte_at(at + 1), at + 2
    if first == 0x80 and at + 5 <= stop:
        size = byte_at(at + 1) << 24 | byte_at(at + 2) << 16 | byte_at(at + 3) << 8 | byte_at(at + 4)
        return size, at + 5
    return 0, -1


@njit([_span(int64, int64)], **FLAGS)
def entry_at(at, stop):  # type: ignore[no-untyped-def]
    """Read the head of a string in a listpack; returns its length and where it starts, -1 for anything else."""
    first = byte_at(at)
    if first & 0xC0 == 0x80:
        return first & 63, at + 1
    if first & 0xF0 == 0xE0 and at + 2 <= stop:
        return (first & 15) << 8 | byte_at(at + 1), at + 2
    if first == 0xF0 and at + 5 <= stop:
        return half_at(at + 1), at + 5
    return 0, -1


@njit([int64(int64)], **FLAGS)
def back_length_size(size):  # type: ignore[no-untyped-def]
    """Bytes behind an entry of a listpack that say how long it is."""
    if size <= 127:
        return 1
    if size < 16_383:
        return 2
    if size < 2_097_151:
        return 3
    return 4 if size < 268_435_455 else 5


@njit([int64(int64, int64, _table, int64, int64)], **FLAGS)
def listpack_strings(at, stop, leaves, leaf, base):  # type: ignore[no-untyped-def]
    """Frame the strings of a listpack; returns the leaf behind the last, or `ODD`; stops at a full table."""
    if stop - at <= _HEADER_BYTES or half_at(at) != stop - at or byte_at(stop - 1) != _LISTPACK_END:
        return ODD
    last = stop - 1
    at += _HEADER_BYTES
    while at < last and leaf < leaves.shape[0]:
        length, start = entry_at(at, last)
        if start < 0:
            return ODD
        behind = start + length
        behind += back_length_size(behind - at)
        if behind > last:
            return ODD
        leaves[leaf, 0] = start - base
        leaves[leaf, 1] = length
        leaf += 1
        at = behind
    return leaf


@njit([int64(int64, int64, _table, int64, int64)], **FLAGS)
def plain_strings(at, stop, leaves, leaf, base):  # type: ignore[no-untyped-def]
    """Frame pairs of strings that follow their number; returns as `listpack_strings`."""
    pairs, at = length_at(at, stop)
    if at < 0:
        return ODD
    missing = 2 * pairs
    while missing > 0 and leaf < leaves.shape[0]:
        length, start = length_at(at, stop)
        if start < 0 or start + length > stop:
            return ODD
        leaves[leaf, 0] = start - base
        leaves[leaf, 1] = length
        leaf += 1
        missing -= 1
        at = start + length
    return ODD if missing == 0 and at != stop else leaf


@njit([int64(int64, int64, _table, int64, int64)], **FLAGS)
def hash_strings(at, stop, leaves, leaf, base):  # type: ignore[no-untyped-def]
    """Frame fields and values of a dumped hash; returns as `listpack_strings`."""
    stop -= _TRAILER_BYTES
    if stop <= at:
        return ODD
    kind = byte_at(at)
    if kind == _STRINGS:
        return plain_strings(at + 1, stop, leaves, leaf, base)
    if kind == _LISTPACK:
        length, start = length_at(at + 1, stop)
        if start >= 0 and start + length == stop:
            return listpack_strings(start, stop, leaves, leaf, base)
    return ODD


@njit([_span(types.Array(types.uint8, 1, "C"), _table, _table, _table, _table)], **FLAGS)
def unpack(data, leaves, replies, out_leaves, out_replies):  # type: ignore[no-untyped-def]
    """Copy replies as if each dumped hash had come by HGETALL, and no hash as an empty one.

    Args:
        data: The bytes that the replies were framed in.
        leaves: Their strings.
        replies: Some replies in order, see `online.kernels.KIND`.
        out_leaves: Output: the strings, counted from the first reply's first byte.
        out_replies: Output, as long as `replies`: likewise, and from its first string.

    Returns:
        How many strings there are, or `NO_ROOM`; and how many dumps are odd: those stay the one string they are. One
        for which `MOST_STRINGS` are no room is odd, too.
    """
    origin = replies[0, START]
    address = int64(data.ctypes.data)
    base = address + origin
    leaf, odd = 0, 0
    for row in range(replies.shape[0]):
        kind, first, stop = replies[row, KIND], replies[row, FIRST], replies[row, STOP]
        out_replies[row, FIRST] = leaf
        out_replies[row, START] = replies[row, START] - origin
        out_replies[row, END] = replies[row, END] - origin
        behind = ODD
        if kind in (_BULK, _NULL):
            length = leaves[first, 1]
            at = address + leaves[first, 0]
            behind = hash_strings(at, at + length, out_leaves, leaf, base) if length >= 0 else leaf
            if behind >= out_leaves.shape[0]:
                if out_leaves.shape[0] < MOST_STRINGS:
                    return NO_ROOM, 0
                behind = ODD
            if (behind - leaf) % 2:
                behind = ODD
        if behind != ODD:
            kind = _MAP
        else:
            odd += kind == _BULK
            behind = leaf + stop - first
            for i in range(first, min(stop, first + out_leaves.shape[0] - leaf)):
                out_leaves[leaf + i - first, 0] = leaves[i, 0] - origin
                out_leaves[leaf + i - first, 1] = leaves[i, 1]
        if behind >= out_leaves.shape[0]:
            return NO_ROOM, 0
        leaf = behind
        out_replies[row, KIND] = kind
        out_replies[row, STOP] = leaf
    return leaf, odd
