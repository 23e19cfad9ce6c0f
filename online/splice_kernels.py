"""The way of stored values from replies into a response in one call: a call costs more than the bytes of one row."""

from __future__ import annotations

import numpy as np
from numba import int64, njit, types, uint8

from online.kernels import FLAGS, MAX_STAMP_BYTES, decode, splice

_data = types.Array(uint8, 1, "C")
_vector, _table = int64[::1], int64[:, ::1]


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

    Returns:
        The vectors; no bytes where a cell, a missing instant say, or a timestamp is left to Python.
    """
    width, count, depth = columns.shape[0], rows.shape[0], views.shape[0]
    words = np.empty((width, count), int64)
    statuses = np.empty((width, count), uint8)
    event_us = np.empty((depth, count), int64)
    starts = np.empty((width, count), int64)
    lengths = np.empty((width, count), int64)
    slow = np.empty(((width + depth) * count, 4), int64)
    texts = np.empty((0, 2), int64)
    slow_count, _, _ = decode(
        data, leaves, replies, rows, whole, fields, bounds, table, columns, views, now_us,
        words, statuses, event_us, starts, lengths, slow, texts, 0,
    )  # fmt: skip
    if slow_count:
        return np.empty(0, uint8)
    spare = np.empty(event_us.size * MAX_STAMP_BYTES, uint8)
    return splice(data, statuses, event_us, starts, lengths, view_of, codes, carries, spare)
