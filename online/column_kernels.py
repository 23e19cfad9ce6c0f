"""The inner loops behind the framing: hashes into columns, columns into the messages that Feast's clients read.

`decode` reads the strings of a hash, which are serialized `feast.types.Value`, as they stand in the received bytes.
What it does not know (a string, a list, an encoding that protobuf reads but never writes) it leaves to
`online.values`, which is also its oracle.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import int32, int64, njit, types, uint8, uint64

from online.dumps import LISTPACK, STRINGS, string_at
from online.kernels import (
    FIRST,
    FLAGS,
    KIND,
    STOP,
    hash_at,
    is_null_instant,
    is_plain,
    number_of,
    same_bytes,
    sized_start,
    stamp_of,
)
from online.memory import byte_at, put_byte, put_word, word_at

SLOT, PLACE, TYPE, VIEW = range(4)
"""Columns of a group's table of columns: field, row of the output, value type, view within the group."""
AS_STORED: Final = 0
"""In place of a value type: the cell is not decoded."""
STAMP, VIEW_PLACE, TTL_US = range(3)
"""Columns of a group's table of views: field of the timestamp, row of the output, age past which it is STALE."""

UNREAD: Final = -1
"""The word of a cell that is left to Python."""

MAX_STAMP_BYTES: Final = 2 + 11 + 6
"""Of an event time in a response: tag and size, seconds, nanoseconds."""

NO_KEY: Final = -1
UNREADABLE: Final = -2
UNANSWERED: Final = -3
"""Stand for a reply: a row without its join key, a key that holds no hash, no answer."""

_PRESENT, _NULL, _NOT_FOUND, _STALE, _TIMEOUT = 1, 2, 3, 4, 5
_STRING = 2
_ARRAY, _MAP = 42, 37
_US = 1_000_000
_SEEN: Final = 512
"""Texts that are known again within one call; a power of two."""
_SEEN_BYTES: Final = 64
_WORD_BYTES: Final = 8

_data = types.Array(uint8, 1, "C")
_cells = uint8[:, ::1]
_spans = int32[:, ::1]
_vector, _table = int64[::1], int64[:, ::1]


# Reading values into columns


@njit([int64(_data, int64, int64)], **FLAGS)
def field_hash(data, at, stop):  # type: ignore[no-untyped-def]
    """FNV-1a over the bytes of a hash field, not negative."""
    base = int64(data.ctypes.data)
    return hash_at(base + at, base + stop)


@njit([types.boolean(int64, int64, int64, int64, int64)], **FLAGS)
def is_field(slot, at, size, known, bounds):  # type: ignore[no-untyped-def]
    """Whether some bytes are the field of a slot; `known` and `bounds` are addresses of a group's fields."""
    start = word_at(bounds + _WORD_BYTES * slot)
    return word_at(bounds + _WORD_BYTES * (slot + 1)) - start == size and same_bytes(at, known + start, size)


@njit([int64(int64, int64, int64, int64, int64, int64)], **FLAGS)
def slot_of(at, size, known, bounds, table, mask):  # type: ignore[no-untyped-def]
    """The slot of the field that some bytes are, -1 where they are none of the plan's."""
    place = hash_at(at, at + size) & mask
    slot = word_at(table + _WORD_BYTES * place)
    while slot >= 0 and not is_field(slot, at, size, known, bounds):
        place = (place + 1) & mask
        slot = word_at(table + _WORD_BYTES * place)
    return slot


