"""The step of the stream: loaded states and a micro-batch in, new states and values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from decision.schema import Value
from streaming.windows.batch import Batch
from streaming.windows.errors import SumOverflow, ValueRefused
from streaming.windows.inputs import prepare
from streaming.windows.kernels import apply_rows
from streaming.windows.plan import Output, Read, WindowPlan
from streaming.windows.ranking import Ranking, rank_rows
from streaming.windows.read import SECOND_US, number_column
from streaming.windows.state import Record, TileState

IntArray = npt.NDArray[np.int64]

NO_EXPIRY = int(np.iinfo(np.int64).max)
"""`next_expiry_us` of an entity whose windows hold nothing that could leave."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Entities at a logical time; everything in the order of the states passed in.

    Attributes:
        states: What to keep.
        values: By feature. Times are microseconds of whole seconds, last-k are tuples, newest first, NULL is None.
        value_us: The later of the last event time and the last hop boundary at which a tile left a window
            (`state.NEVER_US` for an entity that has seen no event).
        next_expiry_us: The next hop boundary at which a tile leaves a window, or `NO_EXPIRY`.
    """

    states: list[TileState]
    values: dict[str, list[Value]]
    value_us: IntArray
    next_expiry_us: IntArray


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
    _check(batch, len(states), now_us)
    inputs = prepare(plan, batch)
    ranking = rank_rows(plan, states, batch, inputs)
    work = _load(plan, states, len(batch))
    fault = apply_rows(
        plan.hop_us, now_us, plan.windows, plan.slots, plan.totals, plan.reference_table, plan.first_columns,
        plan.first_tiles, plan.reads,
        work.old_start, work.old_index, work.old_tiles, ranking.firsts, work.totals, ranking.refs, work.last_us,
        work.expired_us,
        ranking.row_start, ranking.row_order, ranking.row_us, ranking.row_rank, inputs.lanes, inputs.valid,
        work.index, work.tiles, work.firsts, work.start, work.stop, work.next_us, work.out, work.null, ranking.rank_us,
    )  # fmt: skip
    if fault >= 0:
        raise overflow(plan, *divmod(int(fault), len(plan.slots) + len(plan.totals)))
    new_states = _states(plan, ranking, work)
    return Applied(
        states=new_states,
        values={
            output.feature: _feature(plan, number, ranking, work, new_states)
            for number, output in enumerate(plan.outputs)
        },
        value_us=np.maximum(work.last_us, work.expired_us),
        next_expiry_us=work.next_us,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """The states of a group side by side, and room for the new ones; `start`, `stop`: the new tiles by entity."""

    old_start: IntArray
    old_index: IntArray
    old_tiles: IntArray
    totals: IntArray
    last_us: IntArray
    expired_us: IntArray
    index: IntArray
    tiles: IntArray
    firsts: IntArray
    start: IntArray
    stop: IntArray
    next_us: IntArray
    out: IntArray
    null: npt.NDArray[np.uint8]


def _load(plan: WindowPlan, states: Sequence[TileState], row_count: int) -> _Work:
    sizes = [len(state.index) for state in states]
    room = sum(sizes) + row_count
    old_start = np.zeros(len(states) + 1, dtype=np.int64)
    np.cumsum(sizes, out=old_start[1:])
    start, stop, next_us = np.empty((3, len(states)), dtype=np.int64)
    return _Work(
        old_start=old_start,
        old_index=_join([state.index for state in states]),
        old_tiles=_join([state.tiles for state in states], len(plan.slots)),
        totals=_join([state.totals[None] for state in states], len(plan.totals)),
        last_us=np.array([state.last_event_us for state in states], dtype=np.int64),
        expired_us=np.array([state.expired_us for state in states], dtype=np.int64),
        index=np.empty(room, dtype=np.int64),
        tiles=np.empty((room, len(plan.slots)), dtype=np.int64),
        firsts=np.empty((room, len(plan.firsts)), dtype=np.int64),
        start=start,
        stop=stop,
        next_us=next_us,
        out=np.empty((len(states), plan.output_width), dtype=np.int64),
        null=np.empty((len(states), plan.output_width), dtype=np.uint8),
    )


def _join(arrays: list[IntArray], *width: int) -> IntArray:
    return np.concatenate(arrays) if arrays else np.empty((0, *width), dtype=np.int64)


def overflow(plan: WindowPlan, entity: int, slot: int) -> SumOverflow:
    """The error for a slot whose sum left int64; all-time slots are numbered after the others."""
    features = (*plan.slot_features, *plan.total_features)
    return SumOverflow(features[slot], entity)


def _check(batch: Batch, group_count: int, now_us: int) -> None:
    if not len(batch):
        return
    assert batch.entity.min() >= 0, "entity index below 0"
    assert batch.entity.max() < group_count, "entity index outside of the group"
    late = int(batch.event_us.argmax())
    if batch.event_us[late] > now_us:
        raise ValueRefused(
            "event_time", late, f"{batch.event_us[late]} µs lies behind the logical time {now_us} µs"
        )


def _states(plan: WindowPlan, ranking: Ranking, work: _Work) -> list[TileState]:
    refs = _refs(plan, ranking)
    columns = (work.last_us, work.expired_us, work.start, work.stop)
    return [
        TileState(
            last_event_us=last_us,
            expired_us=expired_us,
            # copies, so that a small state does not hold a large batch in memory
            index=work.index[start:stop].copy(),
            tiles=work.tiles[start:stop].copy(),
            totals=work.totals[number].copy(),
            firsts=_firsts(plan, ranking, work.firsts[start:stop]),
            refs=refs[number],
        )
        for number, (last_us, expired_us, start, stop) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]


def _refs(plan: WindowPlan, ranking: Ranking) -> list[tuple[Record | None, ...]]:
    keys = plan.reference_keys
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


def _feature(
    plan: WindowPlan, number: int, ranking: Ranking, work: _Work, states: Sequence[TileState]
) -> list[Value]:
    output = plan.outputs[number]
    slot = int(plan.reads[number, 1])
    match output.read:
        case Read.REFS:
            return _remembered(output, slot, work, states)
        case Read.FIRST:
            key = plan.firsts[slot]
            found = zip(
                work.out[:, output.offset].tolist(), work.null[:, output.offset].tolist(), strict=True
            )
            return [None if gone else _value(output, ranking.record(key, rank)) for rank, gone in found]
        case _:
            return number_column(output, work.out, work.null).to_list()


def _remembered(output: Output, slot: int, work: _Work, states: Sequence[TileState]) -> list[Value]:
    """Values of first, last or last_k: the window shows the newest of what the entity remembers."""
    shown = (work.null[:, output.offset : output.offset + output.width] == 0).sum(axis=1).tolist()
    if output.listed:
        return [
            tuple(_value(output, record) for record in state.refs[slot : slot + count])
            for state, count in zip(states, shown, strict=True)
        ]
    return [
        _value(output, state.refs[slot]) if count else None
        for state, count in zip(states, shown, strict=True)
    ]


def _value(output: Output, record: Record | None) -> Any:
    assert record is not None
    return record[2] // SECOND_US * SECOND_US if output.time else record[2]  # type: ignore[operator]
