"""The inner loop that sorts times into buckets."""

from __future__ import annotations

from numba import njit, types

_V, _F = types.int64[::1], types.float64[::1]


@njit([types.float64(_V, _F, _V)], cache=True, nogil=True, boundscheck=False)
def count_times(times_us, bounds_s, counts):  # type: ignore[no-untyped-def]
    """Count times by bucket; returns their sum in seconds.

    Args:
        times_us: In microseconds; those below zero count as zero.
        bounds_s: Upper bound of each bucket but the last, ascending, in seconds.
        counts: Of each bucket; raised.
    """
    sum_s = 0.0
    for i in range(times_us.shape[0]):
        seconds = max(times_us[i], 0) / 1e6
        place = 0
        while place < bounds_s.shape[0] and bounds_s[place] < seconds:
            place += 1
        counts[place] += 1
        sum_s += seconds
    return sum_s
