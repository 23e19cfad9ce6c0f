"""The inner loop that looks event ids up among those seen lately, in an open table of (hash, position)."""

from __future__ import annotations

import numpy as np
from numba import njit, types

NEW, SAME, REPEATED, CROWDED = 0, 1, 2, 3
"""What an id turned out to be: noted now; known from the same position, so the same record again; known from another
position; not noted since there are too many."""
FREE = -1
"""Position of a place that holds nothing."""

_V, _T = types.int64[::1], types.int64[:, ::1]


@njit(
    [types.int64(_T, types.int64, types.int64, types.int64, types.int64)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def note_id(table, used, most, hashed, position):  # type: ignore[no-untyped-def]
    """Note an id unless it is known; returns what it turned out to be.

    Args:
        table: Shape (places, 2), a power of two and more places than there will be ids.
        used: Places in use.
        most: Ids that are kept.
        hashed: Of the id.
        position: Which brings it.
    """
    mask = table.shape[0] - 1
    place = np.int64(np.uint64(hashed)) & mask
    while table[place, 1] != FREE and table[place, 0] != hashed:
        place = (place + 1) & mask
    if table[place, 1] != FREE:
        return SAME if table[place, 1] == position else REPEATED
    if used >= most:
        return CROWDED
    table[place, 0], table[place, 1] = hashed, position
    return NEW


@njit(
    [types.int64(_T, types.int64, types.int64, _V, _V, types.uint8[::1])],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def note_ids(table, used, most, hashes, positions, marks):  # type: ignore[no-untyped-def]
    """Note ids one after the other; returns how many places are used then.

    Args:
        table: As `note_id` takes it.
        used: As there.
        most: As there.
        hashes: Of the ids.
        positions: Which bring them.
        marks: Takes what each turned out to be.
    """
    for i in range(hashes.shape[0]):
        marks[i] = note_id(table, used, most, hashes[i], positions[i])
        if marks[i] == NEW:
            used += 1
    return used
