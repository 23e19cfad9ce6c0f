"""The order of rows: by entity, event time, event id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
EventIds = Sequence[str] | npt.NDArray[np.object_]


def sort_rows(entity: IntArray, event_us: IntArray, event_ids: EventIds | None) -> IntArray:
    """Row numbers in order; without ids, rows of one entity and time keep their place.

    Strings compare by code point. Ids are looked at only where an entity's times are equal.
    """
    if len(event_us) <= 1:
        return np.zeros(len(event_us), dtype=np.int64)
    order = np.lexsort((event_us, entity))
    if event_ids is None:
        return order
    us, owner = event_us[order], entity[order]
    same = (us[1:] == us[:-1]) & (owner[1:] == owner[:-1])
    return _sort_ties(order, same, event_ids) if same.any() else order


def _sort_ties(order: IntArray, same: npt.NDArray[np.bool_], event_ids: EventIds) -> IntArray:
    """Sort runs of equal (entity, time) by id; `same[i]` says that places i and i + 1 are of one run."""
    tied = np.zeros(len(order), dtype=np.bool_)
    tied[:-1] |= same
    tied[1:] |= same
    places = np.flatnonzero(tied)
    run = np.concatenate(([0], np.cumsum(~same)))[places]
    rows = order[places]
    ids = np.array([event_ids[row] for row in rows.tolist()], dtype=np.dtypes.StringDType())
    by_id = np.argsort(ids, kind="stable")
    order[places] = rows[by_id[np.argsort(run[by_id], kind="stable")]]
    return order