@njit(
    [
        types.UniTuple(int64, 3)(
            _data, _table, _table, _vector, types.boolean, _data, _vector, _vector, _table, _table, int64,
            _table, _cells, _table, _spans, _spans, _table, _table, int64,
        )
    ],
    **FLAGS,
)  # fmt: skip
def decode(  # type: ignore[no-untyped-def]
    data, leaves, replies, rows, whole, fields, bounds, table, columns, views, now_us,
    words, statuses, event_us, starts, lengths, slow, texts, object_count,
):  # fmt: skip
    """Read the cells of one group of a plan; returns (cells left to Python, texts, cells and timestamps malformed).

    Args:
        data: Bytes of the replies.
        leaves: Where their strings lie, as `scan` left them.
        replies: The replies, likewise; dumps as `online.dumps.check` left them.
        rows: Each row's reply, or `NO_KEY`, `UNREADABLE` or `UNANSWERED`.
        whole: The replies are whole hashes (HGETALL, DUMP), not the plan's fields in order (HMGET).
        fields: The plan's hash fields, one behind the other.
        bounds: Where each field starts, and where the last one ends.
        table: Slots by `field_hash`: open addressing, a power of two.
        columns: The group's columns, see `SLOT`.
        views: The group's views, see `STAMP`.
        now_us: What ages are measured against.
        words: Output [columns, rows]: set where a value is read; any shape where all are `AS_STORED`.
        statuses: Output [columns, rows].
        event_us: Output [views, rows].
        starts: Output [columns, rows]: where a cell's bytes start.
        lengths: Output [columns, rows]: how many there are; -1 where nothing is stored.
        slow: Output: (column, row, start, length) of a cell, or of a timestamp with -1 - view, that Python has to read;
            as stored, of a cell that is not `is_plain`, or a missing instant. What it has no room for is counted.
        texts: Output: (start, length) of texts; text i is what the word `object_count` + i stands for.
        object_count: Objects of the answer so far.
    """
    base, known = int64(data.ctypes.data), int64(fields.ctypes.data)
    bounds_at, table_at = int64(bounds.ctypes.data), int64(table.ctypes.data)
    slots, mask = bounds.shape[0] - 1, table.shape[0] - 1
    found = np.empty(slots, int64)
    sizes = np.empty(slots, int64)
    # The slot of each field of the hash before: most hashes have their fields in one order.
    order = np.full(2 * slots, -1, int64)
    carried = np.empty(views.shape[0], uint8)
    seen = np.full(_SEEN if texts.shape[0] else 1, -1, int64)
    slow_count, text_count, malformed = 0, 0, 0
    for r in range(rows.shape[0]):
        reply = rows[r]
        sizes[:] = -1
        if reply >= 0:
            kind = replies[reply, KIND]
            leaf, stop = replies[reply, FIRST], replies[reply, STOP]
            dumped = kind in (STRINGS, LISTPACK)
            if whole and (dumped or (kind in (_ARRAY, _MAP) and (stop - leaf) % 2 == 0)):
                at, behind = 0, 0
                if dumped:
                    at = base + leaves[leaf, 0]
                    behind = at + leaves[leaf, 1]
                pair = 0
                while at < behind if dumped else leaf < stop:
                    if dumped:
                        name, name_size, at = string_at(kind, at, behind)
                        value, size, at = string_at(kind, at, behind)
                    else:
                        name, name_size = base + leaves[uint64(leaf), 0], leaves[uint64(leaf), 1]
                        value, size = base + leaves[uint64(leaf + 1), 0], leaves[uint64(leaf + 1), 1]
                        leaf += 2
                    if name_size >= 0:
                        slot = order[uint64(pair)] if pair < order.shape[0] else -1
                        if slot < 0 or not is_field(slot, name, name_size, known, bounds_at):
                            slot = slot_of(name, name_size, known, bounds_at, table_at, mask)
                            if pair < order.shape[0]:
                                order[uint64(pair)] = slot
                        if slot >= 0:
                            found[uint64(slot)] = value
                            sizes[uint64(slot)] = size
                    pair += 1
            elif kind == _ARRAY and not whole and stop - leaf == slots:
                for slot in range(slots):
                    found[slot] = base + leaves[leaf + slot, 0]
                    sizes[slot] = leaves[leaf + slot, 1]
            else:
                reply = UNREADABLE
        malformed += columns.shape[0] if reply == UNREADABLE else 0
        absent = _TIMEOUT if reply == UNANSWERED else _NOT_FOUND
        for v in range(views.shape[0]):
            slot = views[v, STAMP]
            stamp = 0
            if sizes[slot] > 0:
                at = found[slot]
                read, stamp = stamp_of(at, at + sizes[slot])
                if not read:
                    if slow_count < slow.shape[0]:
                        slow[slow_count, 0] = -1 - v
                        slow[slow_count, 1] = r
                        slow[slow_count, 2] = at - base
                        slow[slow_count, 3] = sizes[slot]
                    slow_count += 1
            event_us[views[v, VIEW_PLACE], r] = stamp
            ttl_us = views[v, TTL_US]
            carried[v] = _STALE if ttl_us > 0 and stamp < now_us - ttl_us else _PRESENT
        for c in range(columns.shape[0]):
            place, slot = uint64(columns[c, PLACE]), uint64(columns[c, SLOT])
            length = sizes[slot]
            lengths[place, r] = length
            if length <= 0:
                starts[place, r] = 0
                statuses[place, r] = _NULL if length == 0 else absent
                continue
            at = found[slot]
            starts[place, r] = at - base
            statuses[place, r] = carried[uint64(columns[c, VIEW])]
            value_type = columns[c, TYPE]
            if value_type == AS_STORED:
                read = is_plain(at, at + length) and not is_null_instant(at, at + length)
            elif value_type == _STRING and byte_at(at) == 0x12 and sized_start(at, at + length) >= 0:
                read = True
                first_byte = sized_start(at, at + length)
                size = at + length - first_byte
                text = -1
                place_seen = 0
                if size <= _SEEN_BYTES:
                    place_seen = hash_at(first_byte, first_byte + size) & (_SEEN - 1)
                    text = seen[uint64(place_seen)]
                    if text >= 0 and not (
                        texts[text, 1] == size and same_bytes(first_byte, base + texts[text, 0], size)
                    ):
                        text = -1
                if text < 0:
                    text = text_count
                    texts[text, 0] = first_byte - base
                    texts[text, 1] = size
                    text_count += 1
                    if size <= _SEEN_BYTES:
                        seen[uint64(place_seen)] = text
                words[place, r] = object_count + text
            else:
                number, word = number_of(at, at + length, value_type)
                read = number == 1
                words[place, r] = word if read else UNREAD
            if not read:
                if slow_count < slow.shape[0]:
                    slow[slow_count, 0] = c
                    slow[slow_count, 1] = r
                    slow[slow_count, 2] = at - base
                    slow[slow_count, 3] = length
                slow_count += 1
    return slow_count, text_count, malformed


