"""The slow, obvious meaning of sliding windows: every value from the raw events, nothing kept in between.

No tiles, no int64, no shared code: sums are `fractions.Fraction`, order is a sorted list, many distinct values are
counted by the k smallest hashes of all of them.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from decision.schema import Aggregation, DType, Scalar, Value, View

SECOND_US = 1_000_000
EXACT_BELOW = 256
"""Distinct counts are exact below."""


@dataclass(frozen=True)
class Event:
    """One event of one entity; a column that is absent or NaN is NULL."""

    event_us: int
    event_id: str
    values: Mapping[str, Scalar | None]


def feature_values(
    view: View, events: Iterable[Event], now_us: int, exact_below: int = EXACT_BELOW
) -> dict[str, Value]:
    """Every feature of a view at a logical time."""
    seen = sorted((e for e in events if e.event_us <= now_us), key=lambda e: (e.event_us, e.event_id))
    return {a.feature: _feature(view, a, seen, now_us, exact_below) for a in view.aggregations}


def value_time(view: View, events: Sequence[Event], now_us: int) -> int | None:
    """The later of the last event and the last boundary at which an event left a window."""
    times = [event.event_us for event in events if event.event_us <= now_us]
    return max([*times, *(at for at in leave_times(view, events) if at <= now_us)], default=None)


def next_expiry(view: View, events: Sequence[Event], now_us: int) -> int | None:
    """The first boundary after `now_us` at which an event leaves a window."""
    return min((at for at in leave_times(view, events) if at > now_us), default=None)


def change_times(view: View, events: Sequence[Event], until_us: int) -> list[int]:
    """Every instant at which a value may change."""
    times = {event.event_us for event in events} | leave_times(view, events)
    return sorted(at for at in times if at <= until_us)


def leave_times(view: View, events: Iterable[Event]) -> set[int]:
    """First boundary at which floor(t, hop) − width lies past an event's own hop, for every event and window."""
    hop = view.hop_s * SECOND_US
    widths = {a.window_s * SECOND_US for a in view.aggregations if a.window_s is not None}
    return {_floor(e.event_us, hop) + hop + width for e in events for width in widths}


def _floor(x: int, step: int) -> int:
    return math.floor(Fraction(x, step)) * step


def _feature(
    view: View, aggregation: Aggregation, seen: Sequence[Event], now_us: int, exact_below: int
) -> Value:
    rows = list(seen)
    if aggregation.window_s is not None:
        start = _floor(now_us, view.hop_s * SECOND_US) - aggregation.window_s * SECOND_US
        rows = [event for event in seen if event.event_us >= start]
    if aggregation.column in ("", "*"):
        return len(rows)
    values = [v for event in rows if not _null(v := event.values.get(aggregation.column))]
    if aggregation.function == "count_distinct":
        return distinct(values, exact_below)
    dtype = view.feature_by_name[aggregation.feature].dtype
    assert dtype is not None
    return _aggregate(aggregation.function, values, dtype)


def _null(value: Scalar | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _aggregate(function: str, values: list[Scalar | None], dtype: DType) -> Value:
    listed = re.fullmatch(r"last_k\((\d+)\)", function)
    if listed:
        newest = list(reversed(values))[: int(listed[1])]
        return tuple(_typed(value, DType(dtype.removesuffix("_list"))) for value in newest)
    match function:
        case "count":
            return len(values)
        case "sum":
            return _whole_sum(values) if dtype == DType.INT64 else _sum(values)
        case _ if not values:
            return None
        case "mean":
            return _sum(values) / len(values)
        case "min" | "max":
            best = (min if function == "min" else max)(values, key=_order)
            return _typed(best, dtype)
        case "first":
            return _typed(values[0], dtype)
        case "last":
            return _typed(values[-1], dtype)
        case _:
            raise AssertionError(function)


def distinct(values: Iterable[Scalar | None], exact_below: int) -> int:
    """How many values differ, or what the k-th smallest of their hashes tells where they are k or more."""
    told = sorted({_hash(value) for value in values})
    if len(told) < exact_below:
        return len(told)
    return max(exact_below, round(float((exact_below - 1) * 2**64) / (float(told[exact_below - 1]) + 1.0)))


def _hash(value: Scalar | None) -> int:
    """SplitMix64 of numbers, the first eight bytes of BLAKE2b of texts and bytes."""
    if isinstance(value, str | bytes):
        data = b"s" + value.encode() if isinstance(value, str) else b"b" + value
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    assert isinstance(value, int | float)
    if value == value // 1 and abs(value) < 2**63:
        word = int(value)
    else:
        word = int.from_bytes(struct.pack("<d", value), "little") ^ 0x5851F42D4C957F2D
    z = (word + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def _number(value: Scalar | None) -> float | int:
    assert isinstance(value, float | int)
    return value


def _whole_sum(values: Iterable[Scalar | None]) -> int:
    return sum([int(_number(value)) for value in values])


def _sum(values: Iterable[Scalar | None]) -> float:
    """Each value rounded half to even to 10⁻⁶ (`round` of a Fraction does that), added exactly."""
    return float(sum([round(Fraction(_number(value)) * SECOND_US) for value in values])) / 1e6


def _order(value: Scalar | None) -> tuple[Scalar | None, float]:
    return value, math.copysign(1.0, value) if isinstance(value, float) else 0.0


def _typed(value: Scalar | None, dtype: DType) -> Scalar:
    assert value is not None
    match dtype:
        case DType.TIMESTAMP:
            return _floor(int(value), SECOND_US)
        case DType.FLOAT64:
            return float(value)
        case DType.INT64:
            return int(value)
        case DType.BOOL:
            return bool(value)
        case _:
            return value
