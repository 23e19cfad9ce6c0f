"""The inner loops of the windows: fold an event into a tile, move a window, read features off it.

Tables are int64 as `WindowPlan` lays them out. A rank stands for a row in the order of (event time, event id) within
its entity; -1 is none. Kernels that add return -1 when all went well, else the slot whose sum left int64.

Legend: `i`, `j` rows of a table; `p` slot; `w` window; `r` row of the batch; `k` tile index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_COUNT, _SUM, _MIN, _MAX = 0, 1, 2, 3
_NUMBER, _MEAN, _EXTREME, _FIRST, _REFS, _DISTINCT = 0, 1, 2, 3, 4, 5
INT_MAX = np.int64(np.iinfo(np.int64).max)
INT_MIN = np.int64(np.iinfo(np.int64).min)
_FIXED_LIMIT = 9_223_372_036_854.0
_SPLIT = 134_217_729.0

_I, _II = "int64[::1]", "int64[:,::1]"
_B, _BB = "uint8[::1]", "uint8[:,::1]"


def _kernel(signature: str) -> Any:
    return njit([signature], cache=True, nogil=True, fastmath=False, error_model="numpy", boundscheck=False)


@_kernel(f"int64(float64[::1], {_B}, {_I})")
def fixed_from_floats(x, valid, out):  # type: ignore[no-untyped-def]
    """Round x · 10⁶ half to even, exactly; returns the first row that is not representable, or -1."""
    for i in range(x.shape[0]):
        if valid[i] == 0:
            out[i] = 0
            continue
        v = x[i]
        if not (-_FIXED_LIMIT <= v <= _FIXED_LIMIT):
            return i
        # Veltkamp: v = high + low, each short enough for an exact product with 10⁶
        c = _SPLIT * v
        high = c - (c - v)
        low = v - high
        high_product = high * 1e6
        low_product = low * 1e6
        high_int = np.rint(high_product)
        low_int = np.rint(low_product)
        a = high_product - high_int
        b = low_product - low_int
        s = a + b
        t = s - a
        error = (a - (s - t)) + (b - t)
        floor = np.floor(s)
        base = np.int64(high_int) + np.int64(low_int) + np.int64(floor)
        # a little below zero the rest is rounded too, and its error counts with the sum's
        rest = s - floor
        t = rest - s
        error += (s - (rest - t)) - (floor + t)
        above_half = (rest - 0.5) + error
        if above_half > 0.0 or (above_half == 0.0 and base % 2 != 0):
            base += 1
        out[i] = base
    return -1


@_kernel(f"void({_II}, int64, {_II})")
def clear(table, i, slots):  # type: ignore[no-untyped-def]
    """Set an accumulator to that of no events."""
    for p in range(slots.shape[0]):
        kind = slots[p, 0]
        if kind == _MIN:
            table[i, p] = INT_MAX
        elif kind == _MAX:
            table[i, p] = INT_MIN
        else:
            table[i, p] = 0


@_kernel(f"int64({_II}, int64, {_II}, {_II}, {_BB}, int64)")
def fold_event(table, i, slots, lanes, valid, r):  # type: ignore[no-untyped-def]
    """Fold row `r` into accumulator `i`."""
    for p in range(slots.shape[0]):
        column = slots[p, 2]
        if column >= 0 and valid[r, column] == 0:
            continue
        kind = slots[p, 0]
        held = table[i, p]
        if kind == _COUNT:
            table[i, p] = held + 1
            continue
        x = lanes[r, slots[p, 1]]
        if kind == _SUM:
            total = held + x
            if ((held ^ total) & (x ^ total)) < 0:
                return p
            table[i, p] = total
        elif kind == _MIN:
            table[i, p] = min(held, x)
        else:
            table[i, p] = max(held, x)
    return -1


@_kernel(f"int64({_I}, int64, int64, int64)")
def first_from(index, start, stop, bound):  # type: ignore[no-untyped-def]
    """The first of the tiles start to `stop` that is not before `bound`; `stop` where all are."""
    while start < stop:
        middle = (start + stop) // 2
        if index[middle] < bound:
            start = middle + 1
        else:
            stop = middle
    return start


@_kernel(f"void({_I}, {_II}, {_II}, int64, {_I}, {_II}, {_II}, int64, int64)")
def copy_tiles(new_index, new_tiles, new_firsts, fill, index, tiles, firsts, start, stop):  # type: ignore[no-untyped-def]
    """Copy the tiles start to `stop` behind those that are there."""
    # By parts that are counted from 0: places that could be negative would be copied one by one.
    behind, count = fill + stop - start, stop - start
    taken, given = new_index[fill:behind], index[start:stop]
    for k in range(count):
        taken[k] = given[k]
    taken_tiles, given_tiles = new_tiles[fill:behind], tiles[start:stop]
    for k in range(count):
        for p in range(tiles.shape[1]):
            taken_tiles[k, p] = given_tiles[k, p]
    if firsts.shape[1]:
        new_firsts[fill:behind] = firsts[start:stop]


@_kernel(f"int64({_II}, int64, {_II}, {_II}, int64, int64)")
def merge_tiles(windows, w, slots, tiles, start, stop):  # type: ignore[no-untyped-def]
    """Add the tiles start to `stop`, the newest first, to the accumulator of window `w`."""
    for p in range(slots.shape[0]):
        kind = slots[p, 0]
        held = windows[w, p]
        if kind <= _SUM:
            left = np.int64(0)
            for x in tiles[start:stop, p][::-1]:
                total = held + x
                left |= (held ^ total) & (x ^ total)
                held = total
            if left < 0:
                return p
        elif kind == _MIN:
            for j in range(start, stop):
                held = min(held, tiles[j, p])
        else:
            for j in range(start, stop):
                held = max(held, tiles[j, p])
        windows[w, p] = held
    return -1


@_kernel(f"int64({_II}, int64, {_II}, {_II}, int64, int64)")
def evict_tile(windows, w, slots, tiles, j, stop):  # type: ignore[no-untyped-def]
    """Take tile `j`, the oldest of window `w`, out of it; tiles j + 1 to `stop` remain.

    Counts and sums are exact, so they are subtracted; an extreme is searched again where it left.
    """
    for p in range(slots.shape[0]):
        kind = slots[p, 0]
        x = tiles[j, p]
        if kind <= _SUM:
            held = windows[w, p]
            total = held - x
            if ((held ^ x) & (held ^ total)) < 0:
                return p
            windows[w, p] = total
        elif x == windows[w, p]:
            best = INT_MAX if kind == _MIN else INT_MIN
            for q in range(j + 1, stop):
                best = min(best, tiles[q, p]) if kind == _MIN else max(best, tiles[q, p])
            windows[w, p] = best
    return -1


@_kernel(f"void({_II}, int64, {_I}, {_BB}, int64, int64)")
def fold_firsts(firsts, i, columns, valid, r, rank):  # type: ignore[no-untyped-def]
    """Fold a row into the first row of each column of tile or window `i`."""
    for p in range(columns.shape[0]):
        if valid[r, columns[p]] != 0 and (firsts[i, p] < 0 or rank < firsts[i, p]):
            firsts[i, p] = rank


@_kernel(f"void({_II}, int64, {_II}, int64, int64)")
def find_firsts(window_firsts, w, firsts, start, stop):  # type: ignore[no-untyped-def]
    """First row of each column over the tiles start to stop; tiles are in order, so the oldest that has one wins."""
    for p in range(firsts.shape[1]):
        window_firsts[w, p] = -1
        for j in range(start, stop):
            if firsts[j, p] >= 0:
                window_firsts[w, p] = firsts[j, p]
                break


@_kernel(f"void({_II}, int64, {_II}, {_BB}, int64, int64)")
def fold_references(refs, i, table, valid, r, rank):  # type: ignore[no-untyped-def]
    """Fold a row into what entity `i` remembers: the oldest row, or the newest ones in descending order."""
    for g in range(table.shape[0]):
        if valid[r, table[g, 0]] == 0:
            continue
        offset = table[g, 1]
        if table[g, 3] == 0:
            if refs[i, offset] < 0 or rank < refs[i, offset]:
                refs[i, offset] = rank
            continue
        at = offset + table[g, 2] - 1
        if rank <= refs[i, at]:
            continue
        while at > offset and refs[i, at - 1] < rank:
            refs[i, at] = refs[i, at - 1]
            at -= 1
        refs[i, at] = rank


@_kernel(f"void({_II}, int64, {_II}, {_I}, int64, int64)")
def forget_references(refs, i, table, rank_us, hop, current):  # type: ignore[no-untyped-def]
    """Drop remembered rows that no window covers any more."""
    for g in range(table.shape[0]):
        if table[g, 4] < 0:
            continue
        for at in range(table[g, 1], table[g, 1] + table[g, 2]):
            if refs[i, at] >= 0 and rank_us[refs[i, at]] // hop < current - table[g, 4]:
                refs[i, at] = -1


@_kernel(f"void({_II}, {_I}, {_I}, int64, int64, int64)")
def forget_firsts(firsts, index, first_tiles, current, start, stop):  # type: ignore[no-untyped-def]
    """Drop the first rows of tiles that no window with a first covers any more."""
    for p in range(first_tiles.shape[0]):
        for j in range(start, stop):
            if index[j] >= current - first_tiles[p]:
                break
            firsts[j, p] = -1


@_kernel(f"int64({_I}, {_II}, {_II}, int64, int64, int64, {_I}, {_II}, {_II}, {_II})")
def fill_windows(index, tiles, firsts, start, stop, current, widths, slots, windows, window_firsts):  # type: ignore[no-untyped-def]
    """Accumulate every window from the tiles start to stop; a wider window continues the narrower one."""
    j = stop
    for w in range(widths.shape[0]):
        if w == 0:
            clear(windows, 0, slots)
        else:
            for p in range(slots.shape[0]):
                windows[w, p] = windows[w - 1, p]
        newer, j = j, first_from(index, start, j, current - widths[w])
        fault = merge_tiles(windows, w, slots, tiles, j, newer)
        if fault >= 0:
            return fault
        find_firsts(window_firsts, w, firsts, j, stop)
    return -1


@_kernel(f"void({_II}, {_I}, {_II}, {_II}, {_II}, {_II}, int64, {_I}, int64, int64, {_II}, {_BB}, int64)")
def read_features(  # type: ignore[no-untyped-def]
    reads, widths, windows, window_firsts, totals, refs, i, rank_us, hop, current, out, null, row
):
    """Write the payloads of all features of entity `i` into output row `row`."""
    for f in range(reads.shape[0]):
        read, slot, count = reads[f, 0], reads[f, 1], reads[f, 2]
        w, at = reads[f, 3], reads[f, 4]
        if read == _REFS:
            filled = at
            for s in range(slot, slot + reads[f, 5]):
                rank = refs[i, s]
                if rank >= 0 and (w < 0 or rank_us[rank] // hop >= current - widths[w]):
                    out[row, filled] = rank
                    null[row, filled] = 0
                    filled += 1
            for rest in range(filled, at + reads[f, 5]):
                out[row, rest] = 0
                null[row, rest] = 1
        elif read == _DISTINCT:  # `distinct_kernels` counts
            out[row, at] = 0
            null[row, at] = 0
        elif read == _FIRST:
            rank = window_firsts[w, slot]
            out[row, at] = max(rank, 0)
            null[row, at] = 1 if rank < 0 else 0
        else:
            x = windows[w, slot] if w >= 0 else totals[i, slot]
            null[row, at] = 0
            if read != _NUMBER:
                n = windows[w, count] if w >= 0 else totals[i, count]
                if n == 0:
                    x = np.int64(0)
                    null[row, at] = 1
                if read == _MEAN:
                    out[row, at + 1] = n
                    null[row, at + 1] = null[row, at]
            out[row, at] = x


@_kernel(
    f"int64(int64, int64, {_I}, {_II}, {_II}, {_II}, {_I}, {_I}, {_II},"
    f" {_I}, {_I}, {_II}, {_II}, {_II}, {_II}, {_I}, {_I},"
    f" {_I}, {_I}, {_I}, {_I}, {_II}, {_BB},"
    f" {_I}, {_II}, {_II}, {_I}, {_I}, {_I}, {_II}, {_BB}, {_I})"
)
def apply_rows(  # type: ignore[no-untyped-def]
    hop, now, widths, slots, total_slots, reference_table, first_columns, first_tiles, reads,
    tile_start, index, tiles, firsts, totals, refs, last_us, expired_us,
    row_start, row_order, row_us, row_rank, lanes, valid,
    new_index, new_tiles, new_firsts, new_start, new_stop, next_us, out, null, rank_us,
):  # fmt: skip
    """Bring every entity to `now`: merge its rows into its tiles, drop old tiles, read its features.

    `tile_start`, `row_start`: where each entity's tiles and rows begin. `row_order` sorts the rows by entity and rank;
    `row_us`, `row_rank` are in that order. `totals`, `refs`, `last_us`, `expired_us` change in place; new tiles go
    to `new_*`, entity `i` keeping `new_start[i]` to `new_stop[i]`.

    Returns -1, else entity · (all slots) + slot of a sum that left int64, all-time slots after the others.
    """
    current = now // hop
    oldest = current - widths[-1] if widths.shape[0] else INT_MAX
    windows = np.empty((widths.shape[0], slots.shape[0]), np.int64)
    window_firsts = np.empty((widths.shape[0], first_columns.shape[0]), np.int64)
    size = slots.shape[0] + total_slots.shape[0]
    fill = 0
    for i in range(last_us.shape[0]):
        base = fill
        j, stop = tile_start[i], tile_start[i + 1]
        for s in range(row_start[i], row_start[i + 1]):
            r, t, rank = row_order[s], row_us[s], row_rank[s]
            fault = fold_event(totals, i, total_slots, lanes, valid, r)
            if fault >= 0:
                return i * size + slots.shape[0] + fault
            fold_references(refs, i, reference_table, valid, r, rank)
            last_us[i] = max(last_us[i], t)
            if widths.shape[0] == 0:
                continue
            k = t // hop
            older, j = j, first_from(index, j, stop, k + 1)
            copy_tiles(new_index, new_tiles, new_firsts, fill, index, tiles, firsts, older, j)
            fill += j - older
            if fill == base or new_index[fill - 1] != k:
                new_index[fill] = k
                clear(new_tiles, fill, slots)
                new_firsts[fill] = -1
                fill += 1
            fault = fold_event(new_tiles, fill - 1, slots, lanes, valid, r)
            if fault >= 0:
                return i * size + fault
            fold_firsts(new_firsts, fill - 1, first_columns, valid, r, rank)
        copy_tiles(new_index, new_tiles, new_firsts, fill, index, tiles, firsts, j, stop)
        fill += stop - j
        next_us[i] = INT_MAX
        j = fill
        for w in range(widths.shape[0]):
            j = first_from(new_index, base, j, current - widths[w])
            if j > base:
                expired_us[i] = max(expired_us[i], (new_index[j - 1] + widths[w] + 1) * hop)
            if j < fill:
                next_us[i] = min(next_us[i], (new_index[j] + widths[w] + 1) * hop)
        base = first_from(new_index, base, fill, oldest)
        new_start[i], new_stop[i] = base, fill
        forget_firsts(new_firsts, new_index, first_tiles, current, base, fill)
        forget_references(refs, i, reference_table, rank_us, hop, current)
        fault = fill_windows(
            new_index, new_tiles, new_firsts, base, fill, current, widths, slots, windows, window_firsts
        )
        if fault >= 0:
            return i * size + fault
        read_features(
            reads, widths, windows, window_firsts, totals, refs, i, rank_us, hop, current, out, null, i
        )
    return -1


@_kernel(f"void(int64, int64, {_I}, {_I}, {_I}, {_I})")
def bound_rows(hop, window_count, row_start, row_us, tile_count, row_bound):  # type: ignore[no-untyped-def]
    """Per entity: its distinct tiles, and the most rows that a sweep emits for it."""
    for i in range(row_start.shape[0] - 1):
        tile_number, instants = 0, 0
        for s in range(row_start[i], row_start[i + 1]):
            first = s == row_start[i]
            if first or row_us[s] != row_us[s - 1]:
                instants += 1
            if first or row_us[s] // hop != row_us[s - 1] // hop:
                tile_number += 1
        tile_count[i] = tile_number
        row_bound[i] = instants + window_count * tile_number


@_kernel(
    f"int64(int64, int64, int64, {_I}, {_II}, {_II}, {_II}, {_I}, {_II},"
    f" int64, {_I}, {_I}, {_II}, {_II}, {_II}, {_II},"
    f" {_I}, {_I}, {_I}, {_I}, {_I}, {_II}, {_BB},"
    f" {_I}, {_I}, {_II}, {_BB}, {_I})"
)
def sweep_rows(  # type: ignore[no-untyped-def]
    hop, since, until, widths, slots, total_slots, reference_table, first_columns, reads,
    max_tiles, tile_start, held_index, held_tiles, held_firsts, held_totals, held_refs,
    row_start, row_order, row_us, row_rank, rank_us, lanes, valid,
    out_entity, out_us, out, null, fault_at,
):  # fmt: skip
    """Go on from what entities hold at `since` and write a row at each instant at which a feature may change.

    What is held is as `apply_rows` takes it, and is not changed. Rows are sorted by entity and rank and lie behind
    `since`. Returns the rows written, or -1 with the entity and slot of a sum that left int64 in `fault_at` (all-time
    slots follow the others).
    """
    window_count = widths.shape[0]
    index = np.empty(max_tiles, np.int64)
    tiles = np.empty((max_tiles, slots.shape[0]), np.int64)
    firsts = np.empty((max_tiles, first_columns.shape[0]), np.int64)
    windows = np.empty((window_count, slots.shape[0]), np.int64)
    window_firsts = np.empty((window_count, first_columns.shape[0]), np.int64)
    totals = np.empty((1, total_slots.shape[0]), np.int64)
    refs = np.empty((1, held_refs.shape[1]), np.int64)
    oldest = np.empty(window_count, np.int64)
    fill = 0
    for i in range(row_start.shape[0] - 1):
        totals[0] = held_totals[i]
        refs[0] = held_refs[i]
        tile_count = tile_start[i + 1] - tile_start[i]
        copy_tiles(
            index, tiles, firsts, 0, held_index, held_tiles, held_firsts, tile_start[i], tile_start[i + 1]
        )
        fault = fill_windows(
            index, tiles, firsts, 0, tile_count, since // hop, widths, slots, windows, window_firsts
        )
        if fault >= 0:
            fault_at[0], fault_at[1] = i, fault
            return -1
        for w in range(window_count):
            oldest[w] = first_from(index, 0, tile_count, since // hop - widths[w])
        s, stop = row_start[i], row_start[i + 1]
        while True:
            t = row_us[s] if s < stop else INT_MAX
            for w in range(window_count):
                if oldest[w] < tile_count:
                    t = min(t, (index[oldest[w]] + widths[w] + 1) * hop)
            if t > until or t == INT_MAX:
                break
            current = t // hop
            for w in range(window_count):
                left = oldest[w]
                while oldest[w] < tile_count and index[oldest[w]] < current - widths[w]:
                    fault = evict_tile(windows, w, slots, tiles, oldest[w], tile_count)
                    if fault >= 0:
                        fault_at[0], fault_at[1] = i, fault
                        return -1
                    oldest[w] += 1
                if oldest[w] != left:
                    find_firsts(window_firsts, w, firsts, oldest[w], tile_count)
            while s < stop and row_us[s] == t:
                r, rank = row_order[s], row_rank[s]
                if tile_count == 0 or index[tile_count - 1] != current:
                    index[tile_count] = current
                    clear(tiles, tile_count, slots)
                    firsts[tile_count] = -1
                    tile_count += 1
                fault = fold_event(tiles, tile_count - 1, slots, lanes, valid, r)
                fold_firsts(firsts, tile_count - 1, first_columns, valid, r, rank)
                for w in range(window_count):
                    fault = max(fault, fold_event(windows, w, slots, lanes, valid, r))
                    fold_firsts(window_firsts, w, first_columns, valid, r, rank)
                total_fault = fold_event(totals, 0, total_slots, lanes, valid, r)
                if total_fault >= 0:
                    fault = slots.shape[0] + total_fault
                if fault >= 0:
                    fault_at[0], fault_at[1] = i, fault
                    return -1
                fold_references(refs, 0, reference_table, valid, r, rank)
                s += 1
            out_entity[fill] = i
            out_us[fill] = t
            read_features(
                reads, widths, windows, window_firsts, totals, refs, 0, rank_us, hop, current, out, null, fill
            )
            fill += 1
    return fill
