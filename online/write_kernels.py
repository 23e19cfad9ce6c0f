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
_BOOLS = types.boolean[::1]
_VOID, _INT = types.void, types.int64
_OPENING, _CLOSING = 123, 125
_SLOT_MASK = 16_383
_MOST_DIGITS = 19
AS_IT_IS = 2**32 - 1
"""Stands for the time to live of a state that has the right one already."""


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
def put_bytes(out, at, data, first, stop):  # type: ignore[no-untyped-def]
    """Write the bytes first to stop of `data`; returns the place behind them."""
    # By parts that are counted from 0: places that could be negative would be copied byte by byte.
    taken, given = out[at : at + stop - first], data[first:stop]
    for k in range(given.shape[0]):
        taken[k] = given[k]
    return at + given.shape[0]


@_kernel(_INT(_OUT, _INT, _OUT, _INT, _INT), _INT(_OUT, _INT, _IN, _INT, _INT))
def put_word(out, at, data, first, stop):  # type: ignore[no-untyped-def]
    """Write the bytes first to stop of `data` as a word; returns the place behind it."""
    out[at] = 36
    at = put_decimal(out, at + 1, stop - first)
    out[at], out[at + 1] = 13, 10
    at = put_bytes(out, at + 2, data, first, stop)
    out[at], out[at + 1] = 13, 10
    return at + 2


@_kernel(_INT(_OUT, _INT, _INT, _OUT))
def put_number(out, at, number, scratch):  # type: ignore[no-untyped-def]
    """Write an integer as a word; returns the place behind it. `scratch` is room for its digits."""
    return put_word(out, at, scratch, 0, put_decimal(scratch, 0, number))


@_kernel(_VOID(_IN, _T, _T, _OUT, _V))
def join_runs(data, first, stop, out, row_at):  # type: ignore[no-untyped-def]
    """Copy the runs of each row, shape (rows, runs), one after another.

    `row_at` takes where each row begins, and one more at the end.
    """
    at = 0
    for i in range(first.shape[0]):
        row_at[i] = at
        for j in range(first.shape[1]):
            at = put_bytes(out, at, data, first[i, j], stop[i, j])
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


@_kernel(_INT(_OUT, _INT, _IN, _INT, _INT, _INS, _IN, _V))
def put_state_key(out, at, data, first, stop, tags, mark, crcs):  # type: ignore[no-untyped-def]
    """Write the key of the state of the entity whose key is first to stop of `data`; returns the place behind it.

    `tags` are by slot, shape (slots, bytes), `mark` is what stands between a tag and a key, closing brace included, and
    `crcs` are as `fill_crc` leaves them.
    """
    tag_bytes = tags.shape[1]
    out[at] = 36
    at = put_decimal(out, at + 1, 1 + tag_bytes + mark.shape[0] + stop - first)
    out[at], out[at + 1], out[at + 2] = 13, 10, _OPENING
    at += 3
    slot = slot_of_run(data, first, stop, crcs)
    for k in range(tag_bytes):
        out[at + k] = tags[slot, k]
    at = put_bytes(out, at + tag_bytes, mark, 0, mark.shape[0])
    at = put_bytes(out, at, data, first, stop)
    out[at], out[at + 1] = 13, 10
    return at + 2


@_kernel(_INT(_OUT, _INT, _INT, _INT))
def put_little(out, at, value, size):  # type: ignore[no-untyped-def]
    """Write the low bytes of an integer, the least first; returns the place behind them."""
    for k in range(size):
        out[at + k] = (value >> (8 * k)) & 0xFF
    return at + size


