"""The inner loop that finds the values in entity keys."""

from __future__ import annotations

from numba import njit, types

_IN = types.Array(types.uint8, 1, "C", readonly=True)
_V, _T = types.int64[::1], types.int64[:, ::1]


@njit([types.int64(_IN, types.int64)], cache=True, nogil=True, boundscheck=False)
def _uint32(data, at):  # type: ignore[no-untyped-def]
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24


@njit([types.int64(_IN, _V, _IN, _IN, _V, _T, _T)], cache=True, nogil=True, boundscheck=False)
def split_keys(data, at, prefix, suffix, kinds, first, stop):  # type: ignore[no-untyped-def]
    """Find where the values of keys lie; returns the first that is no key of these join keys, or -1.

    Args:
        data: The keys, one after another.
        at: Where each begins; one more at the end.
        prefix: What every key begins with.
        suffix: What every key ends with.
        kinds: Value types of the join keys.
        first: Takes where each value begins, shape (keys, join keys).
        stop: Takes where it ends.
    """
    for i in range(at.shape[0] - 1):
        place, end = at[i], at[i + 1]
        if end - place < prefix.shape[0] + suffix.shape[0] + 8 * kinds.shape[0]:
            return i
        for k in range(prefix.shape[0]):
            if data[place + k] != prefix[k]:
                return i
        place += prefix.shape[0]
        for j in range(kinds.shape[0]):
            if place + 8 > end or _uint32(data, place) != kinds[j]:
                return i
            first[i, j] = place + 8
            stop[i, j] = place = place + 8 + _uint32(data, place + 4)
        if end - place != suffix.shape[0]:
            return i
        for k in range(suffix.shape[0]):
            if data[place + k] != suffix[k]:
                return i
    return -1
