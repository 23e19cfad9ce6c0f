"""Events as a pandas frame: what the transformations of stream views take in."""

from __future__ import annotations

import numpy as np
import pandas as pd

from decision.schema import Value
from streaming.blocks import Column, frame_of, times
from streaming.events import Events, PropertyType

_NULLABLE: dict[PropertyType, str] = {"int64": "Int64", "bool": "boolean"}
_NAT = int(np.iinfo(np.int64).min)


def events_frame(events: Events, property_types: dict[str, PropertyType]) -> pd.DataFrame:
    """One row per event, in order.

    Columns: `event_id`, `event_type`, `customer_id` (object), `event_time` (datetime64[us, UTC]) and one per declared
    property of any event type: string as object (None), double as float64 (NaN), int64 as Int64, bool as boolean,
    timestamp as datetime64[us, UTC] (NaT).
    """
    columns: dict[str, Column] = {
        "event_id": list(events.event_ids),
        "event_type": list(events.event_types),
        "customer_id": list(events.customer_ids),
        "event_time": times(events.event_us),
    }
    for name, kind in property_types.items():
        columns[name] = _column([properties.get(name) for properties in events.properties], kind)
    return frame_of(columns, len(events))


def _column(values: list[Value], kind: PropertyType) -> Column:
    if kind == "string":
        return values
    if kind == "double":
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if kind == "timestamp":
        return times(np.array([_NAT if value is None else value for value in values], dtype=np.int64))
    return pd.array(values, dtype=_NULLABLE[kind])
