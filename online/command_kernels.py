"""The inner loops that lay the writes of many entities out as commands, and what looks at the entities before.

Words are those of `online.write_kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from online.write_kernels import (
    AS_IT_IS,
    ordered,
    put_bytes,
    put_decimal,
    put_number,
    put_state_key,
    put_word,
)

_V, _T = types.int64[::1], types.int64[:, ::1]
_OUT = types.uint8[::1]
_IN = types.Array(types.uint8, 1, "C", readonly=True)
_INS = types.Array(types.uint8, 2, "C", readonly=True)
_BOOLS = types.boolean[::1]
_INT = types.int64
_TRIPLE = types.UniTuple(_INT, 3)
_SECONDS_TAG, _NANOS_TAG = 8, 16
_VARINT_BYTES = 10
_UNKNOWN = (0, 0, 0)

_HSET = np.frombuffer(b"$4\r\nHSET\r\n", dtype=np.uint8)
_HDEL = np.frombuffer(b"$4\r\nHDEL\r\n", dtype=np.uint8)
_HGET = np.frombuffer(b"$4\r\nHGET\r\n", dtype=np.uint8)
_HMGET = np.frombuffer(b"$5\r\nHMGET\r\n", dtype=np.uint8)
_EXPIRE = np.frombuffer(b"$6\r\nEXPIRE\r\n", dtype=np.uint8)
_PERSIST = np.frombuffer(b"$7\r\nPERSIST\r\n", dtype=np.uint8)
_REVISION = np.frombuffer(b"$3\r\nrev\r\n", dtype=np.uint8)


def _kernel(*signatures: Any) -> Any:
    return njit(list(signatures), cache=True, nogil=True, boundscheck=False)


@_kernel(_INT(_OUT, _INT, _INT, _IN))
def put_command(out, at, words, name):  # type: ignore[no-untyped-def]
    """Begin a command of so many words, of which the name is the first; returns the place behind it."""
    out[at] = 42
    at = put_decimal(out, at + 1, words)
    out[at], out[at + 1] = 13, 10
    return put_bytes(out, at + 2, name, 0, name.shape[0])


@_kernel(types.UniTuple(_INT, 2)(_OUT, _INT, _IN, _T, _V, _INT, _INT))
def put_spans(out, at, data, spans, order, place, words):  # type: ignore[no-untyped-def]
    """Write so many words, those of the spans from a place in their order on; returns the places behind both."""
    while words > 0:
        k = order[place]
        at = put_bytes(out, at, data, spans[1, k], spans[2, k])
        words -= spans[3, k]
        place += 1
    return at, place


@_kernel(types.UniTuple(_INT, 2)(_IN, _INT))
def word_at(data, at):  # type: ignore[no-untyped-def]
    """Where the bytes of a word begin and end."""
    size = 0
    at += 1
    while data[at] != 13:
        size = 10 * size + data[at] - 48
        at += 1
    return at + 2, at + 2 + size


@_kernel(_TRIPLE(_IN, _INT, _INT))
def instant(data, at, stop):  # type: ignore[no-untyped-def]
    """Read a `google.protobuf.Timestamp`: 1, seconds and nanoseconds; zeros for what is none."""
    seconds = nanos = 0
    while at < stop:
        tag = data[at]
        if tag not in {_SECONDS_TAG, _NANOS_TAG}:
            return _UNKNOWN
        at += 1
        value, shift, end = 0, 0, min(stop, at + _VARINT_BYTES)
        while at < end and data[at] > 127:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
        if at == end:
            return _UNKNOWN
        value |= (data[at] & 127) << shift
        at += 1
        if tag == _SECONDS_TAG:
            seconds = value
        else:
            nanos = value
    return 1, seconds, nanos


@_kernel(types.boolean(_IN, _INT, _INT, _IN, _INT, _INT))
def is_not_later(stored, first, stop, stamp, start, end):  # type: ignore[no-untyped-def]
    """Whether it is certain that a stored time is not later than another."""
    if stop - first == end - start:
        same = True
        for k in range(stop - first):
            same = same and stored[first + k] == stamp[start + k]
        if same:
            return True
    known, seconds, nanos = instant(stored, first, stop)
    new_known, new_seconds, new_nanos = instant(stamp, start, end)
    if known == 0 or new_known == 0:
        return False
    return seconds < new_seconds or (seconds == new_seconds and nanos <= new_nanos)


@_kernel(types.UniTuple(_INT, 2)(_IN, _V, _T, _IN, _INS, _IN, _V, _OUT))
def lay_looks(keys, key_at, kinds, fields, tags, mark, crcs, out):  # type: ignore[no-untyped-def]
    """Write the keys of entities and of their states as words, and then what reads their revisions and times.

    Args:
        keys: Of the entities, one after another.
        key_at: Where each begins; one more at the end.
        kinds: Of each kind its entities, where the words of its timestamps' fields begin in `fields`, where they end,
            and how many they are; shape (kinds, 4).
        fields: Those words.
        tags: As `put_state_key` takes them.
        mark: As there.
        crcs: As there.
        out: Room for everything.

    Returns:
        Where the keys end, and where the commands end.
    """
    at = 0
    places = np.empty((key_at.shape[0], 2), np.int64)
    for i in range(key_at.shape[0] - 1):
        places[i, 0] = at
        at = places[i, 1] = put_word(out, at, keys, key_at[i], key_at[i + 1])
        at = put_state_key(out, at, keys, key_at[i], key_at[i + 1], tags, mark, crcs)
    middle, i = at, 0
    places[-1, 0] = middle
    for kind in range(kinds.shape[0]):
        for _ in range(kinds[kind, 0]):
            at = put_command(out, at, 3, _HGET)
            at = put_bytes(out, at, out, places[i, 1], places[i + 1, 0])
            at = put_bytes(out, at, _REVISION, 0, _REVISION.shape[0])
            at = put_command(out, at, 2 + kinds[kind, 3], _HMGET)
            at = put_bytes(out, at, out, places[i, 0], places[i, 1])
            at = put_bytes(out, at, fields, kinds[kind, 1], kinds[kind, 2])
            i += 1
    return middle, at


@_kernel(
    types.UniTuple(_INT, 2)(_IN, _T, _V, _T, _T, _V, _BOOLS, _IN, _V, _INS, _IN, _V, _INT, _IN, _V, _V, _OUT)
)
def lay_commands(  # type: ignore[no-untyped-def]
    data, spans, span_at, sizes, parts, revisions, lasting, keys, key_at, tags, mark, crcs, ttl_s, stamps, stamp_at,
    stamp_sizes, out,
):  # fmt: skip
    """Write the commands that do what the script of conditional writes does where all conditions hold.

    The first twelve are those of `lay_out`. `ttl_s` is how long entities live, 0 for ever. `stamps` are the stored
    times of views, entity by entity, each where `stamp_at` says, of so many bytes as `stamp_sizes` says, which is -1
    where there is none. `out` is room for everything.

    Returns where the commands end and how many they are, or -1 where a view may be of a later time in the store, or
    does not stand there though it is counted on.
    """
    order = ordered(spans, span_at)
    scratch = np.empty(24, np.uint8)
    at = part = count = stamp = 0
    part_stop = parts[0, 0] if parts.shape[0] else 0
    for i in range(revisions.shape[0]):
        while i >= part_stop:
            part += 1
            part_stop += parts[part, 0]
        views, memory = parts[part, 1], parts[part, 2]
        shown = 0
        for view in range(views):
            if sizes[i, 2 + view] > 1:
                shown += sizes[i, 2 + view]
        if shown:
            at = put_command(out, at, 2 + shown, _HSET)
            at = put_word(out, at, keys, key_at[i], key_at[i + 1])
            count += 1
        place = span_at[i]
        for view in range(views):
            left, size = sizes[i, 2 + view], stamp_sizes[stamp]
            if left == 1 and size < 0:
                return at, -1
            if left > 1 and size >= 0:
                k = order[place]
                if spans[3, k] < 2:
                    return at, -1
                _, behind = word_at(data, spans[1, k])
                first, stop = word_at(data, behind + 2)
                if not is_not_later(stamps, stamp_at[stamp], stamp_at[stamp] + size, data, first, stop):
                    return at, -1
            if left == 1:
                place += 1
            else:
                at, place = put_spans(out, at, data, spans, order, place, left)
            stamp += 1
        if shown and ttl_s:
            at = put_command(out, at, 3, _EXPIRE)
            at = put_word(out, at, keys, key_at[i], key_at[i + 1])
            at = put_number(out, at, ttl_s, scratch)
            count += 1
        state_key = at = put_command(out, at, 4 + sizes[i, 0], _HSET)
        state_key_stop = at = put_state_key(out, at, keys, key_at[i], key_at[i + 1], tags, mark, crcs)
        at = put_bytes(out, at, _REVISION, 0, _REVISION.shape[0])
        at = put_number(out, at, revisions[i] + 1, scratch)
        count += 1
        at, place = put_spans(out, at, data, spans, order, place, sizes[i, 0])
        if sizes[i, 1]:
            at = put_command(out, at, 2 + sizes[i, 1], _HDEL)
            at = put_bytes(out, at, out, state_key, state_key_stop)
            at, place = put_spans(out, at, data, spans, order, place, sizes[i, 1])
            count += 1
        if memory == 0 and lasting[i]:
            memory = AS_IT_IS
        if memory == 0:
            at = put_command(out, at, 2, _PERSIST)
            at = put_bytes(out, at, out, state_key, state_key_stop)
            count += 1
        elif memory < AS_IT_IS:
            at = put_command(out, at, 3, _EXPIRE)
            at = put_bytes(out, at, out, state_key, state_key_stop)
            at = put_number(out, at, memory, scratch)
            count += 1
    return at, count
