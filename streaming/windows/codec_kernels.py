"""The inner loops of the state codec: states side by side, a table of slots as bytes, and what a step changed.

Per slot: counts unsigned and sums signed varints; extremes only where their column has a value in that tile, as eight
bytes if they are floats, else as signed varints.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

_COUNT, _SUM, _MIN = 0, 1, 2
_LOW = np.uint64(0x7F)
_MORE = np.uint64(0x80)
_SEVEN = np.uint64(7)
_ONE = np.uint64(1)
_INT_MAX = np.int64(np.iinfo(np.int64).max)
_INT_MIN = np.int64(np.iinfo(np.int64).min)
MAX_SLOT_BYTES = 10

_bytes = types.Array(types.uint8, 1, "C", readonly=True)
_WORD_BYTES = 8
_held = types.Array(types.int64, 1, "C", readonly=True)
_vector = types.int64[::1]
_table = types.int64[:, ::1]


@njit([types.int64(types.uint8[::1], types.int64, types.uint64)], cache=True, nogil=True, boundscheck=False)
def put_varint(out, at, value):  # type: ignore[no-untyped-def]
    """Write an unsigned varint at `at`; returns the place behind it."""
    while value > _LOW:
        out[at] = np.uint8((value & _LOW) | _MORE)
        value >>= _SEVEN
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@njit([types.int64(_bytes, types.int64, _vector)], cache=True, nogil=True, boundscheck=False)
def get_varint(data, at, out):  # type: ignore[no-untyped-def]
    """Read an unsigned varint into `out[0]`; returns the place behind it, or -1 where the bytes end early."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while 0 <= at < data.shape[0] and shift < np.uint64(70):
        byte = np.uint64(data[at])
        value |= (byte & _LOW) << shift
        at += 1
        if byte < _MORE:
            out[0] = np.int64(value)
            return at
        shift += _SEVEN
    return -1


