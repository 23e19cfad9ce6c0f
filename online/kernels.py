"""The inner loops of the read path: frame RESP replies, and read single values as they stand in the received bytes.

A reply is never turned into objects. `scan` finds where each of its strings lies; `online.column_kernels` makes columns
and messages of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import float32, float64, int64, njit, types, uint8, uint32, uint64

from online.memory import byte_at, half_at, word_at

MAX_DEPTH: Final = 8
"""Deepest nesting of a reply; the store's own replies to reads have one level."""
MAX_LINE_BYTES: Final = 1 << 16
MAX_BULK_BYTES: Final = 1 << 29

# Fields of the scanner's state; behind them the elements that are missing at each depth.
POSITION, LEAVES, REPLIES, ERRORS, PUSHES, DEPTH, STACK = range(7)
STATE_SIZE: Final = STACK + MAX_DEPTH

MORE, LEAVES_FULL, REPLIES_FULL, MALFORMED = range(4)
"""What ends a scan: the bytes, a full table, or bytes that are not RESP."""

KIND, FIRST, STOP, START, END = range(5)
"""Columns of the table of replies: type byte, first leaf, leaf behind the last, first byte, byte behind the last."""

_BYTES, _STRING, _INT32, _INT64, _DOUBLE, _FLOAT, _BOOL, _UNIX_TIMESTAMP = range(1, 9)
_US = 1_000_000
_MOST_SECONDS = 9_223_372_036_854
_NULL_SECONDS = -(2**63)
_HIGH_BITS: Final = -0x7F7F7F7F7F7F7F80
"""The highest bit of each of eight bytes, as an int64."""

_CR, _LF, _MINUS, _ZERO, _NINE = 13, 10, 45, 48, 57
_ARRAY, _MAP, _SET, _PUSH = 42, 37, 126, 62
_BULK, _VERBATIM, _BULK_ERROR, _NULL_KIND, _ERROR = 36, 61, 33, 95, 45
_STRING_LINE, _INTEGER, _DOUBLE_LINE, _BOOLEAN, _BIG_NUMBER = 43, 58, 44, 35, 40
_PLUS, _POINT, _E, _TRUE, _FALSE = 43, 46, 101, 116, 102
_INF, _NAN = (105, 110, 102), (110, 97, 110)

_data = types.Array(uint8, 1, "C")
_vector = int64[::1]
_table = int64[:, ::1]
_pair = types.UniTuple(int64, 2)
FLAGS: Final = {"cache": True, "nogil": True, "error_model": "numpy"}


# Helpers: numbers in, numbers out, see `online.memory`


@njit([int64(int64, int64)], **FLAGS)
def line_end(at, stop):  # type: ignore[no-untyped-def]
    """Return the place of the CR that ends a line, -1 where it has not come yet, -2 where CR or LF stands alone."""
    while at < stop:
        byte = byte_at(at)
        if byte == _LF:
            return -2
        if byte == _CR:
            if at + 1 == stop:
                return -1
            return at if byte_at(at + 1) == _LF else -2
        at += 1
    return -1


@njit([int64(int64, int64)], **FLAGS)
def length_of(at, stop):  # type: ignore[no-untyped-def]
    """Read the length in a header: -1 for null, -2 where it is none."""
    if stop - at == 2 and byte_at(at) == _MINUS and byte_at(at + 1) == _ZERO + 1:
        return -1
    if not 0 < stop - at <= 10:
        return -2
    number = 0
    while at < stop:
        digit = byte_at(at) - _ZERO
        if not 0 <= digit <= 9:
            return -2
        number = number * 10 + digit
        at += 1
    return number if number <= MAX_BULK_BYTES else -2


@njit([int64(int64, int64)], **FLAGS)
def digits_end(at, stop):  # type: ignore[no-untyped-def]
    """Return the place behind the digits that start at `at`."""
    while at < stop and _ZERO <= byte_at(at) <= _NINE:
        at += 1
    return at


