"""The inner loops of the read path: frame RESP replies, read stored values into columns, splice them into messages.

A reply is never turned into objects. `scan` finds where each of its strings lies; `decode` reads the strings of a
hash, which are serialized `feast.types.Value`, as they stand in the received bytes. What a kernel does not know (a
string, a list, an encoding that protobuf reads but never writes) it leaves to `online.values`, which is also its
oracle.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import float32, float64, int64, njit, types, uint8, uint32, uint64, void

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

SLOT, PLACE, TYPE, VIEW = range(4)
"""Columns of a group's table of columns: field, row of the output, value type, view within the group."""
AS_STORED: Final = 0
"""In place of a value type: the cell is not decoded."""
STAMP, VIEW_PLACE, TTL_US = range(3)
"""Columns of a group's table of views: field of the timestamp, row of the output, age past which it is STALE."""

NO_KEY: Final = -1
UNREADABLE: Final = -2
UNANSWERED: Final = -3
"""Stand for a reply: a row without its join key, a key that holds no hash, no answer."""

_PRESENT, _NULL, _NOT_FOUND, _STALE, _TIMEOUT = 1, 2, 3, 4, 5
_BYTES, _STRING, _INT32, _INT64, _DOUBLE, _FLOAT, _BOOL, _UNIX_TIMESTAMP = range(1, 9)
_US = 1_000_000
_MOST_SECONDS = 9_223_372_036_854

_CR, _LF, _MINUS, _ZERO, _NINE = 13, 10, 45, 48, 57
_ARRAY, _MAP, _SET, _PUSH = 42, 37, 126, 62
_BULK, _VERBATIM, _BULK_ERROR, _NULL_KIND, _ERROR = 36, 61, 33, 95, 45
_STRING_LINE, _INTEGER, _DOUBLE_LINE, _BOOLEAN, _BIG_NUMBER = 43, 58, 44, 35, 40
_PLUS, _POINT, _E, _TRUE, _FALSE = 43, 46, 101, 116, 102
_INF, _NAN = (105, 110, 102), (110, 97, 110)

_data = types.Array(uint8, 1, "C")
_vector = int64[::1]
_table = int64[:, ::1]
_FLAGS: Final = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit([int64(_data, int64, int64)], **_FLAGS)
def line_end(data, at, stop):  # type: ignore[no-untyped-def]
    """Return the place of the CR that ends a line, -1 where it has not come yet, -2 where CR or LF stands alone."""
    for i in range(at, stop):
        if data[i] == _LF:
            return -2
        if data[i] == _CR:
            if i + 1 == stop:
                return -1
            return i if data[i + 1] == _LF else -2
    return -1


@njit([int64(_data, int64, int64)], **_FLAGS)
def length_of(data, at, stop):  # type: ignore[no-untyped-def]
    """Read the length in a header: -1 for null, -2 where it is none."""
    if stop - at == 2 and data[at] == _MINUS and data[at + 1] == _ZERO + 1:
        return -1
    if not 0 < stop - at <= 10:
        return -2
    number = 0
    for i in range(at, stop):
        if not _ZERO <= data[i] <= _NINE:
            return -2
        number = number * 10 + (data[i] - _ZERO)
    return number if number <= MAX_BULK_BYTES else -2


@njit([int64(_data, int64, int64)], **_FLAGS)
def digits_end(data, at, stop):  # type: ignore[no-untyped-def]
    """Return the place behind the digits that start at `at`."""
    while at < stop and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@njit([types.boolean(_data, int64, int64)], **_FLAGS)
def is_integer(data, at, stop):  # type: ignore[no-untyped-def]
    """Tell whether a line is an int64 in decimal, without needless zeros."""
    start = at + 1 if at < stop and data[at] == _MINUS else at
    if start == stop or stop - start > 19 or digits_end(data, start, stop) != stop:
        return False
    if data[start] == _ZERO:
        return stop - at == 1
    size = uint64(0)
    for i in range(start, stop):
        size = size * uint64(10) + uint64(data[i] - _ZERO)
    return size <= uint64(9_223_372_036_854_775_807) + uint64(start - at)


