"""A view of every type that is logged offline, and rows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from decision.schema import Feature, JoinKey, Scalar, Value, ValueType, View
from online.keys import EntityKeys
from online.words import runs_of
from streaming.advance import ViewValues
from streaming.plan import ViewPlan
from streaming.windows.read import Column

AnyArray = npt.NDArray[Any]

SCALARS = (
    ValueType.INT32,
    ValueType.INT64,
    ValueType.DOUBLE,
    ValueType.FLOAT,
    ValueType.BOOL,
    ValueType.UNIX_TIMESTAMP,
    ValueType.STRING,
    ValueType.BYTES,
)
LISTS = tuple(ValueType[f"{kind.name}_LIST"] for kind in SCALARS)
KEYS = (
    JoinKey(name="user", value_type=ValueType.STRING),
    JoinKey(name="item", value_type=ValueType.INT32),
    JoinKey(name="at", value_type=ValueType.UNIX_TIMESTAMP),
)
"""Not in the order in which entity keys have them."""
MIXED = View(
    name="mixed",
    join_keys=KEYS,
    features=tuple(Feature(name=kind.name.lower(), value_type=kind) for kind in (*SCALARS, *LISTS)),
    offline_path="offline/mixed/*.parquet",
    timestamp_column="shown",
    source_columns=(("user", "who"), ("double", "real"), ("shown", "shown_at")),
)
MARKS = View(
    name="marks",
    join_keys=KEYS[:1],
    features=(Feature(name="good", value_type=ValueType.BOOL),),
    offline_path="offline/marks/*.parquet",
)
SECOND_US = 1_000_000
_DTYPES = {
    ValueType.INT32: np.int64,
    ValueType.INT64: np.int64,
    ValueType.DOUBLE: np.float64,
    ValueType.FLOAT: np.float64,
    ValueType.BOOL: np.bool_,
    ValueType.UNIX_TIMESTAMP: np.int64,
}


def plan_of(view: View) -> ViewPlan:
    """The view, fed by nothing."""
    return ViewPlan(view, None, None, EntityKeys("p", view.join_keys), view.join_keys[0].name, view.name)


def column_of(kind: ValueType, values: Sequence[Value]) -> Column:
    """Values as the windows give them."""
    if kind.name.endswith("_LIST"):
        items = [item for own in values for item in own]  # type: ignore[union-attr]
        offsets = np.cumsum([0, *(len(own) for own in values)], dtype=np.int32)  # type: ignore[arg-type]
        element = column_of(ValueType[kind.name.removesuffix("_LIST")], items)
        return Column(element.values, np.zeros(len(values), dtype=np.bool_), offsets)
    null = np.array([value is None for value in values], dtype=np.bool_)
    filler = {ValueType.STRING: "", ValueType.BYTES: b""}.get(kind, 0)
    filled: AnyArray = np.empty(len(values), dtype=_DTYPES.get(kind, np.object_))
    filled[:] = [filler if value is None else value for value in values]
    return Column(filled, null)


def values_of(plan: ViewPlan, columns: Mapping[str, Column | list[Value]], count: int) -> ViewValues:
    """Values of a view for the first entities of a group."""
    entities = np.arange(count, dtype=np.int64)
    return ViewValues(plan, entities, columns, np.zeros(count, dtype=np.int64), runs_of([()] * count))


_VALUES: dict[ValueType, tuple[Scalar, Scalar]] = {
    ValueType.INT32: (-(2**31), 7),
    ValueType.INT64: (2**63 - 1, -1),
    ValueType.DOUBLE: (0.1, math.nan),
    ValueType.FLOAT: (0.1, -math.inf),
    ValueType.BOOL: (True, False),
    ValueType.UNIX_TIMESTAMP: (-SECOND_US, 1_700_000_000 * SECOND_US),
    ValueType.STRING: ("", "jam\0öl"),
    ValueType.BYTES: (b"", b"\0\xff"),
}
EXAMPLE: dict[ValueType, list[Value]] = {
    **{kind: [first, None, last] for kind, (first, last) in _VALUES.items()},
    **{
        ValueType[f"{kind.name}_LIST"]: [(), (first,), (last, first)]
        for kind, (first, last) in _VALUES.items()
    },
}
EXAMPLE_ROWS: list[dict[str, Value]] = [
    {"user": "ada", "item": -1, "at": 0},
    {"user": "bob\0cyd", "item": 2**31 - 1, "at": 1_700_000_000 * SECOND_US},
    {"user": "", "item": 0, "at": -SECOND_US},
]
"""Entities of `MIXED`, of which `EXAMPLE` has a value each by type."""