@njit([types.boolean(int64, int64)], **FLAGS)
def is_integer(at, stop):  # type: ignore[no-untyped-def]
    """Tell whether a line is an int64 in decimal, without needless zeros."""
    start = at + 1 if at < stop and byte_at(at) == _MINUS else at
    if start == stop or stop - start > 19 or digits_end(start, stop) != stop:
        return False
    if byte_at(start) == _ZERO:
        return stop - at == 1
    size = uint64(0)
    for i in range(start, stop):
        size = size * uint64(10) + uint64(byte_at(i) - _ZERO)
    return size <= uint64(9_223_372_036_854_775_807) + uint64(start - at)


@njit([types.boolean(int64, int64)], **FLAGS)
def is_double(at, stop):  # type: ignore[no-untyped-def]
    """Tell whether a line is `inf`, `nan` or a decimal number with digits before its point."""
    start = at + 1 if at < stop and byte_at(at) == _MINUS else at
    if stop - start == 3:
        word = (byte_at(start), byte_at(start + 1), byte_at(start + 2))
        if word in (_INF, _NAN):
            return True
    end = digits_end(start, stop)
    if end == start or end - start > 300:
        return False
    if end < stop and byte_at(end) == _POINT:
        end = digits_end(end + 1, stop)
    if end < stop and byte_at(end) == _E:
        sign = end + 1
        if sign < stop and byte_at(sign) in (_MINUS, _PLUS):
            sign += 1
        end = digits_end(sign, stop)
        return 0 < end - sign <= 2 and end == stop
    return end == stop


@njit([types.boolean(int64, int64, int64)], **FLAGS)
def is_line(kind, at, stop):  # type: ignore[no-untyped-def]
    """Tell whether a line may stand behind a type byte that needs nothing more."""
    if kind in (_STRING_LINE, _ERROR):
        return True
    if kind == _INTEGER:
        return is_integer(at, stop)
    if kind == _NULL_KIND:
        return at == stop
    if kind == _BOOLEAN:
        return stop - at == 1 and byte_at(at) in (_TRUE, _FALSE)
    if kind == _DOUBLE_LINE:
        return is_double(at, stop)
    if kind == _BIG_NUMBER:
        start = at + 1 if at < stop and byte_at(at) == _MINUS else at
        return start < stop and digits_end(start, stop) == stop
    return False


@njit([_pair(int64, int64)], **FLAGS)
def varint(at, stop):  # type: ignore[no-untyped-def]
    """Read an unsigned varint, cut to 64 bits; returns it and the place behind it, -1 where there is none."""
    value = 0
    shift = 0
    end = min(stop, at + 10)
    while at < end:
        byte = byte_at(at)
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return value, -1


@njit([int64(int64)], **FLAGS)
def signed32(number):  # type: ignore[no-untyped-def]
    """Read the low 32 bits as two's complement."""
    low = number & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


@njit([int64(int64)], **FLAGS)
def widened(bits):  # type: ignore[no-untyped-def]
    """The bits of a float64 that is the float32 of these bits."""
    narrow = np.empty(1, uint32)
    narrow[0] = uint32(bits)
    wide = np.empty(1, float64)
    wide[0] = float64(narrow.view(float32)[0])
    return wide.view(int64)[0]


@njit([_pair(int64, int64, int64)], **FLAGS)
def number_of(at, stop, value_type):  # type: ignore[no-untyped-def]
    """Read a number in the one encoding that protobuf writes; returns (1, its word), or (0, 0) for anything else."""
    tag = byte_at(at)
    size = stop - at
    if value_type in (_DOUBLE, _FLOAT):
        if tag == 0x29 and size == 9 and value_type == _DOUBLE:
            return 1, word_at(at + 1)
        if tag == 0x35 and size == 5:
            return 1, widened(half_at(at + 1))
        return 0, 0
    if value_type == _BOOL:
        return (1, byte_at(at + 1)) if tag == 0x38 and size == 2 and byte_at(at + 1) < 2 else (0, 0)
    narrow = tag == 0x18 and (value_type in (_INT32, _INT64))
    wide_int = tag == 0x20 and value_type == _INT64
    instant = tag == 0x40 and value_type == _UNIX_TIMESTAMP
    if not (narrow or wide_int or instant):
        return 0, 0
    number, behind = varint(at + 1, stop)
    if behind != stop:
        return 0, 0
    if narrow:
        return 1, signed32(number)
    if not instant:
        return 1, number
    return (1, number * _US) if -_MOST_SECONDS < number < _MOST_SECONDS else (0, 0)