@njit([types.boolean(_data, int64, int64)], **_FLAGS)
def is_double(data, at, stop):  # type: ignore[no-untyped-def]
    """Tell whether a line is `inf`, `nan` or a decimal number with digits before its point."""
    start = at + 1 if at < stop and data[at] == _MINUS else at
    if stop - start == 3:
        word = (data[start], data[start + 1], data[start + 2])
        if word in (_INF, _NAN):
            return True
    end = digits_end(data, start, stop)
    if end == start or end - start > 300:
        return False
    if end < stop and data[end] == _POINT:
        end = digits_end(data, end + 1, stop)
    if end < stop and data[end] == _E:
        sign = end + 1
        if sign < stop and (data[sign] == _MINUS or data[sign] == _PLUS):
            sign += 1
        end = digits_end(data, sign, stop)
        return 0 < end - sign <= 2 and end == stop
    return end == stop


@njit([types.boolean(int64, _data, int64, int64)], **_FLAGS)
def is_line(kind, data, at, stop):  # type: ignore[no-untyped-def]
    """Tell whether a line may stand behind a type byte that needs nothing more."""
    if kind in (_STRING_LINE, _ERROR):
        return True
    if kind == _INTEGER:
        return is_integer(data, at, stop)
    if kind == _NULL_KIND:
        return at == stop
    if kind == _BOOLEAN:
        return stop - at == 1 and (data[at] == _TRUE or data[at] == _FALSE)
    if kind == _DOUBLE_LINE:
        return is_double(data, at, stop)
    if kind == _BIG_NUMBER:
        start = at + 1 if at < stop and data[at] == _MINUS else at
        return start < stop and digits_end(data, start, stop) == stop
    return False


@njit([int64(_data, int64, _vector, _table, _table)], **_FLAGS)
def scan(data, stop, state, leaves, replies):  # type: ignore[no-untyped-def]
    """Frame the replies in `data[:stop]` from where the state stands; returns why it stopped.

    Whole replies are rows of `replies` (see `KIND`), pushes among them; their strings, numbers and nulls are rows
    (start, length) of `leaves`, of length -1 for null.
    """
    while True:
        at = state[POSITION]
        if at >= stop:
            return MORE
        if state[DEPTH] == 0 and state[REPLIES] == replies.shape[0]:
            return REPLIES_FULL
        if state[LEAVES] == leaves.shape[0]:
            return LEAVES_FULL
        kind = int64(data[at])
        end = line_end(data, at + 1, stop)
        if end < 0:
            return MALFORMED if end == -2 or stop - at > MAX_LINE_BYTES else MORE
        behind = end + 2
        count = int64(0)
        start = at + 1
        length = int64(-1)
        is_leaf = True
        if kind in (_BULK, _VERBATIM, _BULK_ERROR):
            length = length_of(data, at + 1, end)
            if length < -1:
                return MALFORMED
            if length >= 0:
                start = behind
                behind = start + length + 2
                if behind > stop:
                    return MORE
                if data[behind - 2] != _CR or data[behind - 1] != _LF:
                    return MALFORMED
        elif kind in (_ARRAY, _SET, _PUSH, _MAP):
            count = length_of(data, at + 1, end)
            if count < -1:
                return MALFORMED
            is_leaf = count < 0
            if kind == _MAP:
                count *= 2
        elif not is_line(kind, data, start, end):
            return MALFORMED
        elif kind != _NULL_KIND:
            length = end - start
        if state[DEPTH] == 0:
            row = state[REPLIES]
            replies[row, KIND] = kind
            replies[row, FIRST] = state[LEAVES]
            replies[row, START] = at
        if is_leaf:
            leaves[state[LEAVES], 0] = start
            leaves[state[LEAVES], 1] = length
            state[LEAVES] += 1
        state[POSITION] = behind
        if not is_leaf and count > 0:
            if state[DEPTH] == MAX_DEPTH:
                return MALFORMED
            state[STACK + state[DEPTH]] = count
            state[DEPTH] += 1
            continue
        while state[DEPTH] > 0:
            top = STACK + state[DEPTH] - 1
            state[top] -= 1
            if state[top] > 0:
                break
            state[DEPTH] -= 1
        if state[DEPTH] == 0:
            row = state[REPLIES]
            replies[row, STOP] = state[LEAVES]
            replies[row, END] = behind
            state[ERRORS] += replies[row, KIND] in (_ERROR, _BULK_ERROR)
            state[PUSHES] += replies[row, KIND] == _PUSH
            state[REPLIES] += 1


