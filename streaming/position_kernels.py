"""The inner loop that reads stream ids."""

from __future__ import annotations

from numba import njit, types

_DASH, _ZERO = 45, 48


@njit(
    [
        types.void(
            types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1], types.int64, types.int64[::1]
        )
    ],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def read_ids(data, at, bits, out):  # type: ignore[no-untyped-def]
    """Read ids `ms-seq` that lie one after another, each as `ms` shifted by so many bits plus `seq`.

    Args:
        data: The ids.
        at: Where each begins; one more at the end.
        bits: As above.
        out: Takes them.
    """
    for i in range(out.shape[0]):
        high, low = 0, 0
        for k in range(at[i], at[i + 1]):
            if data[k] == _DASH:
                high, low = low << bits, 0
            else:
                low = 10 * low + (data[k] - _ZERO)
        out[i] = high + low