@njit([int64(int64, int64)], **FLAGS)
def sized_start(at, stop):  # type: ignore[no-untyped-def]
    """Where the bytes start that a tag and their number stand before, and nothing behind; -1 where that is not so."""
    size, behind = varint(at + 1, stop)
    return behind if behind >= 0 and size == stop - behind else -1


@njit([types.boolean(int64, int64)], **FLAGS)
def is_utf8(at, stop):  # type: ignore[no-untyped-def]
    """Whether bytes are text: no surrogates, nothing longer than it has to be, as protobuf and Python have it."""
    while at < stop:
        if stop - at >= 8 and word_at(at) & _HIGH_BITS == 0:
            at += 8
            continue
        first = byte_at(at)
        at += 1
        if first < 0x80:
            continue
        if not 0xC2 <= first <= 0xF4:
            return False
        more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
        if stop - at < more:
            return False
        second = byte_at(at)
        least = 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80
        most = 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF
        if not least <= second <= most:
            return False
        for i in range(1, more):
            if byte_at(at + i) & 0xC0 != 0x80:
                return False
        at += more
    return True


@njit([types.boolean(int64, int64)], **FLAGS)
def is_plain(at, stop):  # type: ignore[no-untyped-def]
    """Whether bytes are a `feast.types.Value` that holds one scalar, which any protobuf reads; False: look closer."""
    tag = byte_at(at)
    size = stop - at
    if tag == 0x29:
        return size == 9
    if tag == 0x35:
        return size == 5
    if tag in (0x0A, 0x12):
        start = sized_start(at, stop)
        # Readers differ on a length of more bytes than 32 bits need.
        return 0 <= start <= at + 6 and (tag == 0x0A or is_utf8(start, stop))
    if tag in (0x18, 0x20, 0x38, 0x40):
        _, behind = varint(at + 1, stop)
        return behind == stop and (size <= 10 or byte_at(stop - 1) == 1)
    return False


@njit([types.boolean(int64, int64)], **FLAGS)
def is_null_instant(at, stop):  # type: ignore[no-untyped-def]
    """Whether bytes are an instant that is missing, as Feast's SDK stores it."""
    return stop - at == 11 and byte_at(at) == 0x40 and varint(at + 1, stop)[0] == _NULL_SECONDS


@njit([_pair(int64, int64)], **FLAGS)
def stamp_of(at, stop):  # type: ignore[no-untyped-def]
    """Read a `google.protobuf.Timestamp`: (1, microseconds), or (0, 0) for what protobuf would not write."""
    seconds = 0
    nanos = 0
    while at < stop:
        tag = byte_at(at)
        number, at = varint(at + 1, stop)
        if tag not in {8, 16} or at < 0:
            return 0, 0
        if tag == 8:
            seconds = number
        else:
            nanos = signed32(number)
    if not -_MOST_SECONDS < seconds < _MOST_SECONDS:
        return 0, 0
    return 1, seconds * _US + nanos // 1_000


@njit([int64(int64, int64)], **FLAGS)
def hash_at(at, stop):  # type: ignore[no-untyped-def]
    """FNV-1a of some bytes, not negative."""
    value = uint64(0xCBF29CE484222325)
    while at < stop:
        value = (value ^ uint64(byte_at(at))) * uint64(0x100000001B3)
        at += 1
    return int64(value >> uint64(1))


@njit([types.boolean(int64, int64, int64)], **FLAGS)
def same_bytes(one, other, size):  # type: ignore[no-untyped-def]
    """Whether two places hold the same bytes."""
    i = 0
    while size - i >= 4 and half_at(one + i) == half_at(other + i):
        i += 4
    while i < size and byte_at(one + i) == byte_at(other + i):
        i += 1
    return i == size


# Framing


