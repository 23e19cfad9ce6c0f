"""Ranks: rows of a batch and rows that states remember, as integers of one order.

The kernels compare ranks only within an entity, so they need no strings; what a rank stands for is looked up here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streaming.windows.inputs import Prepared
from streaming.windows.order import EventIds, sort_rows
from streaming.windows.plan import Carrier, WindowPlan
from streaming.windows.state import Record, TileState

IntArray = npt.NDArray[np.int64]


class Ranking(NamedTuple):
    """The order of a batch's rows among what the states remember.

    Attributes:
        row_order: Rows of the batch by entity and rank.
        row_us: Their event times, in that order.
        row_rank: Their ranks, in that order.
        row_start: First place of each entity in that order; one more at the end.
        rank_us: Event time by rank.
        places: By rank: number of the record, or `len(records)` + row of the batch.
        refs: Shape (entities, references): rank, or -1.
        firsts: Shape (all tiles, first columns): rank, or -1.
        records: What the states remember.
        event_ids: Of the batch.
        event_us: Of the batch.
        values: Of the batch, by (column number, carrier).
    """

    row_order: IntArray
    row_us: IntArray
    row_rank: IntArray
    row_start: IntArray
    rank_us: IntArray
    places: list[int]
    refs: IntArray
    firsts: IntArray
    records: list[Record]
    event_ids: EventIds
    event_us: list[int]
    values: dict[tuple[int, Carrier], list[Any]]

    def record(self, key: tuple[int, Carrier], rank: int) -> Record:
        """The row behind a rank, with its value of a column."""
        place = self.places[rank] - len(self.records)
        if place < 0:
            return self.records[place]
        return self.event_us[place], self.event_ids[place], self.values[key][place]

    def carried(
        self, plan: WindowPlan, key: tuple[int, Carrier], values: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Values of a column by rank: those of the batch, and those that the states remember; filler elsewhere.

        Args:
            plan: The view's plan.
            key: Of the column.
            values: The batch's.
        """
        if not self.records:
            return values[self.row_order]
        made = np.zeros(len(self.rank_us), dtype=values.dtype)
        made[self.row_rank] = values[self.row_order]
        slots = [self.refs[:, at] for at, own in enumerate(plan.reference_keys) if own == key]
        slots += [self.firsts[:, at] for at, own in enumerate(plan.firsts) if own == key]
        for ranks in slots:
            for rank in ranks[ranks >= 0].tolist():
                made[rank] = self.record(key, rank)[2]
        return made


def rank_rows(plan: WindowPlan, states: Sequence[TileState], batch: Prepared) -> Ranking:
    """Rank the rows of a batch together with the rows that the states remember."""
    records: list[Record] = []
    owners: list[int] = []
    refs = np.full((len(states), plan.reference_count), -1, dtype=np.int64)
    tile_count = sum(len(state.index) for state in states) if plan.firsts else 0
    firsts = np.full((tile_count, len(plan.firsts)), -1, dtype=np.int64)
    if plan.ordered:
        _remember(states, records, owners, refs, firsts)
    remembered = len(records)
    entity = _join(owners, batch.entity)
    event_us = _join([record[0] for record in records], batch.event_us)
    ids = [*(record[1] for record in records), *batch.event_ids] if plan.ordered else None
    places = sort_rows(entity, event_us, ids)
    own, row_order, rank_us = np.arange(len(places)), places, event_us[places]
    if remembered:
        rank_of = np.empty(len(places) + 1, dtype=np.int64)
        rank_of[places] = own
        rank_of[-1] = -1
        refs, firsts = rank_of[refs], rank_of[firsts]
        own = np.flatnonzero(places >= remembered)
        row_order = places[own] - remembered
    row_start = batch.entity[row_order].searchsorted(np.arange(len(states) + 1))
    assert row_start[0] == 0, "entity index below 0"
    assert row_start[-1] == len(batch), "entity index outside of the group"
    return Ranking(
        row_order=row_order,
        row_us=rank_us[own] if remembered else rank_us,
        row_rank=own,
        row_start=row_start,
        rank_us=rank_us,
        places=places.tolist() if plan.ordered else [],
        refs=refs,
        firsts=firsts,
        records=records,
        event_ids=batch.event_ids,
        event_us=batch.event_us.tolist() if plan.ordered else [],
        values={key: values.tolist() for key, values in batch.inputs.carried.items()},
    )


def _remember(
    states: Sequence[TileState], records: list[Record], owners: list[int], refs: IntArray, firsts: IntArray
) -> None:
    """Number what the states remember; `refs` and `firsts` become those numbers."""
    tile = 0
    for number, state in enumerate(states):
        for slot, record in enumerate(state.refs):
            if record is not None:
                refs[number, slot] = len(records)
                records.append(record)
        for row in state.firsts:
            for slot, record in enumerate(row):
                if record is not None:
                    firsts[tile, slot] = len(records)
                    records.append(record)
            tile += 1
        owners.extend([number] * (len(records) - len(owners)))


def _join(head: list[int], tail: IntArray) -> IntArray:
    return np.concatenate((np.array(head, dtype=np.int64), tail)) if head else tail
