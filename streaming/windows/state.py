"""What the windows remember of one entity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decision.schema import Scalar
from streaming.windows.plan import SlotKind, WindowPlan

IntArray = npt.NDArray[np.int64]
Record = tuple[int, str, Scalar]
"""A remembered row: event time in microseconds, event id, value."""

NEVER_US = int(np.iinfo(np.int64).min)
"""The time of what has not happened yet."""
_EMPTY: dict[int, int] = {
    SlotKind.COUNT: 0,
    SlotKind.SUM: 0,
    SlotKind.MIN: int(np.iinfo(np.int64).max),
    SlotKind.MAX: int(np.iinfo(np.int64).min),
}


@dataclass(frozen=True, slots=True, eq=False)
class TileState:
    """Tiles of one entity in one view; a function of the events seen and the logical time, not of their order.

    Attributes:
        last_event_us: Latest event time applied; `NEVER_US` before the first.
        expired_us: Latest hop boundary at which a tile left a window; `NEVER_US` before the first.
        index: Tile numbers (event_us // hop), ascending; only tiles that hold an event and that a window covers.
        tiles: Shape (tiles, slots).
        totals: All-time accumulators.
        firsts: Per tile, the first row of each column in `plan.firsts`; empty if there are none.
        refs: Remembered rows as `plan.references` lays them out.
    """

    last_event_us: int
    expired_us: int
    index: IntArray
    tiles: IntArray
    totals: IntArray
    firsts: tuple[tuple[Record | None, ...], ...]
    refs: tuple[Record | None, ...]

    @classmethod
    def empty(cls, plan: WindowPlan) -> TileState:
        """The state before any event."""
        return cls(
            last_event_us=NEVER_US,
            expired_us=NEVER_US,
            index=np.empty(0, dtype=np.int64),
            tiles=np.empty((0, len(plan.slots)), dtype=np.int64),
            totals=np.array([_EMPTY[kind] for kind in plan.totals[:, 0].tolist()], dtype=np.int64),
            firsts=(),
            refs=(None,) * plan.reference_count,
        )

    @property
    def untouched(self) -> bool:
        """Whether no event was ever applied."""
        return self.last_event_us == NEVER_US