@njit([types.UniTuple(int64, 3)(int64, int64, _table, int64, int64, int64)], **FLAGS)
def strings(at, stop, leaves, leaf, missing, base):  # type: ignore[no-untyped-def]
    """Frame strings for as long as they are plain and whole, and one is left; returns (place, leaf, missing)."""
    room = leaves.shape[0]
    # A header of at most six digits is looked at without asking where the bytes end: they reach further.
    while missing > 1 and leaf < room and at + 12 <= stop and byte_at(at) == _BULK:
        i = at + 1
        length = byte_at(i) - _ZERO
        if not 0 <= length <= 9:
            break
        i += 1
        digit = byte_at(i) - _ZERO
        while 0 <= digit <= 9 and i < at + 7:
            length = length * 10 + digit
            i += 1
            digit = byte_at(i) - _ZERO
        start = i + 2
        end = start + length
        if end + 2 > stop:
            break
        if byte_at(i) != _CR or byte_at(i + 1) != _LF or byte_at(end) != _CR or byte_at(end + 1) != _LF:
            break
        leaves[leaf, 0] = start - base
        leaves[leaf, 1] = length
        leaf += 1
        missing -= 1
        at = end + 2
    return at, leaf, missing


@njit([int64(_data, int64, _vector, _table, _table)], **FLAGS)
def scan(data, stop, state, leaves, replies):  # type: ignore[no-untyped-def]
    """Frame the replies in `data[:stop]` from where the state stands; returns why it stopped.

    Whole replies are rows of `replies` (see `KIND`), pushes among them; their strings, numbers and nulls are rows
    (start, length) of `leaves`, of length -1 for null.
    """
    base = int64(data.ctypes.data)
    at, last = base + state[POSITION], base + stop
    leaf, row, depth = state[LEAVES], state[REPLIES], state[DEPTH]
    missing = state[STACK + depth - 1] if depth > 0 else 0
    outcome = MORE
    while at < last:
        if depth == 0 and row == replies.shape[0]:
            outcome = REPLIES_FULL
            break
        if leaf == leaves.shape[0]:
            outcome = LEAVES_FULL
            break
        if missing > 1:
            # Nearly all that comes are strings of an array.
            before = at
            at, leaf, missing = strings(at, last, leaves, leaf, missing, base)
            if at != before:
                continue
        kind = byte_at(at)
        end = line_end(at + 1, last)
        if end < 0:
            outcome = MALFORMED if end == -2 or last - at > MAX_LINE_BYTES else MORE
            break
        behind = end + 2
        count = 0
        start = at + 1
        length = -1
        is_leaf = True
        if kind in (_BULK, _VERBATIM, _BULK_ERROR):
            length = length_of(at + 1, end)
            if length < -1:
                outcome = MALFORMED
                break
            if length >= 0:
                start = behind
                behind = start + length + 2
                if behind > last:
                    break
                if byte_at(behind - 2) != _CR or byte_at(behind - 1) != _LF:
                    outcome = MALFORMED
                    break
        elif kind in (_ARRAY, _SET, _PUSH, _MAP):
            count = length_of(at + 1, end)
            if count < -1:
                outcome = MALFORMED
                break
            is_leaf = count < 0
            if kind == _MAP:
                count *= 2
        elif not is_line(kind, start, end):
            outcome = MALFORMED
            break
        elif kind != _NULL_KIND:
            length = end - start
        nests = not is_leaf and count > 0
        if nests and depth == MAX_DEPTH:
            outcome = MALFORMED
            break
        if depth == 0:
            replies[row, KIND] = kind
            replies[row, FIRST] = leaf
            replies[row, START] = at - base
        if is_leaf:
            leaves[leaf, 0] = start - base
            leaves[leaf, 1] = length
            leaf += 1
        at = behind
        if nests:
            if depth > 0:
                state[STACK + depth - 1] = missing
            missing = count
            depth += 1
            continue
        while depth > 0:
            missing -= 1
            if missing > 0:
                break
            depth -= 1
            missing = state[STACK + depth - 1] if depth > 0 else 0
        if depth == 0:
            replies[row, STOP] = leaf
            replies[row, END] = at - base
            state[ERRORS] += replies[row, KIND] in (_ERROR, _BULK_ERROR)
            state[PUSHES] += replies[row, KIND] == _PUSH
            row += 1
    if depth > 0:
        state[STACK + depth - 1] = missing
    state[POSITION], state[LEAVES], state[REPLIES], state[DEPTH] = at - base, leaf, row, depth
    return outcome
