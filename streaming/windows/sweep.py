"""The backfill: much history at once, one row per instant at which a feature may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.windows.batch import Batch
from streaming.windows.distinct import sweep_sets
from streaming.windows.inputs import Prepared, prepared
from streaming.windows.kernels import bound_rows, sweep_rows
from streaming.windows.order import sort_rows
from streaming.windows.plan import WindowPlan
from streaming.windows.ranking import Ranking
from streaming.windows.read import Column, by_feature, carried_column, number_column
from streaming.windows.state import TileState
from streaming.windows.stream import Applied, begin, overflow, take_step

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
class Held:
    """What a sweep goes on from.

    Attributes:
        states: One per entity.
        at_us: Logical time to which they were brought; the sweep begins behind it.
    """

    states: Sequence[TileState]
    at_us: int


@dataclass(frozen=True, slots=True)
class _History:
    """Rows in order: `order` sorts them by entity and rank."""

    rows: Prepared
    held: Held
    order: IntArray
    row_start: IntArray
    tile_count: IntArray
    row_bound: IntArray


def sweep(plan: WindowPlan, batch: Batch, group_count: int, until_us: int, held: Held | None = None) -> Sweep:
    """Sweep over all entities in one piece.

    Args:
        plan: The view's plan.
        batch: All events up to `until_us`, in any order; behind what is held.
        group_count: Number of entities.
        until_us: Logical time at which the sweep ends.
        held: What it goes on from; None for nothing.

    Raises:
        ValueRefused: Where a row does not fit.
        SumOverflow: Where a sum leaves int64.
    """
    history = _history(plan, prepared(plan, batch), group_count, held)
    return _sweep_range(plan, history, 0, group_count, until_us)


def sweep_chunks(
    plan: WindowPlan,
    rows: Prepared,
    group_count: int,
    until_us: int,
    chunk_rows: int = 1_000_000,
    held: Held | None = None,
) -> Iterator[Sweep]:
    """Sweep in ranges of entities of about `chunk_rows` rows each; one entity is never split."""
    history = _history(plan, rows, group_count, held)
    ends = np.cumsum(history.row_bound)
    first = 0
    while first < group_count:
        before = int(ends[first - 1]) if first else 0
        stop = max(int(np.searchsorted(ends, before + chunk_rows, side="right")), first + 1)
        yield _sweep_range(plan, history, first, stop, until_us)
        first = stop


def _history(plan: WindowPlan, rows: Prepared, group_count: int, held: Held | None) -> _History:
    order = sort_rows(rows.entity, rows.event_us, rows.event_ids if plan.ordered else None)
    row_start = np.searchsorted(rows.entity[order], np.arange(group_count + 1))
    tile_count, row_bound = np.zeros((2, group_count), dtype=np.int64)
    bound_rows(plan.hop_us, len(plan.windows), row_start, rows.event_us[order], tile_count, row_bound)
    if held is None:
        held = Held([TileState.empty(plan)] * group_count, 0)
    else:
        held_tiles = np.array([len(state.index) for state in held.states], dtype=np.int64)
        tile_count += held_tiles
        row_bound += len(plan.windows) * held_tiles
    return _History(rows, held, order, row_start, tile_count, row_bound)


def _sweep_range(plan: WindowPlan, history: _History, first: int, stop: int, until_us: int) -> Sweep:
    rows = history.rows.take(history.order[history.row_start[first] : history.row_start[stop]], first)
    states = history.held.states[first:stop]
    ranking, work = begin(plan, states, rows)
    room = int(history.row_bound[first:stop].sum())
    entity, event_us = np.empty((2, room), dtype=np.int64)
    out = np.empty((room, plan.output_width), dtype=np.int64)
    null = np.empty(out.shape, dtype=np.uint8)
    fault_at = np.zeros(2, dtype=np.int64)
    count = sweep_rows(
        plan.hop_us, history.held.at_us, until_us, plan.windows, plan.slots, plan.totals, plan.reference_table,
        plan.first_columns, plan.reads,
        int(history.tile_count[first:stop].max(initial=0)),
        work.old_start, work.old_index, work.old_tiles, ranking.firsts, work.totals, ranking.refs,
        ranking.row_start, ranking.row_order, ranking.row_us, ranking.row_rank, ranking.rank_us,
        rows.inputs.lanes, rows.inputs.valid,
        entity, event_us, out, null, fault_at,
    )  # fmt: skip
    if count < 0:
        raise overflow(plan, first + int(fault_at[0]), int(fault_at[1]))
    sweep_sets(
        plan,
        states,
        (ranking.row_start, ranking.row_order, ranking.row_us),
        rows.inputs,
        (entity[:count], event_us[:count]),
        out,
    )
    columns = _columns(plan, ranking, rows, out[:count], null[:count])
    final = take_step(plan, states, rows.inputs, ranking, work, until_us)
    return Sweep(first, entity[:count] + first, event_us[:count], event_us[:count], columns, final)


def _columns(
    plan: WindowPlan, ranking: Ranking, rows: Prepared, out: IntArray, null: npt.NDArray[np.uint8]
) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    numbers = by_feature(out, null)
    for number, output in enumerate(plan.outputs):
        if output.carrier is None:
            columns[output.feature] = number_column(output, *numbers)
            continue
        key = plan.carried_key(number)
        carried = ranking.carried(plan, key, rows.inputs.carried[key])
        columns[output.feature] = carried_column(output, out, null, carried)
    return columns
