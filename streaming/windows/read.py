"""From the kernels' payloads to feature values."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from decision.schema import Value
from streaming.windows.inputs import floats_from_ordered
from streaming.windows.plan import Carrier, Encoding, Output, Read

AnyArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
SECOND_US = 1_000_000


class Column(NamedTuple):
    """Values of one feature, one per row.

    Attributes:
        values: float64, int64 (also times: microseconds of whole seconds), bool, or objects (str, bytes). Filler where
            NULL. For lists: all items, one after another.
        null: True where NULL. Lists are never NULL.
        offsets: For lists, int32 of length rows + 1: row i holds items offsets[i] to offsets[i + 1], newest first.
    """

    values: AnyArray
    null: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int32] | None = None

    def to_list(self) -> list[Value]:
        """The values in Python: NULL is None, lists are tuples."""
        items: list[Any] = self.values.tolist()
        if self.offsets is not None:
            ends = self.offsets.tolist()
            return [tuple(items[start:stop]) for start, stop in itertools.pairwise(ends)]
        if not self.null.any():
            return items
        return [None if null else item for item, null in zip(items, self.null.tolist(), strict=True)]


def by_feature(payload: IntArray, null: AnyArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Output rows as `number_column` takes them: turned, so that what belongs to a feature lies together."""
    return np.ascontiguousarray(payload.T), np.ascontiguousarray(null.T).view(np.bool_)


def number_column(output: Output, payload: IntArray, null: npt.NDArray[np.bool_]) -> Column:
    """A feature that is a number: count, sum, mean, min, max."""
    x, missing = payload[output.offset], null[output.offset]
    if output.read == Read.MEAN:
        count = np.maximum(payload[output.offset + 1], 1)
        return Column(x / SECOND_US / count, missing)
    if output.fixed:
        return Column(x / SECOND_US, missing)
    if output.encoding == Encoding.ORDERED:
        return Column(floats_from_ordered(x), missing)
    return Column(whole_seconds(x) if output.time else x, missing)


def carried_column(output: Output, payload: IntArray, null: AnyArray, carried: AnyArray) -> Column:
    """A feature that carries values: first, last, last_k. Payloads index into `carried`."""
    columns = slice(output.offset, output.offset + output.width)
    places, missing = payload[:, columns], null[:, columns] != 0
    if not output.listed:
        return Column(_take(output, carried, places[:, 0]), missing[:, 0])
    offsets = np.zeros(len(places) + 1, dtype=np.int32)
    np.cumsum((~missing).sum(axis=1), out=offsets[1:])
    return Column(_take(output, carried, places[~missing]), np.zeros(len(places), dtype=np.bool_), offsets)


def carried_values(output: Output, values: list[Any], null: npt.NDArray[np.bool_] | None) -> Column:
    """A column of carried values, None where NULL; times are floored to whole seconds."""
    missing = np.zeros(len(values), dtype=np.bool_) if null is None else null
    assert output.carrier is not None
    dtype, filler = _CARRIED[output.carrier]
    out = np.empty(len(values), dtype=dtype)
    out[:] = values if null is None else [filler if value is None else value for value in values]
    return Column(whole_seconds(out) if output.time else out, missing)


_CARRIED: dict[Carrier, tuple[Any, Any]] = {
    Carrier.FLOAT: (np.float64, 0.0),
    Carrier.INT: (np.int64, 0),
    Carrier.BOOL: (np.bool_, False),
    Carrier.STRING: (object, ""),
    Carrier.BYTES: (object, b""),
    Carrier.TIME: (np.int64, 0),
}


def _take(output: Output, carried: AnyArray, places: IntArray) -> AnyArray:
    if not len(carried):
        return np.zeros(len(places), dtype=carried.dtype)
    return whole_seconds(carried[places]) if output.time else carried[places]


def whole_seconds(x: IntArray) -> IntArray:
    """Microseconds, floored to whole seconds as both stores keep them."""
    return x // SECOND_US * SECOND_US
