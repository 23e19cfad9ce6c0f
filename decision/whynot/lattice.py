"""The values that an ordered input can have, in order, as whole numbers that can be bisected.

A feature of type Int32, Float32 or UnixTimestamp holds fewer values than the language's int64, float64 and timestamp:
what is proposed for it must be a value that it can have.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final, cast

from decision.lang.values import INT64_MAX, INT64_MIN
from decision.schema import DType, ValueType

SECOND_US: Final = 1_000_000
DIGITS: Final = 4
"""Significant digits in which a fraction is proposed first; more where that is not near enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Values in ascending order; the value at an index is `at(index)`, and `low` and `high` are the ends."""

    low: int
    high: int
    at: Callable[[int], float]
    index_of: Callable[[float], int]
    fractional: bool = False

    def first(self, holds: Callable[[float], bool]) -> int:
        """The first index whose value holds, for what holds from some value on; `high + 1` where none does."""
        low, high = self.low, self.high + 1
        while low < high:
            middle = (low + high) // 2
            if holds(self.at(middle)):
                high = middle
            else:
                low = middle + 1
        return low

    def nearest(self, low: int, high: int, wanted: float) -> float:
        """The value between two indices nearest to the wanted one; of fractions a short one that is near."""
        index = self.index_of(wanted)
        if low <= index <= high:
            return self.at(index)
        start, end = self.at(low), self.at(high)
        if not self.fractional:
            return start if index < low else end
        short = _short(start, end, upward=True) if index < low else _short(end, start, upward=False)
        return self.at(self.index_of(short))


def _short(nearest: float, farthest: float, *, upward: bool) -> float:
    """The number of fewest digits, from `DIGITS` on, at or a little beyond the nearest and within the range."""
    if nearest == 0 or not math.isfinite(nearest):
        return nearest
    low, high = min(nearest, farthest), max(nearest, farthest)
    exact = Decimal(nearest)
    for digits in range(DIGITS, 17):
        step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
        whole = (exact / step).to_integral_value(ROUND_CEILING if upward else ROUND_FLOOR)
        value = float(whole * step)
        if low <= value <= high:
            return value
    return nearest


def lattice_of(dtype: DType, value_type: ValueType | None) -> Lattice | None:
    """The values of an input of this type; None where they have no order.

    Args:
        dtype: The language's type.
        value_type: A feature's type in Feast; None for request context, which has all of the language's.
    """
    match dtype:
        case DType.INT64:
            bits = 31 if value_type is ValueType.INT32 else 63
            return Lattice(low=-(1 << bits), high=(1 << bits) - 1, at=_same, index_of=int)
        case DType.TIMESTAMP if value_type is None:
            return Lattice(low=INT64_MIN, high=INT64_MAX, at=_same, index_of=int)
        case DType.TIMESTAMP:
            most = INT64_MAX // SECOND_US
            return Lattice(low=-most, high=most, at=_from_seconds, index_of=_seconds)
        case DType.FLOAT64 if value_type is ValueType.FLOAT:
            return _floats("<f", "<i", 31)
        case DType.FLOAT64:
            return _floats("<d", "<q", 63)
        case _:
            return None


def _same(index: int) -> int:
    return index


def _from_seconds(index: int) -> int:
    return index * SECOND_US


def _seconds(value: float) -> int:
    return int(value) // SECOND_US


def _floats(float_code: str, int_code: str, sign_bit: int) -> Lattice:
    """Floats of one width by their bits, which have their order; both infinities belong to them, both zeros are one."""
    top = cast("int", struct.unpack(int_code, struct.pack(float_code, math.inf))[0])

    def at(index: int) -> float:
        size = cast("float", struct.unpack(float_code, struct.pack(int_code, abs(index)))[0])
        return -size if index < 0 else size

    def index_of(value: float) -> int:
        size = cast("int", struct.unpack(int_code, struct.pack(float_code, abs(value)))[0])
        return -size if value < 0 else size

    assert top < 1 << sign_bit
    return Lattice(low=-top, high=top, at=at, index_of=index_of, fractional=True)
