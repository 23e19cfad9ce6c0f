"""The inner loop of reading entity columns: whole numbers out of a serialized `RepeatedValue`."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import int64, njit, types, uint8, uint64
from numpy.typing import NDArray

from decision.schema import ValueType

WHOLE: Final = frozenset({ValueType.INT32, ValueType.INT64, ValueType.UNIX_TIMESTAMP})
"""The types of join keys whose values are varints in `feast.types.Value`; a type's number is that of its field."""
_LIST_TAG: Final = 0x0A
_MOST_BYTES: Final = 10
_data = types.Array(uint8, 1, "C", readonly=True)


@njit([int64(_data, int64, int64[::1])], cache=True, error_model="numpy")
def read_varints(data, tag, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the varints of `repeated Value val = 1`; 0 unless all have the tag, as many as fit exactly."""
    at, stop, count = 0, len(data), 0
    while at < stop:
        if count == len(out) or at + 4 > stop or data[at] != _LIST_TAG or data[at + 2] != tag:
            return 0
        size = int64(data[at + 1]) - 1
        at += 3
        if size < 1 or size > _MOST_BYTES or at + size > stop:
            return 0
        number = uint64(0)
        for i in range(size):
            byte = data[at + i]
            number |= uint64(byte & 0x7F) << uint64(7 * i)
            if (byte < 0x80) != (i == size - 1):
                return 0
        out[count] = int64(number)
        count += 1
        at += size
    return int64(count == len(out))


def whole_numbers(value_type: ValueType, data: bytes, count: int) -> NDArray[np.int64] | None:
    """The values of a serialized `RepeatedValue` if all of them are of a type.

    Args:
        value_type: One of `WHOLE`.
        data: As protobuf writes it.
        count: How many values there are.

    Returns:
        int64[count], timestamps in seconds; None where a value is of another type.
    """
    out = np.empty(count, np.int64)
    return out if read_varints(np.frombuffer(data, np.uint8), int(value_type) << 3, out) else None
