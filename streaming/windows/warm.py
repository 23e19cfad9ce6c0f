"""Compiles every kernel before the first event needs it."""

from __future__ import annotations

import numpy as np

from decision.schema import Aggregation, Feature, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState, decode, encode
from streaming.windows.stream import apply
from streaming.windows.sweep import sweep

_AGGREGATIONS = (
    ("sum", ValueType.DOUBLE),
    ("min", ValueType.DOUBLE),
    ("last", ValueType.DOUBLE),
    ("count_distinct", ValueType.INT64),
)


def warm() -> None:
    """Take one step, one sweep and one round trip, so that nothing compiles or loads after it."""
    plan = WindowPlan.compile(
        View(
            name="warm",
            join_keys=(),
            features=tuple(Feature(name=name, value_type=kind) for name, kind in _AGGREGATIONS),
            aggregations=tuple(
                Aggregation(feature=name, column="x", function=name, window_s=60) for name, _ in _AGGREGATIONS
            ),
            hop_s=60,
        )
    )
    row = np.zeros(1, dtype=np.int64)
    batch = Batch(row, row, ("a",), {"x": np.ones(1)})
    state = apply(plan, [TileState.empty(plan)], batch, 0).states[0]
    decode(plan, encode(plan, state))
    sweep(plan, batch, 1, 0)
