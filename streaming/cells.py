"""Cells of pandas as plain values: what is kept of the rows of views without windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from decision.schema import Value


def plain_column(column: pd.Series[Any]) -> list[Value]:
    """The cells of a column, each by itself as `plain` has it."""
    return [plain(value) for value in column]


def plain(value: Any) -> Value:
    """A cell as a plain value: NaN, NaT and NA are NULL, timestamps are whole seconds in microseconds."""
    if isinstance(value, (list, tuple, np.ndarray)):
        items: list[Any] = [plain(item) for item in value]
        return tuple(items)
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return _micros(value) // 1_000_000 * 1_000_000
    scalar: Value = value.item() if isinstance(value, np.generic) else value
    return scalar


def _micros(moment: pd.Timestamp) -> int:
    """Microseconds since the epoch; `Timestamp.value` counts nanoseconds and ends in 2262."""
    return int(moment.as_unit("us").to_numpy().view("int64"))
