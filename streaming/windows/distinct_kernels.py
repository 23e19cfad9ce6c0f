"""The inner loops of distinct counts.

A set is int64[n, 2]: hashes, ascending as unsigned numbers, and the latest tile of each. Sets of several entities lie
one after another; `start` says where each begins, one more at the end.

Of what only a window of all time covers any more, the tile tells nothing; it is `BEFORE` then, the same for all. So no
more than k such hashes stay, and of any tile that a narrower window covers no more than k either.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_I, _II = "int64[::1]", "int64[:,::1]"
_B, _BB = "uint8[::1]", "uint8[:,::1]"
_MIN, _MAX = np.int64(np.iinfo(np.int64).min), np.int64(np.iinfo(np.int64).max)
BEFORE = int(_MIN)
"""Tile of a hash that no window but that of all time covers."""
_TOP = np.int64(np.iinfo(np.int64).min)


def _kernel(signature: str):  # type: ignore[no-untyped-def]
    return njit([signature], cache=True, nogil=True, error_model="numpy", boundscheck=False)


@_kernel(f"void({_I}, {_I})")
def mix(words, out):  # type: ignore[no-untyped-def]
    """Spread whole numbers over 64 bits, one to one (the finalizer of SplitMix64: Steele et al., 2014)."""
    for i in range(words.shape[0]):
        z = np.uint64(words[i]) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = np.int64(z ^ (z >> np.uint64(31)))


@_kernel(f"int64({_II}, int64, int64)")
def _place(entries, count, value):  # type: ignore[no-untyped-def]
    """The first of the entries whose hash is not smaller."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if (entries[middle, 0] ^ _TOP) < (value ^ _TOP):
            low = middle + 1
        else:
            high = middle
    return low


@_kernel(f"int64({_II}, int64, int64, int64)")
def add(entries, count, value, tile):  # type: ignore[no-untyped-def]
    """Put a hash in, or bring its tile forward; returns the number of entries. There must be room for one more."""
    at = _place(entries, count, value)
    if at < count and entries[at, 0] == value:
        entries[at, 1] = max(entries[at, 1], tile)
        return count
    for k in range(count, at, -1):
        entries[k, 0] = entries[k - 1, 0]
        entries[k, 1] = entries[k - 1, 1]
    entries[at, 0], entries[at, 1] = value, tile
    return count + 1


@_kernel("int64(int64, int64)")
def _oldest(current, tiles):  # type: ignore[no-untyped-def]
    """The first tile that the widest window covers; none where there is but all time, which asks for no tile."""
    return current - tiles if tiles >= 0 else _MAX


@_kernel(f"int64({_II}, int64, int64, int64, int64, {_I})")
def prune(entries, count, oldest, forever, k, latest):  # type: ignore[no-untyped-def]
    """Drop what no window can need: tiles before `oldest`, and hashes with k smaller ones of tiles at least as late.

    Where a window of all time reads the set (`forever`), what lies before `oldest` stays as `BEFORE`.

    `latest` is room for k numbers: the latest tiles of the entries kept so far, the earliest of them first (a heap).
    """
    kept, held = 0, 0
    for i in range(count):
        tile = entries[i, 1]
        if tile < oldest:
            if forever == 0:
                continue
            tile = _MIN
        if held == k and tile <= latest[0]:
            continue
        entries[kept, 0], entries[kept, 1] = entries[i, 0], tile
        kept += 1
        if held < k:
            at = held
            held += 1
            while at > 0 and latest[(at - 1) >> 1] > tile:
                latest[at] = latest[(at - 1) >> 1]
                at = (at - 1) >> 1
            latest[at] = tile
            continue
        at = 0
        while True:
            child = 2 * at + 1
            if child >= k:
                break
            if child + 1 < k and latest[child + 1] < latest[child]:
                child += 1
            if latest[child] >= tile:
                break
            latest[at] = latest[child]
            at = child
        latest[at] = tile
    return kept


@_kernel(f"int64({_II}, int64, int64, int64)")
def estimate(entries, count, first_tile, k):  # type: ignore[no-untyped-def]
    """How many hashes have a tile from `first_tile` on: counted below k, else from the k-th smallest of them."""
    found = 0
    for i in range(count):
        if entries[i, 1] >= first_tile:
            found += 1
            if found == k:
                smallest = np.float64(np.uint64(entries[i, 0])) + 1.0
                return max(k, np.int64(np.rint((k - 1) * 18446744073709551616.0 / smallest)))
    return found


@_kernel(f"void({_II}, int64, int64, {_II}, {_I}, int64, {_II}, int64)")
def read_set(entries, count, current, reads, widths, k, out, row):  # type: ignore[no-untyped-def]
    """Write the features of one set into output row `row`; `reads` gives window (-1: all time) and place of each."""
    for f in range(reads.shape[0]):
        w = reads[f, 0]
        first_tile = current - widths[w] if w >= 0 else _MIN
        out[row, reads[f, 1]] = estimate(entries, count, first_tile, k)