# Feast's responses


@njit([int64(int64, uint64)], **FLAGS)
def put_varint(at, value):  # type: ignore[no-untyped-def]
    """Write an unsigned varint; returns the place behind it."""
    while value > uint64(127):
        put_byte(at, int64(value & uint64(127)) | 128)
        value >>= uint64(7)
        at += 1
    put_byte(at, int64(value))
    return at + 1


@njit([int64(int64)], **FLAGS)
def length_size(length):  # type: ignore[no-untyped-def]
    """Bytes of a length as a varint."""
    size = 1
    while length > 127:
        length >>= 7
        size += 1
    return size


@njit([int64(int64, int64)], **FLAGS)
def put_stamp(at, event_us):  # type: ignore[no-untyped-def]
    """Write an `event_timestamps = 3` of a `FeatureVector`; returns the place behind it."""
    seconds = event_us // _US
    nanos = (event_us - seconds * _US) * 1_000
    start = at + 2
    at = start
    if seconds:
        put_byte(at, 0x08)
        at = put_varint(at + 1, uint64(seconds))
    if nanos:
        put_byte(at, 0x10)
        at = put_varint(at + 1, uint64(nanos))
    put_byte(start - 2, 0x1A)
    put_byte(start - 1, at - start)
    return at


@njit([int64(int64, int64, int64, int64)], **FLAGS)
def put_bytes(at, source, size, room):  # type: ignore[no-untyped-def]
    """Copy some bytes, and of those behind them as many as `room` has; returns the place behind the wanted ones."""
    behind = at + size
    while at < behind and room >= _WORD_BYTES:
        put_word(at, word_at(source))
        at += _WORD_BYTES
        source += _WORD_BYTES
        room -= _WORD_BYTES
    while at < behind:
        put_byte(at, byte_at(source))
        at += 1
        source += 1
    return behind


