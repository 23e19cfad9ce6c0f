"""The inner loops that put many writes together as words of the store's protocol.

A word is a bulk string: `$length`, a line end, its bytes, a line end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

_V, _T = types.int64[::1], types.int64[:, ::1]
_OUT = types.uint8[::1]
_IN = types.Array(types.uint8, 1, "C", readonly=True)
_INS = types.Array(types.uint8, 2, "C", readonly=True)
_VOID, _INT = types.void, types.int64
_OPENING, _CLOSING = 123, 125
_SLOT_MASK = 16_383
_MOST_DIGITS = 19


def _kernel(*signatures: Any) -> Any:
    return njit(list(signatures), cache=True, nogil=True, boundscheck=False)


@_kernel(_INT(_OUT, _INT, _INT))
def put_decimal(out, at, value):  # type: ignore[no-untyped-def]
    """Write an integer in decimal; returns the place behind it."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits, power = 1, 10
    while digits < _MOST_DIGITS and value >= power:
        digits += 1
        power *= 10
    for place in range(digits - 1, -1, -1):
        out[at + place] = 48 + value % 10
        value //= 10
    return at + digits


@_kernel(_INT(_OUT, _INT, _OUT, _INT, _INT), _INT(_OUT, _INT, _IN, _INT, _INT))
def put_word(out, at, data, first, stop):  # type: ignore[no-untyped-def]
    """Write the bytes first to stop of `data` as a word; returns the place behind it."""
    out[at] = 36
    at = put_decimal(out, at + 1, stop - first)
    out[at], out[at + 1] = 13, 10
    at += 2
    for k in range(first, stop):
        out[at] = data[k]
        at += 1
    out[at], out[at + 1] = 13, 10
    return at + 2


@_kernel(_VOID(_IN, _T, _T, _OUT, _V))
def join_runs(data, first, stop, out, row_at):  # type: ignore[no-untyped-def]
    """Copy the runs of each row, shape (rows, runs), one after another.

    `row_at` takes where each row begins, and one more at the end.
    """
    at = 0
    for i in range(first.shape[0]):
        row_at[i] = at
        for j in range(first.shape[1]):
            for k in range(first[i, j], stop[i, j]):
                out[at] = data[k]
                at += 1
    row_at[first.shape[0]] = at


@_kernel(_VOID(_V))
def fill_crc(table):  # type: ignore[no-untyped-def]
    """Fill the 256 entries of CRC16 (XMODEM)."""
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        table[byte] = crc & 0xFFFF


@_kernel(_INT(_IN, _INT, _INT, _V))
def slot_of_run(data, first, stop, crcs):  # type: ignore[no-untyped-def]
    """The Cluster slot of a key, as `online.slots.slot_of` has it."""
    for opening in range(first, stop):
        if data[opening] == _OPENING:
            for closing in range(opening + 1, stop):
                if data[closing] == _CLOSING:
                    if closing > opening + 1:
                        first, stop = opening + 1, closing
                    break
            break
    crc = 0
    for k in range(first, stop):
        crc = ((crc << 8) & 0xFFFF) ^ crcs[(crc >> 8) ^ data[k]]
    return crc & _SLOT_MASK


@_kernel(_INT(_IN, _V, _INS, _IN, _V, _OUT, _T))
def put_keys(keys, key_at, tags, mark, crcs, out, places):  # type: ignore[no-untyped-def]
    """Write each key and the key of its state as two words; returns the length.

    Args:
        keys: One after another.
        key_at: Where each begins; one more at the end.
        tags: By slot, shape (slots, bytes).
        mark: What stands between the tag and the key, closing brace included.
        crcs: As `fill_crc` leaves them.
        out: Room for everything.
        places: For each key where its words begin, where the second begins, and where it ends, shape (keys, 3).
    """
    tag_bytes = tags.shape[1]
    most = 0
    for i in range(key_at.shape[0] - 1):
        most = max(most, key_at[i + 1] - key_at[i])
    state = np.empty(1 + tag_bytes + mark.shape[0] + most, np.uint8)
    state[0] = _OPENING
    for k in range(mark.shape[0]):
        state[1 + tag_bytes + k] = mark[k]
    head = 1 + tag_bytes + mark.shape[0]
    at = 0
    for i in range(key_at.shape[0] - 1):
        first, stop = key_at[i], key_at[i + 1]
        places[i, 0] = at
        at = put_word(out, at, keys, first, stop)
        places[i, 1] = at
        slot = slot_of_run(keys, first, stop, crcs)
        for k in range(tag_bytes):
            state[1 + k] = tags[slot, k]
        for k in range(stop - first):
            state[head + k] = keys[first + k]
        at = put_word(out, at, state, 0, head + stop - first)
        places[i, 2] = at
    return at


@_kernel(_INT(_INS, _V, _OUT, _V))
def put_heads(heads, revisions, out, at_row):  # type: ignore[no-untyped-def]
    """Write each row's head, revision and next revision as words; returns the length.

    Args:
        heads: Shape (rows, bytes).
        revisions: Shape (rows,).
        out: Room for everything.
        at_row: Where each row begins; one more at the end.
    """
    number = np.empty(24, np.uint8)
    at = 0
    for i in range(heads.shape[0]):
        at_row[i] = at
        at = put_word(out, at, heads[i], 0, heads.shape[1])
        at = put_word(out, at, number, 0, put_decimal(number, 0, revisions[i]))
        at = put_word(out, at, number, 0, put_decimal(number, 0, revisions[i] + 1))
    at_row[heads.shape[0]] = at
    return at
