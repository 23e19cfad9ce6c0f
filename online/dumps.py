"""Hashes as `DUMP` gives them: the server copies a compact hash in one piece where HGETALL writes string by string.

A dump is a type, the hash, a version and a checksum (Redis 7.0's and Valkey's `rdb.h`). Two types are read: 16, a
listpack in one string, and 4, strings in turn. Whatever else one may hold (numbers in place of their text, compressed
strings, fields that expire) is left to HGETALL.

The strings of a dump are never put into a table, which would be larger than the dump: `check` sees to it that all are
there, and whoever reads them goes from one to the next by `string_at`.
"""

from __future__ import annotations

from typing import Final

from numba import int64, njit, types

from online.kernels import FIRST, FLAGS, KIND
from online.memory import byte_at, half_at

STRINGS, LISTPACK = 4, 16
"""Kinds of replies (see `online.kernels.KIND`) beside those of RESP: hashes whose one leaf spans their strings."""
_BULK, _NULL = 36, 95
_TRAILER_BYTES: Final = 10
_HEADER_BYTES: Final = 6
_LISTPACK_END = 0xFF

_table = int64[:, ::1]
_pair = types.UniTuple(int64, 2)
_triple = types.UniTuple(int64, 3)


@njit([_pair(int64, int64)], **FLAGS)
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


@njit([_pair(int64, int64)], **FLAGS)
def entry_at(at, stop):  # type: ignore[no-untyped-def]
    """Read the head of a longer string in a listpack; returns its length and where it starts, -1 for anything else."""
    first = byte_at(at)
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


@njit([_triple(int64, int64, int64)], inline="always", **FLAGS)
def string_at(kind, at, stop):  # type: ignore[no-untyped-def]
    """Read the string that begins before `stop`; returns where its bytes start, how many, and the place behind it.

    That is -1 where no string is, or not all of it.
    """
    if kind == LISTPACK:
        first = byte_at(at)
        if first & 0xC0 == 0x80:
            # Nearly all are shorter than 64 bytes.
            length, start = first & 63, at + 1
            behind = start + length + 1
            return start, length, behind if behind <= stop else -1
        length, start = entry_at(at, stop)
        behind = start + length
        behind += back_length_size(behind - at)
    else:
        length, start = length_at(at, stop)
        behind = start + length
    return start, length, behind if start >= 0 and behind <= stop else -1


@njit([_triple(int64, int64)], **FLAGS)
def strings_of(at, stop):  # type: ignore[no-untyped-def]
    """Find the strings of a dumped hash; returns its kind, 0 where it is none that is read, and where they lie."""
    stop -= _TRAILER_BYTES
    if stop <= at:
        return 0, 0, 0
    kind = byte_at(at)
    wanted = -1
    if kind == STRINGS:
        wanted, at = length_at(at + 1, stop)
        wanted *= 2
    elif kind == LISTPACK:
        length, at = length_at(at + 1, stop)
        is_whole = at >= 0 and at + length == stop and length > _HEADER_BYTES
        if not is_whole or half_at(at) != length or byte_at(stop - 1) != _LISTPACK_END:
            return 0, 0, 0
        at += _HEADER_BYTES
        stop -= 1
    else:
        return 0, 0, 0
    start, count = at, 0
    while 0 <= at < stop:
        _, _, at = string_at(kind, at, stop)
        count += 1
    if at < 0 or count % 2 or (wanted >= 0 and count != wanted):
        return 0, 0, 0
    return kind, start, stop


@njit([int64(types.Array(types.uint8, 1, "C"), _table, _table)], **FLAGS)
def check(data, leaves, replies):  # type: ignore[no-untyped-def]
    """Make dumped hashes among replies `STRINGS` or `LISTPACK`, and no hash an empty one.

    Args:
        data: The bytes of the replies.
        leaves: Their strings; that of a dump becomes the span of its own strings.
        replies: See `online.kernels.KIND`.

    Returns:
        How many dumps are odd: those stay the one string they are.
    """
    base = int64(data.ctypes.data)
    odd = 0
    for row in range(replies.shape[0]):
        kind, leaf = replies[row, KIND], replies[row, FIRST]
        if kind not in (_BULK, _NULL):
            continue
        length = leaves[leaf, 1]
        if length < 0:
            replies[row, KIND] = STRINGS
            leaves[leaf, 1] = 0
            continue
        at = base + leaves[leaf, 0]
        found, start, stop = strings_of(at, at + length)
        if found:
            replies[row, KIND] = found
            leaves[leaf, 0] = start - base
            leaves[leaf, 1] = stop - start
        else:
            odd += 1
    return odd
