"""The rows that the windows take in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from streaming.windows.order import EventIds
from streaming.windows.plan import WindowPlan

IntArray = npt.NDArray[np.int64]
RawColumn: TypeAlias = npt.NDArray[Any] | Sequence[object] | pd.api.extensions.ExtensionArray


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one view for a group of entities, in any order.

    Attributes:
        entity: Group index of each row's entity, from 0.
        event_us: Event time in microseconds.
        event_ids: Unique within an entity; orders rows of one event time. May be empty if the plan is not `ordered`.
        columns: By name, one value per row: float64 (NaN is NULL), int64, bool, datetime64 (NaT is NULL), objects
            (None, NaN, NA are NULL) or a pandas nullable array.
    """

    entity: IntArray
    event_us: IntArray
    event_ids: EventIds
    columns: Mapping[str, RawColumn]

    def __len__(self) -> int:
        return len(self.event_us)

    @classmethod
    def empty(cls, plan: WindowPlan) -> Batch:
        """No rows: time alone passes."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, (), dict.fromkeys(plan.columns, nothing))

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, entity: IntArray, plan: WindowPlan, time_column: str = "event_time"
    ) -> Batch:
        """Take the columns that a plan needs from a frame.

        Args:
            frame: With `event_id` (strings), the time column (datetime64, UTC) and `plan.columns`.
            entity: Group index of each row.
            plan: The view's plan.
            time_column: Name of the event time.
        """
        event_us = microseconds(frame[time_column])
        ids = frame["event_id"].to_numpy(dtype=object) if plan.ordered else ()
        columns = {name: raw_column(frame[name]) for name in plan.columns}
        return cls(np.asarray(entity, dtype=np.int64), event_us, ids, columns)


def raw_column(series: pd.Series[Any]) -> RawColumn:
    """The values of a series without a copy."""
    return series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array


def rows_of(column: RawColumn, rows: IntArray) -> RawColumn:
    """Some rows of a column."""
    if isinstance(column, np.ndarray | pd.api.extensions.ExtensionArray):
        return column.take(rows)
    return [column[row] for row in rows.tolist()]


def naive_times(times: pd.api.extensions.ExtensionArray) -> npt.NDArray[np.datetime64]:
    """Times with a zone as datetime64 in UTC."""
    return np.asarray(pd.DatetimeIndex(times).tz_convert("UTC").tz_localize(None))


def microseconds(series: pd.Series[Any]) -> IntArray:
    """Times, with a zone or integers already, in microseconds."""
    raw = raw_column(series)
    times = naive_times(raw) if isinstance(raw, pd.api.extensions.ExtensionArray) else np.asarray(raw)
    return (
        times.astype("datetime64[us]").view(np.int64) if times.dtype.kind == "M" else times.astype(np.int64)
    )
