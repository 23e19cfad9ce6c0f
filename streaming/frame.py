"""Events as a pandas frame: what the transformations of stream views take in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from streaming.events import Events, PropertyType

TIME_DTYPE = "datetime64[us, UTC]"
_DTYPES: dict[PropertyType, str] = {
    "string": "object",
    "double": "float64",
    "int64": "Int64",
    "bool": "boolean",
    "timestamp": TIME_DTYPE,
}


def events_frame(events: Events, property_types: dict[str, PropertyType]) -> pd.DataFrame:
    """One row per event, in order.

    Columns: `event_id`, `event_type`, `customer_id` (object), `event_time` (datetime64[us, UTC]) and one per declared
    property of any event type: string as object (None), double as float64 (NaN), int64 as Int64, bool as boolean,
    timestamp as datetime64[us, UTC] (NaT).
    """
    columns: dict[str, object] = {
        "event_id": np.array(events.event_ids, dtype=object),
        "event_type": np.array(events.event_types, dtype=object),
        "customer_id": np.array(events.customer_ids, dtype=object),
        "event_time": _times(events.event_us),
    }
    for name, kind in property_types.items():
        values = [properties.get(name) for properties in events.properties]
        if kind == "timestamp":
            columns[name] = _times(values)
        elif kind == "double":
            columns[name] = np.array(
                [np.nan if value is None else value for value in values], dtype=np.float64
            )
        elif kind == "string":
            columns[name] = np.array(values, dtype=object)
        else:
            columns[name] = pd.array(values, dtype=_DTYPES[kind])
    return pd.DataFrame(columns, copy=False)


def _times(micros: Sequence[object] | np.ndarray) -> pd.DatetimeIndex:
    if not isinstance(micros, np.ndarray):
        missing = np.iinfo(np.int64).min
        micros = np.array([missing if value is None else value for value in micros], dtype=np.int64)
    return pd.DatetimeIndex(micros.view("datetime64[us]"), tz="UTC")
