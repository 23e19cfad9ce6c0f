"""The inner loop that reads numbers and stream ids."""

from __future__ import annotations

from numba import njit, types

_DASH, _END, _ZERO = 45, 10, 48


@njit(
    [types.boolean(types.Array(types.uint8, 1, "C", readonly=True), types.int64, types.int64[::1])],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def read_numbers(data, bits, out):  # type: ignore[no-untyped-def]
    """Read decimal numbers, and ids `ms-seq` as `ms` shifted by so many bits plus `seq`.

    Args:
        data: One after another, each with the end of a line behind it.
        bits: As above.
        out: Takes them.

    Returns:
        Whether there was a number for each place and nothing else.
    """
    place, start, high, low = 0, 0, 0, 0
    for k in range(data.shape[0]):
        byte = data[k]
        if _ZERO <= byte < _ZERO + 10:
            low = 10 * low + (byte - _ZERO)
        elif byte == _DASH and k > start:
            high, low = low << bits, 0
        elif byte == _END and k > start and place < out.shape[0]:
            out[place] = high + low
            place, start, high, low = place + 1, k + 1, 0, 0
        else:
            return False
    return place == out.shape[0]