@njit([int64(_data, int64, int64, _vector)], **_FLAGS)
def varint(data, at, stop, out):  # type: ignore[no-untyped-def]
    """Read an unsigned varint into `out[0]`, cut to 64 bits; returns the place behind it, -1 where there is none."""
    value = uint64(0)
    shift = uint64(0)
    for i in range(at, min(stop, at + 10)):
        byte = uint64(data[i])
        value |= (byte & uint64(127)) << shift
        if byte < uint64(128):
            out[0] = int64(value)
            return i + 1
        shift += uint64(7)
    return -1


@njit([int64(int64)], **_FLAGS)
def signed32(number):  # type: ignore[no-untyped-def]
    """Read the low 32 bits as two's complement."""
    low = number & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


@njit([uint64(_data, int64, int64)], **_FLAGS)
def fixed(data, at, width):  # type: ignore[no-untyped-def]
    """Read a little-endian number."""
    value = uint64(0)
    for i in range(width):
        value |= uint64(data[at + i]) << uint64(8 * i)
    return value


@njit([types.boolean(_data, int64, int64, int64, _vector)], **_FLAGS)
def number_of(data, at, stop, value_type, out):  # type: ignore[no-untyped-def]
    """Read a number in the one encoding that protobuf writes into `out[0]` as a word; False for anything else."""
    tag = data[at]
    size = stop - at
    if value_type in (_DOUBLE, _FLOAT):
        if tag == 0x29 and size == 9 and value_type == _DOUBLE:
            out[0] = int64(fixed(data, at + 1, 8))
            return True
        if tag == 0x35 and size == 5:
            bits = np.empty(1, uint32)
            bits[0] = uint32(fixed(data, at + 1, 4))
            wide = np.empty(1, float64)
            wide[0] = float64(bits.view(float32)[0])
            out[0] = wide.view(int64)[0]
            return True
        return False
    if value_type == _BOOL:
        out[0] = data[at + 1] if size == 2 else 2
        return tag == 0x38 and size == 2 and data[at + 1] < 2
    narrow = tag == 0x18 and (value_type in (_INT32, _INT64))
    wide_int = tag == 0x20 and value_type == _INT64
    instant = tag == 0x40 and value_type == _UNIX_TIMESTAMP
    if not (narrow or wide_int or instant) or varint(data, at + 1, stop, out) != stop:
        return False
    if narrow:
        out[0] = signed32(out[0])
    elif instant:
        if not -_MOST_SECONDS < out[0] < _MOST_SECONDS:
            return False
        out[0] *= _US
    return True


@njit([types.boolean(_data, int64, int64, _vector)], **_FLAGS)
def stamp_of(data, at, stop, out):  # type: ignore[no-untyped-def]
    """Read a `google.protobuf.Timestamp` into `out[0]` as microseconds; False for what protobuf would not write."""
    seconds = int64(0)
    nanos = int64(0)
    while at < stop:
        tag = data[at]
        if tag not in {8, 16}:
            return False
        at = varint(data, at + 1, stop, out)
        if at < 0:
            return False
        if tag == 0x08:
            seconds = out[0]
        else:
            nanos = signed32(out[0])
    if not -_MOST_SECONDS < seconds < _MOST_SECONDS:
        return False
    out[0] = seconds * _US + nanos // 1_000
    return True


@njit([int64(_data, int64, int64)], **_FLAGS)
def field_hash(data, at, stop):  # type: ignore[no-untyped-def]
    """FNV-1a over the bytes of a hash field, not negative."""
    value = uint64(0xCBF29CE484222325)
    for i in range(at, stop):
        value = (value ^ uint64(data[i])) * uint64(0x100000001B3)
    return int64(value >> uint64(1))


@njit([int64(_data, _data, _vector, int64, int64)], **_FLAGS)
def same_field(data, fields, bounds, slot, start):  # type: ignore[no-untyped-def]
    """Return 1 where the bytes at `start` are those of a known field; their number has been compared."""
    for i in range(bounds[slot + 1] - bounds[slot]):
        if fields[bounds[slot] + i] != data[start + i]:
            return 0
    return 1


@njit([int64(_data, int64, int64, _data, _vector, _vector)], **_FLAGS)
def slot_of_field(data, start, length, fields, bounds, table):  # type: ignore[no-untyped-def]
    """Look a hash field up; -1 where the plan does not ask for it. `table` is open addressing, a power of two."""
    mask = table.shape[0] - 1
    place = field_hash(data, start, start + length) & mask
    while table[place] >= 0:
        slot = table[place]
        if bounds[slot + 1] - bounds[slot] == length and same_field(data, fields, bounds, slot, start):
            return slot
        place = (place + 1) & mask
    return -1


