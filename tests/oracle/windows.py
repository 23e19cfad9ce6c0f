"""The slow, obvious meaning of sliding windows: every value from the raw events, nothing kept in between.

No tiles, no int64, no shared code: sums are `fractions.Fraction`, order is a sorted list.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from decision.schema import Aggregation, DType, Scalar, Value, View

SECOND_US = 1_000_000


@dataclass(frozen=True)
class Event:
    """One event of one entity; a column that is absent or NaN is NULL."""

    event_us: int
    event_id: str
    values: Mapping[str, Scalar | None]


def feature_values(view: View, events: Iterable[Event], now_us: int) -> dict[str, Value]:
    """Every feature of a view at a logical time."""
    seen = sorted((e for e in events if e.event_us <= now_us), key=lambda e: (e.event_us, e.event_id))
    return {a.feature: _feature(view, a, seen, now_us) for a in view.aggregations}


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


def _feature(view: View, aggregation: Aggregation, seen: Sequence[Event], now_us: int) -> Value:
    rows = list(seen)
    if aggregation.window_s is not None:
        start = _floor(now_us, view.hop_s * SECOND_US) - aggregation.window_s * SECOND_US
        rows = [event for event in seen if event.event_us >= start]
    if aggregation.column in ("", "*"):
        return len(rows)
    values = [v for event in rows if not _null(v := event.values.get(aggregation.column))]
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
