"""What a step changed in the stored state, as words of the command that writes it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from online.words import Runs, joined, runs_of
from streaming.windows.change_kernels import put_changes
from streaming.windows.plan import WindowPlan
from streaming.windows.state import (
    CHUNK_BYTES,
    TOP_BITS,
    TileState,
    encode,
    encode_head,
    head_name,
    sets_chunks,
)
from streaming.windows.stream import Applied

_ROOM_PER_ENTITY = 512
_LEAST_ROOM = 1 << 21
_ZERO = np.zeros(1, dtype=np.int64)
_rooms = threading.local()


class Changes(NamedTuple):
    """What the write of each entity must set (names and chunks in turn) and drop (names)."""

    put: Runs
    drop: Runs


def changes(
    plan: WindowPlan, before: Sequence[TileState], applied: Applied, fresh: npt.NDArray[np.int64]
) -> Changes:
    """What of each entity's state must be written.

    Args:
        plan: The view's plan.
        before: The states as they are stored.
        applied: The step from them.
        fresh: 1 where nothing is stored, whatever the state before.
    """
    if plan.firsts:
        return _compared(plan, before, applied.states, fresh)
    found = _numbers(plan, applied, fresh)
    puts, drops = [found.put], [found.drop]
    if plan.references:
        puts.insert(0, _heads(plan, before, applied.states, fresh))
    if plan.distincts:
        sets = _sets(plan, before, applied.states, fresh)
        puts.append(sets.put)
        drops.append(sets.drop)
    return Changes(*(part[0] if len(part) == 1 else joined(part, len(fresh)) for part in (puts, drops)))


def _compared(
    plan: WindowPlan, before: Sequence[TileState], after: Sequence[TileState], fresh: npt.NDArray[np.int64]
) -> Changes:
    return _differences(
        ({} if is_fresh else encode(plan, old), encode(plan, new))
        for old, new, is_fresh in zip(before, after, fresh.tolist(), strict=True)
    )


def _sets(
    plan: WindowPlan, before: Sequence[TileState], after: Sequence[TileState], fresh: npt.NDArray[np.int64]
) -> Changes:
    """Chunks of sets; most events bring no new value and change none."""
    return _differences(
        ({} if is_fresh else sets_chunks(plan, old), sets_chunks(plan, new))
        if is_fresh or old.sets != new.sets
        else ({}, {})
        for old, new, is_fresh in zip(before, after, fresh.tolist(), strict=True)
    )


def _differences(pairs: Iterable[tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]]) -> Changes:
    """What must be set and dropped for stored chunks to become others."""
    put: list[list[bytes]] = []
    drop: list[list[bytes]] = []
    for stored, chunks in pairs:
        changed = ((name, data) for name, data in chunks.items() if stored.get(name) != data)
        put.append([part for pair in changed for part in pair])
        drop.append([name for name in stored if name not in chunks])
    return Changes(runs_of(put), runs_of(drop))


def _heads(
    plan: WindowPlan, before: Sequence[TileState], after: Sequence[TileState], fresh: npt.NDArray[np.int64]
) -> Runs:
    """Heads that changed, where the entity remembers rows, which kernels do not see."""
    name = head_name(plan)
    return runs_of(
        [] if not is_fresh and _same_head(plan, old, new) else [name, encode_head(plan, new)]
        for old, new, is_fresh in zip(before, after, fresh.tolist(), strict=True)
    )


def _same_head(plan: WindowPlan, old: TileState, new: TileState) -> bool:
    return (
        old.refs == new.refs
        and bool((old.words[:2] == new.words[:2]).all())
        and bool((old.totals(plan) == new.totals(plan)).all())
    )


def _room(size: int) -> npt.NDArray[np.uint8]:
    """Room to write in, of a size at least; the thread's own until it asks again."""
    held: npt.NDArray[np.uint8] | None = getattr(_rooms, "held", None)
    if held is None or len(held) < size:
        held = _rooms.held = np.empty(size, dtype=np.uint8)
    return held


def _numbers(plan: WindowPlan, applied: Applied, fresh: npt.NDArray[np.int64]) -> Changes:
    step = applied.step
    count = len(fresh)
    out = _room(_LEAST_ROOM + _ROOM_PER_ENTITY * count)
    places = np.empty((5, count), dtype=np.int64)
    parts: list[npt.NDArray[np.uint8]] = []
    done = length = 0
    while done < count:
        stop = put_changes(
            done, step.old_start, step.old_index, step.old_tiles, step.old_totals, step.old_last_us,
            step.old_expired_us, step.start, step.new_index, step.tiles, step.totals, step.last_us, step.expired_us,
            step.stop, fresh,
            plan.slots, plan.slot_floats, plan.totals, plan.total_floats, TOP_BITS, CHUNK_BYTES, plan.chunk_prefix,
            plan.head_mark, 0 if plan.references else 1, _ZERO, out, places,
        )  # fmt: skip
        if stop == done:
            out = _room(4 * len(out))
            continue
        parts.append(out[: places[4, stop - 1]].copy())
        if length:
            places[(0, 2, 4), done:stop] += length
        length += len(parts[-1])
        done = stop
    data = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.uint8), *parts])
    first, put, middle, drop, end = places
    return Changes(Runs(data, first, middle, put), Runs(data, middle, end, drop))
