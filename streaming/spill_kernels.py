"""The inner loop that hashes texts."""

from __future__ import annotations

import numpy as np
from numba import njit, types

_IN = types.Array(types.uint8, 1, "C", readonly=True)
_PRIME = np.uint64(0x100000001B3)


@njit([types.void(_IN, types.int64[::1], types.uint64[::1])], cache=True, nogil=True, boundscheck=False)
def hash_texts(data, at, out):  # type: ignore[no-untyped-def]
    """Go on with the hashes of some columns in the next one (FNV-1a, and its bits mixed at the end of each text).

    Args:
        data: The texts, one after another.
        at: Where each begins; one more at the end.
        out: The hash of each so far, which changes.
    """
    for i in range(out.shape[0]):
        z = out[i] ^ np.uint64(0xCBF29CE484222325)
        for place in range(at[i], at[i + 1]):
            z = (z ^ np.uint64(data[place])) * _PRIME
        z ^= z >> np.uint64(32)
        z *= np.uint64(0xD6E8FEB86659FD93)
        z ^= z >> np.uint64(32)
        out[i] = z