@njit([void(_data, _table, int64, int64, _data, _vector, _vector, _vector)], **_FLAGS)
def locate(data, leaves, first, stop, fields, bounds, table, found):  # type: ignore[no-untyped-def]
    """Find each slot's leaf among the fields and values of a whole hash; -1 where it is absent."""
    found[:] = -1
    for leaf in range(first, stop - 1, 2):
        if leaves[leaf, 1] >= 0:
            slot = slot_of_field(data, leaves[leaf, 0], leaves[leaf, 1], fields, bounds, table)
            if slot >= 0:
                found[slot] = leaf + 1


@njit(
    [
        types.UniTuple(int64, 2)(
            _data, _table, _table, _vector, types.boolean, _data, _vector, _vector, _table, _table, int64,
            _table, uint8[:, ::1], _table, _table, _table, _table,
        )
    ],
    **_FLAGS,
)  # fmt: skip
def decode(  # type: ignore[no-untyped-def]
    data, leaves, replies, rows, whole, fields, bounds, table, columns, views, now_us,
    words, statuses, event_us, starts, lengths, slow,
):  # fmt: skip
    """Read the cells of one group of a plan; returns (cells left to Python, cells and timestamps malformed).

    Args:
        data: Bytes of the replies.
        leaves: Where their strings lie, as `scan` left them.
        replies: The replies, likewise.
        rows: Each row's reply, or `NO_KEY`, `UNREADABLE` or `UNANSWERED`.
        whole: The replies are whole hashes (HGETALL), not the plan's fields in order (HMGET).
        fields: The plan's hash fields, one behind the other.
        bounds: Where each field starts, and where the last one ends.
        table: Slots by `field_hash`.
        columns: The group's columns, see `SLOT`.
        views: The group's views, see `STAMP`.
        now_us: What ages are measured against.
        words: Output [columns, rows].
        statuses: Output [columns, rows].
        event_us: Output [views, rows].
        starts: Output [columns, rows]: where a cell's bytes start.
        lengths: Output [columns, rows]: how many there are; -1 where nothing is stored.
        slow: Output: (column, row, start, length) of a cell, or of a timestamp with -1 - view, that Python has to read.
    """
    slots = bounds.shape[0] - 1
    found = np.empty(slots, int64)
    out = np.zeros(1, int64)
    slow_count = 0
    malformed = 0
    for r in range(rows.shape[0]):
        reply = rows[r]
        if reply >= 0:
            kind = replies[reply, KIND]
            first, stop = replies[reply, FIRST], replies[reply, STOP]
            if kind in (_ARRAY, _MAP) and whole and (stop - first) % 2 == 0:
                locate(data, leaves, first, stop, fields, bounds, table, found)
            elif kind == _ARRAY and not whole and stop - first == slots:
                for slot in range(slots):
                    found[slot] = first + slot
            else:
                reply = UNREADABLE
        if reply < 0:
            found[:] = -1
            malformed += columns.shape[0] if reply == UNREADABLE else 0
        for v in range(views.shape[0]):
            leaf = found[views[v, STAMP]]
            stamp = int64(0)
            if leaf >= 0 and leaves[leaf, 1] > 0:
                at = leaves[leaf, 0]
                if stamp_of(data, at, at + leaves[leaf, 1], out):
                    stamp = out[0]
                else:
                    slow[slow_count, 0] = -1 - v
                    slow[slow_count, 1] = r
                    slow[slow_count, 2] = at
                    slow[slow_count, 3] = leaves[leaf, 1]
                    slow_count += 1
            event_us[views[v, VIEW_PLACE], r] = stamp
        for c in range(columns.shape[0]):
            place = columns[c, PLACE]
            leaf = found[columns[c, SLOT]]
            length = leaves[leaf, 1] if leaf >= 0 else int64(-1)
            at = leaves[leaf, 0] if length >= 0 else int64(0)
            words[place, r] = 0
            starts[place, r] = at
            lengths[place, r] = length
            if length <= 0:
                absent = _TIMEOUT if reply == UNANSWERED else _NOT_FOUND
                statuses[place, r] = _NULL if length == 0 else absent
                continue
            v = columns[c, VIEW]
            ttl_us = views[v, TTL_US]
            expired = ttl_us > 0 and event_us[views[v, VIEW_PLACE], r] < now_us - ttl_us
            statuses[place, r] = _STALE if expired else _PRESENT
            if columns[c, TYPE] == AS_STORED:
                continue
            if number_of(data, at, at + length, columns[c, TYPE], out):
                words[place, r] = out[0]
            else:
                slow[slow_count, 0] = c
                slow[slow_count, 1] = r
                slow[slow_count, 2] = at
                slow[slow_count, 3] = length
                slow_count += 1
    return slow_count, malformed