@_kernel(
    f"int64(int64, int64, int64, int64, int64, "
    f"{_I}, {_II}, {_I}, {_I}, {_I}, {_I}, {_B}, {_II}, {_I}, {_II}, {_I}, {_II})"
)
def step_set(  # type: ignore[no-untyped-def]
    hop,
    now,
    tiles,
    forever,
    k,
    start,
    held,
    row_start,
    row_order,
    row_us,
    values,
    valid,
    reads,
    widths,
    new,
    new_start,
    out,
):
    """Bring the sets of one column to `now`; returns the entries in all.

    Args:
        hop: Width of a tile.
        now: Logical time.
        tiles: Width of the widest window that reads the column; -1 where only one of all time does.
        forever: 1 where a window of all time reads it.
        k: See `estimate`.
        start: Where each entity's entries begin.
        held: The entries.
        row_start: Where each entity's rows begin in `row_order`.
        row_order: Rows of the batch by entity.
        row_us: Their times, in that order.
        values: Hashes of the batch's rows.
        valid: Which of them are not NULL.
        reads: See `read_set`.
        widths: Of the windows.
        new: Takes the entries; room for all that are held and all rows.
        new_start: Takes where each entity's begin.
        out: Takes the features.
    """
    current = now // hop
    oldest = _oldest(current, tiles)
    latest = np.empty(k, np.int64)
    at = 0
    for i in range(start.shape[0] - 1):
        new_start[i] = at
        mine = new[at:]
        count = start[i + 1] - start[i]
        room = 8 * k
        for j in range(count):
            mine[j, 0], mine[j, 1] = held[start[i] + j, 0], held[start[i] + j, 1]
        for s in range(row_start[i], row_start[i + 1]):
            r = row_order[s]
            if valid[r] != 0:
                count = add(mine, count, values[r], row_us[s] // hop)
                if count > room:
                    count = prune(mine, count, oldest, forever, k, latest)
                    room = max(room, 2 * count)
        count = prune(mine, count, oldest, forever, k, latest)
        read_set(mine, count, current, reads, widths, k, out, i)
        at += count
    new_start[start.shape[0] - 1] = at
    return at


@_kernel(
    f"void(int64, int64, int64, int64, "
    f"{_I}, {_II}, {_I}, {_I}, {_I}, {_I}, {_B}, {_I}, {_I}, {_II}, {_I}, {_II})"
)
def sweep_set(  # type: ignore[no-untyped-def]
    hop,
    tiles,
    forever,
    k,
    start,
    held,
    row_start,
    row_order,
    row_us,
    values,
    valid,
    out_entity,
    out_us,
    reads,
    widths,
    out,
):
    """Write the features of one column into the rows of a sweep, which are by entity and time.

    Args:
        hop: Width of a tile.
        tiles: As in `step_set`.
        forever: As in `step_set`.
        k: See `estimate`.
        start: As in `step_set`.
        held: As in `step_set`; from before all rows.
        row_start: Where each entity's rows begin in `row_order`.
        row_order: Rows of the history by entity and time.
        row_us: Their times, in that order.
        values: Hashes of the history's rows.
        valid: Which of them are not NULL.
        out_entity: Entity of each row of the sweep.
        out_us: Its instant.
        reads: See `read_set`.
        widths: Of the windows.
        out: Takes the features.
    """
    latest = np.empty(k, np.int64)
    room = 8 * k
    entries = np.empty((room + 1, 2), np.int64)
    entity, count, s = np.int64(-1), 0, 0
    for row in range(out_entity.shape[0]):
        if out_entity[row] != entity:
            entity = out_entity[row]
            s = row_start[entity]
            count = start[entity + 1] - start[entity]
            room = max(room, 2 * count)
            if entries.shape[0] <= room:
                entries = np.empty((room + 1, 2), np.int64)
            entries[:count] = held[start[entity] : start[entity + 1]]
        current = out_us[row] // hop
        while s < row_start[entity + 1] and row_us[s] <= out_us[row]:
            r = row_order[s]
            if valid[r] != 0:
                count = add(entries, count, values[r], row_us[s] // hop)
                if count > room:
                    oldest = _oldest(row_us[s] // hop, tiles)
                    count = prune(entries, count, oldest, forever, k, latest)
                    if 2 * count > room:
                        room *= 2
                        grown = np.empty((room + 1, 2), np.int64)
                        grown[:count] = entries[:count]
                        entries = grown
            s += 1
        read_set(entries, count, current, reads, widths, k, out, row)