@njit(
    [
        types.Array(uint8, 1, "C")(
            _data, _cells, _table, _spans, _spans, _vector, uint8[::1], uint8[::1], uint8[::1]
        )
    ],
    **FLAGS,
)
def splice(data, statuses, event_us, starts, lengths, view_of, codes, carries, spare):  # type: ignore[no-untyped-def]
    """Write every column as a `FeatureVector results = 2` of Feast's `GetOnlineFeaturesResponse`.

    Values are copied as they are stored. Each vector has `values = 1`, `statuses = 2` (packed) and
    `event_timestamps = 3`. `spare` has `MAX_STAMP_BYTES` for each row of each view.
    """
    columns, count = statuses.shape
    views = event_us.shape[0]
    base, stamps_at = int64(data.ctypes.data), int64(spare.ctypes.data)
    # All columns of a view have the same times.
    bounds = np.zeros(views + 1, int64)
    for v in range(views):
        at = stamps_at + bounds[v]
        for r in range(count):
            at = put_stamp(at, event_us[v, r])
        bounds[v + 1] = at - stamps_at
    total = 0
    sizes = np.empty(columns, int64)
    for c in range(columns):
        v = view_of[c]
        size = 1 + length_size(count) + count if count else 0
        for r in range(count):
            length = lengths[c, r] if carries[statuses[c, r]] and lengths[c, r] > 0 else 0
            size += 1 + length_size(length) + length
        sizes[c] = size + bounds[v + 1] - bounds[v]
        total += 1 + length_size(sizes[c]) + sizes[c]
    out = np.empty(total, uint8)
    at = int64(out.ctypes.data)
    data_stop, out_stop = base + data.shape[0], at + total
    for c in range(columns):
        put_byte(at, 0x12)
        at = put_varint(at + 1, uint64(sizes[c]))
        for r in range(count):
            length = lengths[c, r] if carries[statuses[c, r]] and lengths[c, r] > 0 else 0
            put_byte(at, 0x0A)
            at = put_varint(at + 1, uint64(length))
            source = base + starts[c, r]
            at = put_bytes(at, source, length, min(data_stop - source, out_stop - at))
        if count:
            put_byte(at, 0x12)
            at = put_varint(at + 1, uint64(count))
            for r in range(count):
                put_byte(at + r, int64(codes[statuses[c, r]]))
            at += count
        first = bounds[view_of[c]]
        size = bounds[view_of[c] + 1] - first
        at = put_bytes(at, stamps_at + first, size, size)
    return out


@njit(
    [
        _data(
            _data, _table, _table, _vector, types.boolean, _data, _vector, _vector, _table, _table, int64,
            _vector, _data, _data,
        )
    ],
    **FLAGS,
)  # fmt: skip
def splice_replies(  # type: ignore[no-untyped-def]
    data, leaves, replies, rows, whole, fields, bounds, table, columns, views, now_us, view_of, codes, carries
):
    """Decode the one group of a plan, as stored, and splice it; arguments are those of `decode` and `splice`.

    One call, since that costs more than the bytes of one row.

    Returns:
        The vectors; no bytes where a cell, a missing instant say, or a timestamp is left to Python.
    """
    width, count, depth = columns.shape[0], rows.shape[0], views.shape[0]
    statuses = np.empty((width, count), uint8)
    event_us = np.empty((depth, count), int64)
    starts = np.empty((width, count), int32)
    lengths = np.empty((width, count), int32)
    nothing = np.empty((0, 4), int64)
    slow_count, _, _ = decode(
        data, leaves, replies, rows, whole, fields, bounds, table, columns, views, now_us,
        nothing, statuses, event_us, starts, lengths, nothing, nothing, 0,
    )  # fmt: skip
    if slow_count:
        return np.empty(0, uint8)
    spare = np.empty(event_us.size * MAX_STAMP_BYTES, uint8)
    return splice(data, statuses, event_us, starts, lengths, view_of, codes, carries, spare)
