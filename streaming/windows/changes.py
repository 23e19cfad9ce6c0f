"""What a step changed in the stored state, as words of the command that writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from online.pipes import Packed
from streaming.windows.change_kernels import put_changes
from streaming.windows.plan import WindowPlan
from streaming.windows.state import CHUNK_BYTES, TOP_BITS, VERSION, TileState, encode, encode_head, head_name
from streaming.windows.stream import Applied

_ROOM_PER_ENTITY = 512
_LEAST_ROOM = 1 << 16


NO_WORDS = Packed(0, b"")


class Changes(NamedTuple):
    """What one entity's write must set (names and chunks in turn) and drop (names)."""

    put: Packed
    drop: Packed


def words_of(items: Sequence[bytes]) -> Packed:
    """Bytes as words."""
    if not items:
        return NO_WORDS
    return Packed(len(items), b"".join([b"$%d\r\n%b\r\n" % (len(item), item) for item in items]))


def pairs_of(fields: Mapping[bytes, bytes]) -> Packed:
    """Names and values in turn as words."""
    words = [
        b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(data), data) for name, data in fields.items()
    ]
    return Packed(2 * len(words), words[0] if len(words) == 1 else b"".join(words))


def changes(
    plan: WindowPlan, before: Sequence[TileState], applied: Applied, fresh: npt.NDArray[np.int64]
) -> list[Changes]:
    """What of each entity's state must be written.

    Args:
        plan: The view's plan.
        before: The states as they are stored.
        applied: The step from them.
        fresh: 1 where nothing is stored, whatever the state before.
    """
    if plan.firsts:
        return [
            _compared({} if new else encode(plan, old), encode(plan, state))
            for old, state, new in zip(before, applied.states, fresh.tolist(), strict=True)
        ]
    found = _numbers(plan, applied, fresh)
    if not plan.references:
        return found
    return [
        change
        if not new and old.refs == state.refs and _same_head(plan, old, state)
        else _with_head(change, plan, state)
        for change, old, state, new in zip(found, before, applied.states, fresh.tolist(), strict=True)
    ]


def _compared(stored: Mapping[bytes, bytes], chunks: Mapping[bytes, bytes]) -> Changes:
    changed = {name: data for name, data in chunks.items() if stored.get(name) != data}
    return Changes(pairs_of(changed), words_of([name for name in stored if name not in chunks]))


def _same_head(plan: WindowPlan, old: TileState, new: TileState) -> bool:
    return bool((old.words[:2] == new.words[:2]).all() and (old.totals(plan) == new.totals(plan)).all())


def _with_head(change: Changes, plan: WindowPlan, state: TileState) -> Changes:
    head = words_of([head_name(plan), encode_head(plan, state)])
    return Changes(Packed(change.put.size + 2, head.data + change.put.data), change.drop)


def _numbers(plan: WindowPlan, applied: Applied, fresh: npt.NDArray[np.int64]) -> list[Changes]:
    step = applied.step
    count = len(fresh)
    prefix = np.frombuffer(b"w:%b:" % plan.view.encode(), dtype=np.uint8).copy()
    version = np.frombuffer(bytes((VERSION,)) + plan.fingerprint, dtype=np.uint8).copy()
    zero = np.zeros(1, dtype=np.int64)
    found: list[Changes] = []
    room = _LEAST_ROOM + _ROOM_PER_ENTITY * count
    places = np.empty((count, 5), dtype=np.int64)
    while len(found) < count:
        first = len(found)
        out = np.empty(room, dtype=np.uint8)
        stop = put_changes(
            first, step.old_start, step.old_index, step.old_tiles, step.old_totals, step.old_last_us,
            step.old_expired_us, step.start, step.index, step.tiles, step.totals, step.last_us, step.expired_us,
            step.stop, fresh,
            plan.slots, plan.slot_floats, plan.totals, plan.total_floats, TOP_BITS, CHUNK_BYTES, prefix, version,
            0 if plan.references else 1, zero, out, places,
        )  # fmt: skip
        if stop == first:
            room *= 4
            continue
        data = out[: places[stop - 1, 4]].tobytes()
        found += [
            Changes(Packed(put, data[at:middle]), Packed(drop, data[middle:end]))
            for at, put, middle, drop, end in places[first:stop].tolist()
        ]
    return found
