"""The inner loops of reading requests: columns out of a `GetOnlineFeaturesRequest`, whole numbers out of a column."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import int64, njit, types, uint8, uint64
from numpy.typing import NDArray

from decision.schema import ValueType
from online.kernels import FLAGS, is_plain, is_utf8, varint
from online.memory import byte_at

WHOLE: Final = frozenset({ValueType.INT32, ValueType.INT64, ValueType.UNIX_TIMESTAMP})
"""The types of join keys whose values are varints in `feast.types.Value`; a type's number is that of its field."""
_LIST_TAG: Final = 0x0A
_INT32_TAG: Final = 0x18
_MOST_BYTES: Final = 10
MOST_COLUMNS: Final = 16
_ENTITIES: Final = 0x1A
_CONTEXT: Final = 0x2A
_data = types.Array(uint8, 1, "C", readonly=True)
_table = int64[:, ::1]

FIELD, NAME, NAME_STOP, FIRST, LAST, COUNT, ENTRY, ENTRY_STOP = range(8)
"""What is noted of a column: tag of its map, where name and `RepeatedValue` lie, count of values, where all lies."""


@njit([types.UniTuple(int64, 2)(int64, int64)], **FLAGS)
def sized(at, stop):  # type: ignore[no-untyped-def]
    """Read the length behind a tag; returns where its bytes begin and end, -1 where they are not all there."""
    size, start = varint(at + 1, stop)
    # Readers differ on a length of more bytes than 32 bits need.
    if not 0 <= start <= at + 6 or not 0 <= size <= stop - start:
        return -1, -1
    return start, start + size


@njit([int64(int64, int64)], **FLAGS)
def count_scalars(at, stop):  # type: ignore[no-untyped-def]
    """Count the values of a `RepeatedValue`, -1 where one is no scalar."""
    count = 0
    while at < stop:
        start, behind = sized(at, stop)
        if byte_at(at) != _LIST_TAG or start < 0 or start == behind or not is_plain(start, behind):
            return -1
        count += 1
        at = behind
    return count


@njit([int64(_data, _table)], **FLAGS)
def split_columns(data, columns):  # type: ignore[no-untyped-def]
    """Find the columns in a `GetOnlineFeaturesRequest`; returns how many there are, -1 for what is left to protobuf."""
    base = int64(data.ctypes.data)
    at, last, found = base, base + len(data), 0
    while at < last:
        tag = byte_at(at)
        entry = at
        if tag < 0x80 and tag & 7 == 0:
            _, at = varint(at + 1, last)
            if at < 0:
                return -1
            continue
        start, at = sized(at, last)
        if tag >= 0x80 or tag & 7 != 2 or start < 0:
            return -1
        if tag not in (_ENTITIES, _CONTEXT):
            continue
        if found == columns.shape[0] or start == at or byte_at(start) != 0x0A:
            return -1
        name, name_stop = sized(start, at)
        if name < 0 or name_stop == at or byte_at(name_stop) != 0x12 or not is_utf8(name, name_stop):
            return -1
        first, stop = sized(name_stop, at)
        count = count_scalars(first, stop) if stop == at else -1
        if count < 0:
            return -1
        columns[found, FIELD] = tag
        columns[found, NAME], columns[found, NAME_STOP] = name - base, name_stop - base
        columns[found, FIRST], columns[found, LAST] = first - base, stop - base
        columns[found, COUNT] = count
        columns[found, ENTRY], columns[found, ENTRY_STOP] = entry - base, at - base
        found += 1
    return found


@njit([int64(_data, int64, int64[::1])], cache=True, error_model="numpy")
def read_varints(data, tag, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the varints of `repeated Value val = 1`.

    Returns:
        0 unless all have the tag and stand as protobuf writes them, as many as fit exactly.
    """
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
        if size > 1 and (data[at + size - 1] == 0 or (size == _MOST_BYTES and data[at + size - 1] != 1)):
            return 0
        if tag == _INT32_TAG and not -(1 << 31) <= int64(number) < 1 << 31:
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


def columns_of(data: bytes) -> list[list[int]] | None:
    """The columns of a `GetOnlineFeaturesRequest`, see `FIELD`.

    Returns:
        None where it has to be read by protobuf: a value is no scalar, or something stands as protobuf would not write
        it.
    """
    columns = np.empty((MOST_COLUMNS, ENTRY_STOP + 1), np.int64)
    count: int = split_columns(np.frombuffer(data, np.uint8), columns)
    found: list[list[int]] = columns[:count].tolist()
    return found if count >= 0 else None
