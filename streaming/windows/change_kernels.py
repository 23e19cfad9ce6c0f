"""The inner loops that find what a step changed in the stored state and write it down as words of a command.

Words are those of `online.words`, chunks those of `state.encode`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from online.write_kernels import put_decimal, put_word
from streaming.windows.codec_kernels import encode_table, put_varint
from streaming.windows.kernels import first_from

_COUNT, _SUM = 0, 1
_SEVEN = np.uint64(7)
_LOW = np.uint64(0x7F)

_I, _II = "int64[::1]", "int64[:,::1]"
_B = "uint8[::1]"


def _kernel(signature: str):  # type: ignore[no-untyped-def]
    return njit([signature], cache=True, nogil=True, boundscheck=False)


@_kernel("int64(uint64)")
def varint_size(value):  # type: ignore[no-untyped-def]
    """Bytes of an unsigned varint."""
    size = 1
    while value > _LOW:
        value >>= _SEVEN
        size += 1
    return size


@_kernel(f"int64({_II}, int64, {_II}, {_I})")
def row_size(table, i, slots, floats):  # type: ignore[no-untyped-def]
    """Bytes of the slots of a row."""
    size = 0
    for p in range(slots.shape[0]):
        x = table[i, p]
        kind = slots[p, 0]
        if kind == _COUNT:
            size += varint_size(np.uint64(x))
        elif kind != _SUM and table[i, slots[p, 3]] == 0:
            continue
        elif floats[p] == 1:
            size += 8
        else:
            size += varint_size(np.uint64((x << 1) ^ (x >> 63)))
    return size


@_kernel(f"int64({_I}, {_II}, int64, int64, {_I}, {_II}, int64, int64)")
def equal_rows(index, tiles, first, stop, old_index, old_tiles, old_first, old_stop):  # type: ignore[no-untyped-def]
    """How many tiles two runs begin with alike."""
    here, rows = index[first:stop], tiles[first:stop]
    there, old_rows = old_index[old_first:old_stop], old_tiles[old_first:old_stop]
    count = min(here.shape[0], there.shape[0])
    for k in range(count):
        other = here[k] ^ there[k]
        for p in range(tiles.shape[1]):
            other |= rows[k, p] ^ old_rows[k, p]
        if other != 0:
            return k
    return count


@_kernel(f"void({_I}, {_II}, {_II}, {_I}, int64, int64, int64, {_I})")
def measure(index, tiles, slots, floats, first, stop, known, sizes):  # type: ignore[no-untyped-def]
    """Bytes of the tiles first to stop up to each of them, with its distance from the one before.

    `sizes` takes them, and has those of the first `known` already.
    """
    total = sizes[known - 1] if known > 0 else 0
    for i in range(first + known, stop):
        total += row_size(tiles, i, slots, floats)
        if i > first:
            total += varint_size(np.uint64(index[i] - index[i - 1]))
        sizes[i - first] = total


@_kernel(f"int64({_I}, {_II}, {_II}, {_I}, int64, int64, int64, int64, {_I}, {_II})")
def split_range(index, tiles, slots, floats, first, stop, top_bits, limit, sizes, chunks):  # type: ignore[no-untyped-def]
    """Cut the tiles first to stop, all of one top range, into chunks of at most `limit` bytes; returns their number.

    `chunks` takes bits, number, first and stop of each, in order; `sizes` are as `measure` leaves them.
    """
    if first == stop:
        return 0
    stack = np.empty((top_bits + 2, 4), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = top_bits, index[first] >> top_bits, first, stop
    depth, count = 1, 0
    while depth > 0:
        depth -= 1
        bits, number, a, b = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        rows = sizes[b - 1 - first] - sizes[a - first] + row_size(tiles, a, slots, floats)
        head = varint_size(np.uint64(b - a)) + varint_size(np.uint64(index[a] - (number << bits)))
        if 1 + head + rows <= limit or bits == 0:
            chunks[count, 0], chunks[count, 1], chunks[count, 2], chunks[count, 3] = bits, number, a, b
            count += 1
            continue
        edge = (2 * number + 1) << (bits - 1)
        middle = a
        while middle < b and index[middle] < edge:
            middle += 1
        if middle < b:
            stack[depth, 0], stack[depth, 1] = bits - 1, 2 * number + 1
            stack[depth, 2], stack[depth, 3] = middle, b
            depth += 1
        if middle > a:
            stack[depth, 0], stack[depth, 1] = bits - 1, 2 * number
            stack[depth, 2], stack[depth, 3] = a, middle
            depth += 1
    return count


@_kernel(f"int64({_I}, {_II}, int64, int64, {_I}, {_II}, int64, int64)")
def same_rows(index, tiles, first, stop, old_index, old_tiles, old_first, old_stop):  # type: ignore[no-untyped-def]
    """1 where two runs of tiles are equal."""
    count = stop - first
    if count != old_stop - old_first:
        return 0
    # All of them, without looking at each in turn: most are equal.
    here, there = index[first:stop], old_index[old_first:old_stop]
    other = np.int64(0)
    for k in range(count):
        other |= here[k] ^ there[k]
    rows, old_rows = tiles[first:stop], old_tiles[old_first:old_stop]
    for k in range(count):
        for p in range(tiles.shape[1]):
            other |= rows[k, p] ^ old_rows[k, p]
    return 1 if other == 0 else 0


@_kernel(f"int64({_B}, int64, {_B}, int64, int64, {_B})")
def put_name(out, at, prefix, bits, number, scratch):  # type: ignore[no-untyped-def]
    """Write the name of a chunk as a word."""
    size = prefix.shape[0]
    for k in range(size):
        scratch[k] = prefix[k]
    size = put_decimal(scratch, size, bits)
    scratch[size] = 58
    size = put_decimal(scratch, size + 1, number)
    return put_word(out, at, scratch, 0, size)


@_kernel(
    f"int64(int64, {_I}, {_I}, {_II}, {_II}, {_I}, {_I}, {_I}, {_I}, {_II}, {_II}, {_I}, {_I}, {_I}, {_I},"
    f" {_II}, {_I}, {_II}, {_I}, int64, int64, {_B}, {_B}, int64, {_I}, {_B}, {_II})"
)
def put_changes(  # type: ignore[no-untyped-def]
    entity, old_start, old_index, old_tiles, old_totals, old_last_us, old_expired_us, start, index, tiles, totals,
    last_us, expired_us, stop, fresh,
    slots, floats, total_slots, total_floats, top_bits, limit, prefix, version, with_head, zero, out, places,
):  # fmt: skip
    """Write what the store must set and drop, for one entity after another from number `entity` on.

    `places` takes, row by row, for each: where its set words begin and how many there are (names and chunks), where
    its dropped words begin and how many there are, and where those end. `fresh` is 1 where nothing is stored yet.
    Returns the entity before which the room in `out` ended, or their number.
    """
    most = 0
    for i in range(start.shape[0]):
        most = max(most, stop[i] - start[i], old_start[i + 1] - old_start[i])
    sizes = np.empty(most + 1, np.int64)
    chunks = np.empty((most + 1, 4), np.int64)
    old_chunks = np.empty((most + 1, 4), np.int64)
    row_bytes = 10 * (1 + slots.shape[0])
    data = np.empty(max(limit, row_bytes) + 64 + 10 * total_slots.shape[0], np.uint8)
    scratch = np.empty(prefix.shape[0] + 64, np.uint8)
    drops = np.empty((2 * most + 2, 2), np.int64)
    at = 0
    for i in range(entity, start.shape[0]):
        a, b = start[i], stop[i]
        c, d = old_start[i], old_start[i + 1]
        if fresh[i] == 1:
            c = d
        worst = (
            (b - a + d - c + 1) * (row_bytes + prefix.shape[0] + 80) + data.shape[0] + scratch.shape[0] + 32
        )
        if at + worst > out.shape[0]:
            return i
        places[0, i] = at
        words, drop_count = 0, 0
        changed = fresh[i] == 1 or last_us[i] != old_last_us[i] or expired_us[i] != old_expired_us[i]
        for p in range(total_slots.shape[0]):
            changed = changed or totals[i, p] != old_totals[i, p]
        if with_head == 1 and changed:
            for k in range(version.shape[0]):
                data[k] = version[k]
            size = version.shape[0]
            for x in (last_us[i], expired_us[i]):
                size = put_varint(data, size, np.uint64((x << 1) ^ (x >> 63)))
            size += encode_table(zero, totals[i : i + 1], total_slots, total_floats, 0, 1, 0, data[size:])
            for k in range(prefix.shape[0]):
                scratch[k] = prefix[k]
            scratch[prefix.shape[0]] = 104
            at = put_word(out, at, scratch, 0, prefix.shape[0] + 1)
            at = put_word(out, at, data, 0, size)
            words += 2
        while a < b or c < d:
            top = index[a] >> top_bits if a < b else old_index[c] >> top_bits
            if c < d:
                top = min(top, old_index[c] >> top_bits)
            first, old_first = a, c
            a = first_from(index, a, b, (top + 1) << top_bits)
            c = first_from(old_index, c, d, (top + 1) << top_bits)
            if same_rows(index, tiles, first, a, old_index, old_tiles, old_first, c) == 1:
                continue
            measure(index, tiles, slots, floats, first, a, 0, sizes)
            count = split_range(index, tiles, slots, floats, first, a, top_bits, limit, sizes, chunks)
            alike = equal_rows(index, tiles, first, a, old_index, old_tiles, old_first, c)
            measure(old_index, old_tiles, slots, floats, old_first, c, alike, sizes)
            old_count = split_range(
                old_index, old_tiles, slots, floats, old_first, c, top_bits, limit, sizes, old_chunks
            )
            for n in range(count):
                bits, number, lo, hi = chunks[n, 0], chunks[n, 1], chunks[n, 2], chunks[n, 3]
                known = False
                for m in range(old_count):
                    if old_chunks[m, 0] == bits and old_chunks[m, 1] == number:
                        known = (
                            same_rows(
                                index, tiles, lo, hi, old_index, old_tiles, old_chunks[m, 2], old_chunks[m, 3]
                            )
                            == 1
                        )
                        old_chunks[m, 0] = -1
                        break
                if known:
                    continue
                data[0] = version[0]
                size = put_varint(data, 1, np.uint64(hi - lo))
                size += encode_table(index, tiles, slots, floats, lo, hi, number << bits, data[size:])
                at = put_name(out, at, prefix, bits, number, scratch)
                at = put_word(out, at, data, 0, size)
                words += 2
            for m in range(old_count):
                if old_chunks[m, 0] >= 0:
                    drops[drop_count, 0], drops[drop_count, 1] = old_chunks[m, 0], old_chunks[m, 1]
                    drop_count += 1
        places[1, i], places[2, i], places[3, i] = words, at, drop_count
        for m in range(drop_count):
            at = put_name(out, at, prefix, drops[m, 0], drops[m, 1], scratch)
        places[4, i] = at
    return start.shape[0]
