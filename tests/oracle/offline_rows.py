"""A view's offline rows as a table, value by value: what packed rows must become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from decision.schema import Value, View

_TIME = pa.timestamp("us", tz="UTC")
_KINDS = {
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
    "BOOL": pa.bool_(),
    "UNIX_TIMESTAMP": _TIME,
    "STRING": pa.string(),
    "BYTES": pa.binary(),
}
_KINDS |= {f"{name}_LIST": pa.list_(kind) for name, kind in _KINDS.items()}


def offline_table(
    view: View,
    entities: Sequence[Mapping[str, Value]],
    values: Mapping[str, Sequence[Value]],
    times: Sequence[tuple[int, int]],
) -> pa.Table:
    """The table of some rows.

    Args:
        view: Whose.
        entities: Join key values of each row.
        values: By feature.
        times: Logical time and creation time of each row, in microseconds.
    """
    columns = {key.name: [entity[key.name] for entity in entities] for key in view.join_keys}
    columns |= {feature.name: list(values[feature.name]) for feature in view.features}
    kinds = {key.name: _KINDS[key.value_type.name] for key in view.join_keys}
    kinds |= {feature.name: _KINDS[feature.value_type.name] for feature in view.features}
    for place, name in enumerate((view.timestamp_column, view.created_column)):
        columns[name], kinds[name] = [moments[place] for moments in times], _TIME
    arrays = [pa.array(column, type=kinds[name]) for name, column in columns.items()]
    return pa.table(arrays, names=[view.source_column(name) for name in columns])
