"""The step of the stream: loaded states and a micro-batch in, new states and values out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decision.schema import Value
from streaming.windows.batch import Batch
from streaming.windows.codec_kernels import load_states
from streaming.windows.distinct import step_sets
from streaming.windows.errors import SumOverflow, ValueRefused
from streaming.windows.inputs import Inputs, Prepared, prepared
from streaming.windows.kernels import apply_rows
from streaming.windows.plan import HEAD_WORDS, Read, WindowPlan
from streaming.windows.ranking import Ranking, rank_rows
from streaming.windows.read import Column, by_feature, carried_values, number_column
from streaming.windows.state import Record, TileState, packed_states

IntArray = npt.NDArray[np.int64]

NO_EXPIRY = int(np.iinfo(np.int64).max)
"""`next_expiry_us` of an entity whose windows hold nothing that could leave."""


class Applied(NamedTuple):
    """Entities at a logical time; everything in the order of the states passed in.

    Attributes:
        states: What to keep.
        columns: Values by feature.
        value_us: The later of the last event time and the last hop boundary at which a tile left a window
            (`plan.NEVER_US` for an entity that has seen no event).
        next_expiry_us: The next hop boundary at which a tile leaves a window, or `NO_EXPIRY`.
        step: The numbers before and after.
    """

    states: list[TileState]
    columns: dict[str, Column]
    value_us: IntArray
    next_expiry_us: IntArray
    step: Step

    @property
    def values(self) -> dict[str, list[Value]]:
        """By feature. Times are microseconds of whole seconds, last-k are tuples, newest first, NULL is None."""
        return {name: column.to_list() for name, column in self.columns.items()}


class Step(NamedTuple):
    """The states of a group side by side, before and after; entity `i` has the tiles `start[i]` to `stop[i]` now."""

    old_start: IntArray
    old_index: IntArray
    old_tiles: IntArray
    old_totals: IntArray
    old_last_us: IntArray
    old_expired_us: IntArray
    new_index: IntArray
    tiles: IntArray
    firsts: IntArray
    totals: IntArray
    last_us: IntArray
    expired_us: IntArray
    start: IntArray
    stop: IntArray
    next_us: IntArray
    out: IntArray
    null: npt.NDArray[np.uint8]


def apply(plan: WindowPlan, states: Sequence[TileState], batch: Batch, now_us: int) -> Applied:
    """Bring entities to logical time `now_us`.

    Args:
        plan: The view's plan.
        states: One per entity; not changed.
        batch: Rows that were not applied before, in any order, late ones included; may be empty.
        now_us: Logical time; no row lies behind it.

    Raises:
        ValueRefused: Where a row does not fit; nothing is applied.
        SumOverflow: Where a sum leaves int64; nothing is applied.
    """
    _check(batch, now_us)
    rows = prepared(plan, batch)
    return take_step(plan, states, rows.inputs, *begin(plan, states, rows), now_us)


def begin(plan: WindowPlan, states: Sequence[TileState], rows: Prepared) -> tuple[Ranking, Step]:
    """Lay states side by side for a step, and rank the rows among what they remember."""
    return rank_rows(plan, states, rows), _load(plan, states, len(rows))


def take_step(
    plan: WindowPlan,
    states: Sequence[TileState],
    inputs: Inputs,
    ranking: Ranking,
    work: Step,
    now_us: int,
) -> Applied:
    """As `apply`, of what `begin` has laid out; it is used up."""
    fault = apply_rows(
        plan.hop_us, now_us, plan.windows, plan.slots, plan.totals, plan.reference_table, plan.first_columns,
        plan.first_tiles, plan.reads,
        work.old_start, work.old_index, work.old_tiles, ranking.firsts, work.totals, ranking.refs, work.last_us,
        work.expired_us,
        ranking.row_start, ranking.row_order, ranking.row_us, ranking.row_rank, inputs.lanes, inputs.valid,
        work.new_index, work.tiles, work.firsts, work.start, work.stop, work.next_us, work.out, work.null,
        ranking.rank_us,
    )  # fmt: skip
    if fault >= 0:
        raise overflow(plan, *divmod(int(fault), len(plan.slots) + len(plan.totals)))
    sets = step_sets(
        plan, states, (ranking.row_start, ranking.row_order, ranking.row_us), inputs, now_us, work.out
    )
    new_states = _states(plan, ranking, work, sets)
    numbers = by_feature(work.out, work.null)
    return Applied(
        states=new_states,
        columns={
            output.feature: (
                number_column(output, *numbers)
                if output.carrier is None
                else _carried(plan, number, ranking, work, new_states)
            )
            for number, output in enumerate(plan.outputs)
        },
        value_us=np.maximum(work.last_us, work.expired_us),
        next_expiry_us=work.next_us,
        step=work,
    )


def _load(plan: WindowPlan, states: Sequence[TileState], row_count: int) -> Step:
    count, slot_count, total_count = len(states), len(plan.slots), len(plan.totals)
    words = np.frombuffer(b"".join([state.data for state in states]), dtype=np.int64)
    held = (len(words) - count * (HEAD_WORDS + total_count)) // (1 + slot_count)
    room = held + row_count
    old_start = np.empty(count + 1, dtype=np.int64)
    old_index = np.empty(held, dtype=np.int64)
    old_tiles = np.empty((held, slot_count), dtype=np.int64)
    totals = np.empty((count, total_count), dtype=np.int64)
    last_us, expired_us, start, stop, next_us = np.empty((5, count), dtype=np.int64)
    load_states(words, old_start, old_index, old_tiles, totals, last_us, expired_us)
    return Step(
        old_start=old_start,
        old_index=old_index,
        old_tiles=old_tiles,
        old_totals=totals.copy(),
        old_last_us=last_us.copy(),
        old_expired_us=expired_us.copy(),
        new_index=np.empty(room, dtype=np.int64),
        tiles=np.empty((room, slot_count), dtype=np.int64),
        firsts=np.empty((room, len(plan.firsts)), dtype=np.int64),
        totals=totals,
        last_us=last_us,
        expired_us=expired_us,
        start=start,
        stop=stop,
        next_us=next_us,
        out=np.empty((count, plan.output_width), dtype=np.int64),
        null=np.empty((count, plan.output_width), dtype=np.uint8),
    )


def overflow(plan: WindowPlan, entity: int, slot: int) -> SumOverflow:
    """The error for a slot whose sum left int64; all-time slots are numbered after the others."""
    features = (*plan.slot_features, *plan.total_features)
    return SumOverflow(features[slot], entity)


def _check(batch: Batch, now_us: int) -> None:
    if len(batch) and batch.event_us.max() > now_us:
        late = int(batch.event_us.argmax())
        raise ValueRefused(
            "event_time", late, f"{batch.event_us[late]} µs lies behind the logical time {now_us} µs"
        )


def _states(
    plan: WindowPlan, ranking: Ranking, step: Step, sets: Sequence[tuple[bytes, ...]]
) -> list[TileState]:
    pieces = packed_states(
        plan,
        (step.start, step.stop),
        step.new_index,
        step.tiles,
        step.totals,
        (step.last_us, step.expired_us),
    )
    refs = _refs(plan, ranking, len(pieces))
    if not plan.firsts:
        return [
            TileState(piece, (), held, told) for piece, held, told in zip(pieces, refs, sets, strict=True)
        ]
    spans = zip(step.start.tolist(), step.stop.tolist(), strict=True)
    return [
        TileState(piece, _firsts(plan, ranking, step.firsts[first:stop]), held, told)
        for piece, held, told, (first, stop) in zip(pieces, refs, sets, spans, strict=True)
    ]


def _refs(plan: WindowPlan, ranking: Ranking, count: int) -> list[tuple[Record | None, ...]]:
    keys = plan.reference_keys
    if not keys:
        return [()] * count
    return [
        tuple(None if rank < 0 else ranking.record(key, rank) for key, rank in zip(keys, row, strict=True))
        for row in ranking.refs.tolist()
    ]


def _firsts(plan: WindowPlan, ranking: Ranking, firsts: IntArray) -> tuple[tuple[Record | None, ...], ...]:
    if not plan.firsts:
        return ()
    nothing: tuple[Record | None, ...] = (None,) * len(plan.firsts)
    held = [nothing] * len(firsts)
    # most tiles of a view with a wider window have none
    for tile in np.flatnonzero((firsts >= 0).any(axis=1)).tolist():
        ranks = zip(plan.firsts, firsts[tile].tolist(), strict=True)
        held[tile] = tuple(None if rank < 0 else ranking.record(key, rank) for key, rank in ranks)
    return tuple(held)


def _carried(
    plan: WindowPlan, number: int, ranking: Ranking, step: Step, states: Sequence[TileState]
) -> Column:
    output = plan.outputs[number]
    slot = int(plan.reads[number, 1])
    null = step.null[:, output.offset : output.offset + output.width] != 0
    if output.read == Read.FIRST:
        key = plan.firsts[slot]
        ranks = step.out[:, output.offset].tolist()
        found = [
            None if gone else ranking.record(key, rank)[2]
            for rank, gone in zip(ranks, null[:, 0].tolist(), strict=True)
        ]
        return carried_values(output, found, null[:, 0])
    # the window shows the newest of what the entity remembers
    shown = (~null).sum(axis=1)
    records = [
        record
        for state, count in zip(states, shown.tolist(), strict=True)
        for record in state.refs[slot : slot + count]
    ]
    items = [record[2] for record in records if record is not None]
    if output.listed:
        offsets = np.zeros(len(shown) + 1, dtype=np.int32)
        np.cumsum(shown, out=offsets[1:])
        return Column(
            carried_values(output, items, None).values, np.zeros(len(shown), dtype=np.bool_), offsets
        )
    rest = iter(items)
    return carried_values(output, [next(rest) if count else None for count in shown.tolist()], shown == 0)