@_kernel(types.UniTuple(_INT, 2)(_T, _T, _V, _T, _V, _V))
def tally(pieces, spans, most, sizes, span_at, state_bytes):  # type: ignore[no-untyped-def]
    """Count what each entity has, and give the spans their places among all.

    Returns the bytes of all spans, and the place in `sizes`, row by row, of one that is larger than it may be, or -1.

    Args:
        pieces: Of each its spans, its section, its first entity, and where its bytes begin; shape (pieces, 4).
        spans: Those of all pieces, as `online.words.Spans` has them; from now on entities and places are among those
            of all pieces, and the entity of a span without words is -1.
        most: Most words by section.
        sizes: Takes words by section; shape (entities, sections), zeros.
        span_at: Takes where the spans of each entity begin if those of one follow another; one more at the end, zeros.
        state_bytes: Takes the bytes of the first section.
    """
    k = total = 0
    for p in range(pieces.shape[0]):
        section, first_entity, base = pieces[p, 1], pieces[p, 2], pieces[p, 3]
        for _ in range(pieces[p, 0]):
            if spans[0, k] >= 0 and spans[3, k] > 0:
                entity = spans[0, k] + first_entity
                size = spans[2, k] - spans[1, k]
                spans[0, k] = entity
                spans[1, k] += base
                spans[2, k] += base
                sizes[entity, section] += spans[3, k]
                span_at[entity + 1] += 1
                total += size
                if section == 0:
                    state_bytes[entity] += size
            else:
                spans[0, k] = -1
            k += 1
    large = -1
    for i in range(sizes.shape[0]):
        span_at[i + 1] += span_at[i]
        for section in range(sizes.shape[1]):
            if sizes[i, section] > most[section]:
                large = i * sizes.shape[1] + section
    return total, large


@_kernel(_INT(_OUT, _INT, _V, _INT, _INT, _INT))
def put_head(out, at, sizes, views, memory, revision):  # type: ignore[no-untyped-def]
    """Write an entity's head, revision and next revision as words; returns the place behind them."""
    out[at] = 36
    at = put_decimal(out, at + 1, 8 + 2 * views)
    out[at], out[at + 1] = 13, 10
    at = put_little(out, at + 2, memory, 4)
    for section in range(2 + views):
        at = put_little(out, at, sizes[section], 2)
    out[at], out[at + 1] = 13, 10
    at += 2
    scratch = np.empty(24, np.uint8)
    at = put_number(out, at, revision, scratch)
    return put_number(out, at, revision + 1, scratch)


@_kernel(_V(_T, _V))
def ordered(spans, span_at):  # type: ignore[no-untyped-def]
    """The numbers of the spans, those of one entity behind those of another; both are as `tally` leaves them."""
    order = np.empty(spans.shape[1], np.int64)
    filled = span_at.copy()
    for k in range(spans.shape[1]):
        entity = spans[0, k]
        if entity >= 0:
            order[filled[entity]] = k
            filled[entity] += 1
    return order


@_kernel(_VOID(_IN, _T, _V, _T, _T, _V, _BOOLS, _IN, _V, _INS, _IN, _V, _IN, _INT, _OUT, _T))
def lay_out(  # type: ignore[no-untyped-def]
    data, spans, span_at, sizes, parts, revisions, lasting, keys, key_at, tags, mark, crcs, between, each, out, calls,
):  # fmt: skip
    """Write the words of calls: keys, what stands between, and of each entity its head and its spans.

    Args:
        data: Holds the spans.
        spans: As `tally` leaves them.
        span_at: As it leaves it.
        sizes: As it leaves them.
        parts: Of each part its entities, the views of each, and the time to live of their states, or 0 where they shall
            have none; shape (parts, 3).
        revisions: By entity.
        lasting: Of which entities a state that shall have no time to live is known to have none.
        keys: One after another.
        key_at: Where each begins; one more at the end.
        tags: As `put_state_key` takes them.
        mark: As there.
        crcs: As there.
        between: As above.
        each: Entities of a call.
        out: Room for everything.
        calls: Takes of each call where its words begin but for the first key, where they end, and how many words of
            entities they are; shape (calls, 3).
    """
    order = ordered(spans, span_at)
    at = part = 0
    part_stop = parts[0, 0] if parts.shape[0] else 0
    for call in range(calls.shape[0]):
        start, stop = call * each, min((call + 1) * each, revisions.shape[0])
        calls[call, 0] = at
        for i in range(start, stop):
            if i > start:
                at = put_word(out, at, keys, key_at[i], key_at[i + 1])
            at = put_state_key(out, at, keys, key_at[i], key_at[i + 1], tags, mark, crcs)
        at = put_bytes(out, at, between, 0, between.shape[0])
        words = 0
        for i in range(start, stop):
            while i >= part_stop:
                part += 1
                part_stop += parts[part, 0]
            views, memory = parts[part, 1], parts[part, 2]
            if memory == 0 and lasting[i]:
                memory = AS_IT_IS
            at = put_head(out, at, sizes[i], views, memory, revisions[i])
            words += 3
            for section in range(2 + views):
                words += sizes[i, section]
            for place in range(span_at[i], span_at[i + 1]):
                at = put_bytes(out, at, data, spans[1, order[place]], spans[2, order[place]])
        calls[call, 1], calls[call, 2] = at, words
