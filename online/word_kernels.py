"""The inner loop that writes columns of values as words of the store's protocol, a row after another."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from online.write_kernels import put_word

NUMBER, SHORT, DOUBLE, FLOAT, TEXT = 0, 1, 2, 3, 4
"""How a column is written: a varint, a varint of 32 bits, eight bytes, four bytes, bytes made elsewhere."""
MAX_NUMBER_BYTES = 12

_LOW = np.uint64(0x7F)
_MORE = np.uint64(0x80)
_SEVEN = np.uint64(7)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_bytes = types.uint8[::1]
_read = types.Array(types.uint8, 1, "C", readonly=True)
_vector = types.int64[::1]
_table = types.int64[:, ::1]


@njit([types.int64(_bytes, types.int64, types.uint64)], cache=True, nogil=True, boundscheck=False)
def _varint(out, at, value):  # type: ignore[no-untyped-def]
    while value > _LOW:
        out[at] = np.uint8((value & _LOW) | _MORE)
        value >>= _SEVEN
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@njit(
    [
        types.int64(
            _read,
            _vector,
            _vector,
            _vector,
            _table,
            types.uint8[:, ::1],
            _read,
            _table,
            _vector,
            _bytes,
            _vector,
        )
    ],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def put_rows(names, name_at, tags, forms, payload, null, texts, text_at, time_us, out, row_at):  # type: ignore[no-untyped-def]
    """Write each row as words; returns the length.

    They are the timestamp's name and value, and every column's name and value.

    Args:
        names: Names as words, one after another, the timestamp's being the first.
        name_at: Where each name begins; one more at the end.
        tags: First byte of each column's encoded values.
        forms: How each column is written.
        payload: Shape (columns, rows): integers, or the bits of floats; for texts, the number of the text's column.
        null: Shape (columns, rows).
        texts: Values of text columns, one after another.
        text_at: Shape (text columns + 1, rows + 1): where each value begins.
        time_us: Timestamp by row.
        out: Room for everything.
        row_at: Where each row begins; one more at the end.
    """
    data = np.empty(64, np.uint8)
    at = 0
    columns = tags.shape[0]
    for i in range(time_us.shape[0]):
        row_at[i] = at
        for k in range(name_at[0], name_at[1]):
            out[at] = names[k]
            at += 1
        seconds = time_us[i] // 1_000_000
        nanos = (time_us[i] - seconds * 1_000_000) * 1_000
        size = 0
        if seconds != 0:
            data[0] = 0x08
            size = _varint(data, 1, np.uint64(seconds))
        if nanos != 0:
            data[size] = 0x10
            size = _varint(data, size + 1, np.uint64(nanos))
        at = put_word(out, at, data, 0, size)
        for c in range(columns):
            for k in range(name_at[c + 1], name_at[c + 2]):
                out[at] = names[k]
                at += 1
            if null[c, i] != 0:
                at = put_word(out, at, data, 0, 0)
                continue
            form = forms[c]
            if form == TEXT:
                first = text_at[payload[c, 0], i]
                at = put_word(out, at, texts, first, text_at[payload[c, 0], i + 1])
                continue
            size = _varint(data, 0, np.uint64(tags[c]))
            bits = np.uint64(payload[c, i])
            if form <= SHORT:
                size = _varint(data, size, bits)
            else:
                width = 8 if form == DOUBLE else 4
                for k in range(width):
                    data[size + k] = np.uint8((bits >> np.uint64(8 * k)) & np.uint64(0xFF))
                size += width
            at = put_word(out, at, data, 0, size)
    row_at[time_us.shape[0]] = at
    return at


@njit([types.uint64(types.uint64)], cache=True, nogil=True, boundscheck=False)
def _mixed(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit([types.void(_read, _vector, _vector, _vector)], cache=True, nogil=True, boundscheck=False)
def digest_rows(data, row_first, row_stop, out):  # type: ignore[no-untyped-def]
    """A positive number that stands for each row's bytes; two rows have the same with a probability of 2⁻⁶³."""
    for i in range(out.shape[0]):
        first, stop = row_first[i], row_stop[i]
        h = _mixed(np.uint64(stop - first) ^ _SEED)
        for start in range(first, stop, 8):
            x = np.uint64(0)
            for k in range(start, min(start + 8, stop)):
                x = (x << np.uint64(8)) | np.uint64(data[k])
            h = _mixed((h ^ x) * _SEED)
        out[i] = max(np.int64(h >> np.uint64(1)), 1)