@njit([int64(uint8[::1], int64, uint64)], **_FLAGS)
def put_varint(out, at, value):  # type: ignore[no-untyped-def]
    """Write an unsigned varint; returns the place behind it."""
    while value > uint64(127):
        out[at] = uint8((value & uint64(127)) | uint64(128))
        value >>= uint64(7)
        at += 1
    out[at] = uint8(value)
    return at + 1


@njit([int64(uint64)], **_FLAGS)
def varint_size(value):  # type: ignore[no-untyped-def]
    """Bytes that `put_varint` writes."""
    size = 1
    while value > uint64(127):
        value >>= uint64(7)
        size += 1
    return size


@njit([int64(int64)], **_FLAGS)
def stamp_size(event_us):  # type: ignore[no-untyped-def]
    """Bytes of a `Timestamp`."""
    seconds = event_us // _US
    nanos = (event_us - seconds * _US) * 1_000
    size = 1 + varint_size(uint64(seconds)) if seconds else 0
    return size + 1 + varint_size(uint64(nanos)) if nanos else size


@njit([int64(uint8[::1], int64, int64)], **_FLAGS)
def put_stamp(out, at, event_us):  # type: ignore[no-untyped-def]
    """Write a `Timestamp`; returns the place behind it."""
    seconds = event_us // _US
    nanos = (event_us - seconds * _US) * 1_000
    if seconds:
        out[at] = 0x08
        at = put_varint(out, at + 1, uint64(seconds))
    if nanos:
        out[at] = 0x10
        at = put_varint(out, at + 1, uint64(nanos))
    return at


@njit([int64(uint8[:, ::1], _table, _table, uint8[::1], int64, int64)], **_FLAGS)
def vector_size(statuses, event_us, lengths, carries, c, v):  # type: ignore[no-untyped-def]
    """Bytes of one column's `FeatureVector`, its tag and length left out."""
    count = statuses.shape[1]
    size = 1 + varint_size(uint64(count)) + count if count else 0
    for r in range(count):
        length = lengths[c, r] if carries[statuses[c, r]] and lengths[c, r] > 0 else 0
        size += 1 + varint_size(uint64(length)) + length
        stamp = stamp_size(event_us[v, r])
        size += 1 + varint_size(uint64(stamp)) + stamp
    return size


@njit(
    [
        types.Array(uint8, 1, "C")(
            _data, uint8[:, ::1], _table, _table, _table, _vector, uint8[::1], uint8[::1]
        )
    ],
    **_FLAGS,
)
def splice(data, statuses, event_us, starts, lengths, view_of, codes, carries):  # type: ignore[no-untyped-def]
    """Write every column as a `FeatureVector results = 2` of Feast's `GetOnlineFeaturesResponse`.

    Values are copied as they are stored. Each vector has `values = 1`, `statuses = 2` (packed) and
    `event_timestamps = 3`.
    """
    columns, count = statuses.shape
    total = 0
    sizes = np.empty(columns, int64)
    for c in range(columns):
        sizes[c] = vector_size(statuses, event_us, lengths, carries, c, view_of[c])
        total += 1 + varint_size(uint64(sizes[c])) + sizes[c]
    out = np.empty(total, uint8)
    at = 0
    for c in range(columns):
        out[at] = 0x12
        at = put_varint(out, at + 1, uint64(sizes[c]))
        for r in range(count):
            length = lengths[c, r] if carries[statuses[c, r]] and lengths[c, r] > 0 else 0
            out[at] = 0x0A
            at = put_varint(out, at + 1, uint64(length))
            start = starts[c, r]
            for i in range(length):
                out[at + i] = data[start + i]
            at += length
        if count:
            out[at] = 0x12
            at = put_varint(out, at + 1, uint64(count))
            for r in range(count):
                out[at + r] = codes[statuses[c, r]]
            at += count
        for r in range(count):
            stamp = event_us[view_of[c], r]
            out[at] = 0x1A
            at = put_varint(out, at + 1, uint64(stamp_size(stamp)))
            at = put_stamp(out, at, stamp)
    return out