@njit(
    [types.int64(_vector, _table, _table, _vector, types.int64, types.int64, types.int64, types.uint8[::1])],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def encode_table(index, table, slots, floats, first, stop, base, out):  # type: ignore[no-untyped-def]
    """Write rows first to stop, each after the distance of its index from the one before; returns the length.

    `floats[p]` is 1 where slot `p` is an extreme of floats.
    """
    at = 0
    before = base
    for i in range(first, stop):
        at = put_varint(out, at, np.uint64(index[i] - before))
        before = index[i]
        for p in range(slots.shape[0]):
            x = table[i, p]
            kind = slots[p, 0]
            if kind == _COUNT:
                at = put_varint(out, at, np.uint64(x))
                continue
            if kind != _SUM and table[i, slots[p, 3]] == 0:
                continue
            if floats[p] == 1:
                bits = np.uint64(x)
                for byte in range(8):
                    out[at + byte] = np.uint8((bits >> np.uint64(8 * byte)) & np.uint64(0xFF))
                at += 8
            else:
                at = put_varint(out, at, np.uint64((x << 1) ^ (x >> 63)))
    return at


@njit(
    [types.int64(_bytes, types.int64, _table, _vector, types.int64, _vector, _table)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def decode_table(data, at, slots, floats, base, index, table):  # type: ignore[no-untyped-def]
    """Read as many rows as `index` holds from `at`; returns the place behind them, or -1 where the bytes end early."""
    value = np.empty(1, np.int64)
    before = base
    for i in range(index.shape[0]):
        at = get_varint(data, at, value)
        before += value[0]
        index[i] = before
        for p in range(slots.shape[0]):
            kind = slots[p, 0]
            if kind == _COUNT:
                at = get_varint(data, at, value)
                table[i, p] = value[0]
            elif kind != _SUM and table[i, slots[p, 3]] == 0:
                table[i, p] = _INT_MAX if kind == _MIN else _INT_MIN
            elif floats[p] == 1:
                if at < 0 or at + 8 > data.shape[0]:
                    return -1
                bits = np.uint64(0)
                for byte in range(8):
                    bits |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
                table[i, p] = np.int64(bits)
                at += 8
            else:
                at = get_varint(data, at, value)
                bits = np.uint64(value[0])
                table[i, p] = np.int64(bits >> _ONE) ^ -np.int64(bits & _ONE)
            if at < 0:
                return -1
    return at


@njit(
    [types.void(_held, _vector, _vector, _table, _table, _vector, _vector)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def load_states(words, tile_start, index, tiles, totals, last_us, expired_us):  # type: ignore[no-untyped-def]
    """Take states apart that lie one after another in `words`; `tile_start` takes where each one's tiles begin."""
    slot_count = tiles.shape[1]
    total_count = totals.shape[1]
    at = first = 0
    for i in range(last_us.shape[0]):
        last_us[i], expired_us[i] = words[at], words[at + 1]
        size = words[at + 2]
        tile_start[i] = first
        at += 3
        index[first : first + size] = words[at : at + size]
        at += size
        for p in range(total_count):
            totals[i, p] = words[at + p]
        at += total_count
        behind = at + size * slot_count
        tiles[first : first + size] = words[at:behind].reshape(size, slot_count)
        at = behind
        first += size
    tile_start[last_us.shape[0]] = first


@njit(
    [types.void(_vector, _vector, _table, _table, _vector, _vector, _vector, _vector, _vector)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def store_states(start, index, tiles, totals, last_us, expired_us, stop, words, byte_start):  # type: ignore[no-untyped-def]
    """The inverse of `load_states`; state `i` keeps the tiles `start[i]` to `stop[i]`.

    `byte_start` takes where each one's words begin, in bytes; one more at the end.
    """
    slot_count = tiles.shape[1]
    total_count = totals.shape[1]
    at = byte_start[0] = 0
    for i in range(start.shape[0]):
        size = stop[i] - start[i]
        words[at], words[at + 1], words[at + 2] = last_us[i], expired_us[i], size
        at += 3
        words[at : at + size] = index[start[i] : stop[i]]
        at += size
        for p in range(total_count):
            words[at] = totals[i, p]
            at += 1
        behind = at + size * slot_count
        words[at:behind].reshape(size, slot_count)[:] = tiles[start[i] : stop[i]]
        at = behind
        byte_start[i + 1] = _WORD_BYTES * at


@njit([types.int64(_bytes, types.int64, _vector)], cache=True, nogil=True, boundscheck=False)
def get_signed(data, at, out):  # type: ignore[no-untyped-def]
    """Read a signed varint into `out[0]`; returns the place behind it, or -1 where the bytes end early."""
    at = get_varint(data, at, out)
    bits = np.uint64(out[0])
    out[0] = np.int64(bits >> _ONE) ^ -np.int64(bits & _ONE)
    return at


@njit(
    [types.int64(_bytes, _vector, _bytes, _table, _vector, _table, _table, _vector)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def read_heads(data, at, mark, slots, floats, times, totals, rest):  # type: ignore[no-untyped-def]
    """Read head chunks that lie one after another; returns the first that cannot be read, or -1.

    Args:
        data: The chunks.
        at: Where each begins; one more at the end.
        mark: Version and fingerprint.
        slots: Of the totals.
        floats: As in `encode_table`.
        times: Takes last event time and latest expiry, shape (chunks, 2).
        totals: Takes the all-time accumulators, shape (chunks, slots).
        rest: Takes where what the entity remembers begins.
    """
    value = np.empty(1, np.int64)
    index = np.empty(1, np.int64)
    for i in range(at.shape[0] - 1):
        place, stop = at[i], at[i + 1]
        if stop - place < mark.shape[0]:
            return i
        for k in range(mark.shape[0]):
            if data[place + k] != mark[k]:
                return i
        place += mark.shape[0]
        own = data[:stop]
        for column in range(2):
            place = get_signed(own, place, value)
            if place < 0:
                return i
            times[i, column] = value[0]
        rest[i] = decode_table(own, place, slots, floats, 0, index, totals[i : i + 1])
        if rest[i] < 0:
            return i
    return -1


@njit(
    [types.int64(_bytes, _vector, types.int64, types.int64, _vector, _vector)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def measure_chunks(data, at, version, most, starts, sizes):  # type: ignore[no-untyped-def]
    """Find where the tiles of each chunk begin and how many they are; returns the first that is damaged, or -1."""
    value = np.empty(1, np.int64)
    for i in range(at.shape[0] - 1):
        place, stop = at[i], at[i + 1]
        if place == stop or data[place] != version:
            return i
        starts[i] = get_varint(data[:stop], place + 1, value)
        sizes[i] = value[0]
        if starts[i] < 0 or not 0 < value[0] <= most:
            return i
    return -1


@njit(
    [types.int64(_bytes, _vector, _vector, _vector, _table, _vector, _vector, _vector, _table)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def read_chunks(data, at, starts, sizes, slots, floats, base, index, tiles):  # type: ignore[no-untyped-def]
    """Read the tiles of chunks that lie one after another; returns the first that cannot be read whole, or -1.

    Args:
        data: The chunks.
        at: Where each begins; one more at the end.
        starts: Where the tiles of each begin.
        sizes: How many each has.
        slots: Of the tiles.
        floats: As in `encode_table`.
        base: What the first tile's number is counted from.
        index: Takes the tiles' numbers.
        tiles: Takes the tiles.
    """
    first = 0
    for i in range(at.shape[0] - 1):
        stop = first + sizes[i]
        own = data[: at[i + 1]]
        if (
            decode_table(own, starts[i], slots, floats, base[i], index[first:stop], tiles[first:stop])
            != at[i + 1]
        ):
            return i
        first = stop
    return -1
