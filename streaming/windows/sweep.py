"""The backfill: the whole history at once, one row per instant at which a feature may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.windows.batch import Batch, rows_of
from streaming.windows.distinct import sweep_sets
from streaming.windows.inputs import Inputs, prepare
from streaming.windows.kernels import bound_rows, sweep_rows
from streaming.windows.order import sort_rows
from streaming.windows.plan import WindowPlan
from streaming.windows.read import Column, carried_column, number_column
from streaming.windows.state import TileState
from streaming.windows.stream import Applied, apply, overflow

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sweep:
    """History of a range of entities, sorted by entity and time.

    Attributes:
        first_entity: First group index of the range.
        entity: Group index per row.
        event_us: Instant per row: an event time, or a hop boundary at which a tile left a window.
        value_us: Timestamp of the values; the instant itself.
        columns: By feature.
        final: All entities of the range at the end of the sweep, those without events included.
    """

    first_entity: int
    entity: IntArray
    event_us: IntArray
    value_us: IntArray
    columns: dict[str, Column]
    final: Applied

    def __len__(self) -> int:
        return len(self.entity)


@dataclass(frozen=True, slots=True)
class _History:
    """A whole batch in order: `order` sorts its rows by entity and rank."""

    batch: Batch
    inputs: Inputs
    order: IntArray
    row_us: IntArray
    row_start: IntArray
    tile_count: IntArray
    row_bound: IntArray


def sweep(plan: WindowPlan, batch: Batch, group_count: int, until_us: int) -> Sweep:
    """Sweep over all entities in one piece.

    Args:
        plan: The view's plan.
        batch: All events up to `until_us`, in any order.
        group_count: Number of entities.
        until_us: Logical time at which the sweep ends.

    Raises:
        ValueRefused: Where a row does not fit.
        SumOverflow: Where a sum leaves int64.
    """
    history = _history(plan, batch, group_count)
    return _sweep_range(plan, history, 0, group_count, until_us)


def sweep_chunks(
    plan: WindowPlan, batch: Batch, group_count: int, until_us: int, rows: int = 1_000_000
) -> Iterator[Sweep]:
    """Sweep in ranges of entities of about `rows` rows each (one entity is never split), in bounded memory."""
    history = _history(plan, batch, group_count)
    ends = np.cumsum(history.row_bound)
    first = 0
    while first < group_count:
        before = int(ends[first - 1]) if first else 0
        stop = max(int(np.searchsorted(ends, before + rows, side="right")), first + 1)
        yield _sweep_range(plan, history, first, stop, until_us)
        first = stop


def _history(plan: WindowPlan, batch: Batch, group_count: int) -> _History:
    order = sort_rows(batch.entity, batch.event_us, batch.event_ids if plan.ordered else None)
    row_us = batch.event_us[order]
    row_start = np.searchsorted(batch.entity[order], np.arange(group_count + 1))
    tile_count, row_bound = np.zeros((2, group_count), dtype=np.int64)
    bound_rows(plan.hop_us, len(plan.windows), row_start, row_us, tile_count, row_bound)
    return _History(batch, prepare(plan, batch), order, row_us, row_start, tile_count, row_bound)


def _sweep_range(plan: WindowPlan, history: _History, first: int, stop: int, until_us: int) -> Sweep:
    room = int(history.row_bound[first:stop].sum())
    entity, event_us = np.empty((2, room), dtype=np.int64)
    out = np.empty((room, plan.output_width), dtype=np.int64)
    null = np.empty(out.shape, dtype=np.uint8)
    fault_at = np.zeros(2, dtype=np.int64)
    final = _final(plan, history, first, stop, until_us)
    rows = sweep_rows(
        plan.hop_us, until_us, plan.windows, plan.slots, plan.totals, plan.reference_table, plan.first_columns,
        plan.reads,
        first, stop, int(history.tile_count[first:stop].max(initial=0)),
        history.row_start, history.order, history.row_us, history.inputs.lanes, history.inputs.valid,
        entity, event_us, out, null, fault_at,
    )  # fmt: skip
    if rows < 0:
        raise overflow(plan, int(fault_at[0]), int(fault_at[1]))
    sweep_sets(
        plan,
        (history.row_start, history.order, history.row_us),
        history.inputs,
        (entity[:rows], event_us[:rows]),
        out,
    )
    columns = _columns(plan, history, out[:rows], null[:rows])
    return Sweep(first, entity[:rows], event_us[:rows], event_us[:rows], columns, final)


def _final(plan: WindowPlan, history: _History, first: int, stop: int, until_us: int) -> Applied:
    """The states at the end: the step of the stream, taken once over everything."""
    batch = history.batch
    rows = history.order[history.row_start[first] : history.row_start[stop]]
    ids = batch.event_ids
    part = Batch(
        entity=batch.entity[rows] - first,
        event_us=batch.event_us[rows],
        event_ids=[ids[row] for row in rows.tolist()] if plan.ordered else (),
        columns={name: rows_of(batch.columns[name], rows) for name in plan.columns},
    )
    return apply(plan, [TileState.empty(plan)] * (stop - first), part, until_us)


def _columns(
    plan: WindowPlan, history: _History, out: IntArray, null: npt.NDArray[np.uint8]
) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for number, output in enumerate(plan.outputs):
        if output.carrier is None:
            columns[output.feature] = number_column(output, out, null)
            continue
        carried = history.inputs.carried[plan.carried_key(number)][history.order]
        columns[output.feature] = carried_column(output, out, null, carried)
    return columns
