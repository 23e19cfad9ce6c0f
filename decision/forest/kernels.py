"""The forest's compiled kernels, all of them, with their signatures spelt out.

Legend: `n` rows, `f` features, `g` groups (classes or targets), `t` trees. Rows are float32[n, f], NaN is missing.

**Order of operations.** XGBoost's `inplace_predict`, to the bit: every group starts at its base margin and leaves
are added in the model's order, in float32.

**Trees.** The top of a tree, at most `lanes.MAX_DEPTH` splits deep, is stored complete: node `i` has children `2 i`
and `2 i + 1`, short branches are padded. Up to sixty-four rows take a whole tree at once where vectors hold sixteen,
see `lanes`. Elsewhere a walk is a fixed number of steps without branches, and eight walks run side by side to
hide the latency of loads: one row through eight trees, or eight rows through one tree. Batches with deeper trees go on
in the pool, where a node names its left child and the right one is next to it.

**Keys.** A float32 becomes an int32 of the same order, and a split one integer comparison, `key >= threshold` goes
right. Every feature has two slots, with missing as the greatest key (goes right) and as the least (goes left); a
node reads the slot of its default direction. A categorical feature has two more, which hold the category's code;
its splits look a bit up at `start + code`, and missing and unknown codes have bits of their own.

**Node.** One uint64: bit 63 categorical, bits 32 to 62 the slot times `lanes.ROWS`, the low half threshold or start.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import boolean, float32, float64, int32, int64, njit, types, uint8, uint32, uint64, void
from numpy.typing import NDArray

from decision.forest.lanes import ROWS, WIDE, WIDTHS, add_tree

WALKS: Final = 8
"""Walks side by side, and trees of a batch."""

KEY_LEAST: Final = -(2**31)
KEY_GREATEST: Final = 2**31 - 1

BATCH_CATEGORICAL: Final = 1
BATCH_DEEP: Final = 2

# Fields of the table's header: counts, then where each section begins.
GROUPS: Final = 0
FEATURES: Final = 1
CATEGORICAL_FEATURES: Final = 2
BATCHES: Final = 3  # per eight trees: first node, depth of the tops, BATCH_ flags
TREE_GROUP: Final = 4
BASE: Final = 5
CODED: Final = 6  # per categorical feature: feature, number of codes
LEAF: Final = 7
NEXT: Final = 8  # by place of a leaf, where a deep batch's walk goes on in the pool
POOL_LEFT: Final = 9
POOL_VALUE: Final = 10
BITS: Final = 11
END: Final = 12
POOL_NODE: Final = 13  # in the array of nodes
HEADER_SIZE: Final = 14

_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_FLAG: Final = np.uint64(63)
_SLOT: Final = np.uint64(0x7FFFFFFF)
_WORD: Final = np.uint64(5)
_BIT: Final = np.uint64(31)


def _const(dtype: types.Type, ndim: int = 1) -> types.Array:
    return types.Array(dtype, ndim, "C", readonly=True)


@njit(
    [int32(float32)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def key_of(value: float) -> Any:
    """An int32 that orders as the float32 does, both zeros alike; not for NaN."""
    bits = np.float32(value + float32(0)).view(np.int32)
    return bits ^ ((bits >> int32(31)) & int32(KEY_GREATEST))


@njit(
    [void(_const(float32, 2), int64, int64, int64, int64, int64, _const(int32), int32[::1])],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def fill_lanes(
    rows: NDArray[np.float32],
    i: int,
    count: int,
    lanes: int,
    features: int,
    coded_count: int,
    coded: NDArray[np.int32],
    keys: NDArray[np.int32],
) -> None:
    """Write `count` rows from row `i` on as keys and codes, one to a lane.

    Codes of other lanes stay what they are, keys of other lanes below `lanes` become keys of something.
    """
    some = features * ROWS
    to_right, to_left = keys[:some], keys[some : 2 * some]
    values = to_left.view(np.float32)
    for lane in range(count):
        for j in range(features):
            values[uint64(j * ROWS + lane)] = rows[uint64(i + lane), uint64(j)]
    for j in range(features):
        for first in range(j * ROWS, j * ROWS + lanes, WIDTHS[0]):
            for at in range(first, first + WIDTHS[0]):
                value = values[at]
                missing = math.isnan(value)
                key = key_of(value)
                to_right[at] = int32(KEY_GREATEST) if missing else key
                to_left[at] = int32(KEY_LEAST) if missing else key
    for c in range(coded_count):
        for lane in range(count):
            value = rows[i + lane, coded[2 * c]]
            unknown = coded[2 * c + 1]
            known = value >= 0 and value < unknown
            missing = math.isnan(value)
            code = int32(value) if known else unknown
            keys[(2 * (features + c)) * ROWS + lane] = unknown + int32(1) if missing else code
            keys[(2 * (features + c) + 1) * ROWS + lane] = code


@njit(
    [uint64(uint64, _const(int32), uint64, _const(uint32))],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def goes_right(node: int, keys: NDArray[np.int32], lane: int, bits: NDArray[np.uint32]) -> Any:
    """One split of any kind, 1 for right; computes both kinds, since a branch here would mispredict."""
    key = keys[((node >> _HALF) & _SLOT) + lane]
    limit = int32(node)
    categorical = node >> _FLAG
    at = uint64(int64(key) + int64(limit)) * categorical
    bit = uint64(bits[at >> _WORD] >> uint32(at & _BIT))
    return (bit & categorical) | (uint64(key >= limit) & (categorical ^ _ONE))


@njit(
    [uint64(_const(uint64), uint64, uint64, _const(int32), uint64)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def step(nodes: NDArray[np.uint64], base: int, i: int, keys: NDArray[np.int32], lane: int) -> Any:
    """From node `i` of a complete tree to its child, for trees without categorical splits."""
    node = nodes[base + i]
    return (i << _ONE) + uint64(keys[(node >> _HALF) + lane] >= int32(node))


@njit(
    [void(uint64[::1], uint64, _const(int32), _const(uint64), uint64, _const(int32), _const(uint32))],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def walk_pool(at, stride, keys, nodes, pool_node, pool_left, bits):  # type: ignore[no-untyped-def]
    """Take eight walks through the pool to their leaves, in place; walk `r` reads lane `r * stride`.

    A leaf is its own left child and its split always goes left, so walks that have arrived wait for the rest.
    """
    i0 = at[0]
    i1 = at[1]
    i2 = at[2]
    i3 = at[3]
    i4 = at[4]
    i5 = at[5]
    i6 = at[6]
    i7 = at[7]
    moved = True
    while moved:
        n0 = uint64(pool_left[i0]) + goes_right(nodes[pool_node + i0], keys, uint64(0), bits)
        n1 = uint64(pool_left[i1]) + goes_right(nodes[pool_node + i1], keys, uint64(1) * stride, bits)
        n2 = uint64(pool_left[i2]) + goes_right(nodes[pool_node + i2], keys, uint64(2) * stride, bits)
        n3 = uint64(pool_left[i3]) + goes_right(nodes[pool_node + i3], keys, uint64(3) * stride, bits)
        n4 = uint64(pool_left[i4]) + goes_right(nodes[pool_node + i4], keys, uint64(4) * stride, bits)
        n5 = uint64(pool_left[i5]) + goes_right(nodes[pool_node + i5], keys, uint64(5) * stride, bits)
        n6 = uint64(pool_left[i6]) + goes_right(nodes[pool_node + i6], keys, uint64(6) * stride, bits)
        n7 = uint64(pool_left[i7]) + goes_right(nodes[pool_node + i7], keys, uint64(7) * stride, bits)
        moved = (
            (n0 ^ i0) | (n1 ^ i1) | (n2 ^ i2) | (n3 ^ i3) | (n4 ^ i4) | (n5 ^ i5) | (n6 ^ i6) | (n7 ^ i7)
        ) != 0
        i0, i1, i2, i3, i4, i5, i6, i7 = n0, n1, n2, n3, n4, n5, n6, n7
    at[0] = i0
    at[1] = i1
    at[2] = i2
    at[3] = i3
    at[4] = i4
    at[5] = i5
    at[6] = i6
    at[7] = i7


@njit(
    [void(_const(int32), _const(uint64), _const(int32), int64, int64, int64, int64, float32[::1])],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def add_rows(keys, nodes, table, count, lanes, begin, end, sums):  # type: ignore[no-untyped-def]
    """Take `count` rows through each tree, at most `lanes`, one of `WIDTHS`.

    `sums[g * ROWS + lane]` gains the leaves, idle lanes anything.
    """
    batches = table[table[BATCHES] : table[TREE_GROUP]]
    tree_group = table[table[TREE_GROUP] : table[BASE]]
    leaf = table[table[LEAF] : table[NEXT]].view(np.float32)
    next_ = table[table[NEXT] : table[POOL_LEFT]]
    pool_left = table[table[POOL_LEFT] : table[POOL_VALUE]]
    pool_value = table[table[POOL_VALUE] : table[BITS]].view(np.float32)
    bits = table[table[BITS] : table[END]].view(np.uint32)
    pool_node = uint64(table[POOL_NODE])
    at = np.empty(WALKS, np.uint64)
    for t in range(begin, end):
        batch = 3 * (t >> 3)
        depth = batches[batch + 1]
        flags = batches[batch + 2]
        width = _ONE << uint64(depth)
        base = uint64(batches[batch]) + uint64(t & 7) * width
        into = int64(tree_group[t]) * ROWS
        if WIDE and flags == 0:
            add_tree(int64(depth), lanes, base, keys, nodes, leaf, sums, into)
            continue
        leaves = base - width
        for first in range(0, count, WALKS):
            some = keys[first:]
            i0 = i1 = i2 = i3 = i4 = i5 = i6 = i7 = _ONE
            if flags & BATCH_CATEGORICAL:
                for _ in range(depth):
                    i0 = (i0 << _ONE) + goes_right(nodes[base + i0], some, uint64(0), bits)
                    i1 = (i1 << _ONE) + goes_right(nodes[base + i1], some, uint64(1), bits)
                    i2 = (i2 << _ONE) + goes_right(nodes[base + i2], some, uint64(2), bits)
                    i3 = (i3 << _ONE) + goes_right(nodes[base + i3], some, uint64(3), bits)
                    i4 = (i4 << _ONE) + goes_right(nodes[base + i4], some, uint64(4), bits)
                    i5 = (i5 << _ONE) + goes_right(nodes[base + i5], some, uint64(5), bits)
                    i6 = (i6 << _ONE) + goes_right(nodes[base + i6], some, uint64(6), bits)
                    i7 = (i7 << _ONE) + goes_right(nodes[base + i7], some, uint64(7), bits)
            else:
                for _ in range(depth):
                    i0 = step(nodes, base, i0, some, uint64(0))
                    i1 = step(nodes, base, i1, some, uint64(1))
                    i2 = step(nodes, base, i2, some, uint64(2))
                    i3 = step(nodes, base, i3, some, uint64(3))
                    i4 = step(nodes, base, i4, some, uint64(4))
                    i5 = step(nodes, base, i5, some, uint64(5))
                    i6 = step(nodes, base, i6, some, uint64(6))
                    i7 = step(nodes, base, i7, some, uint64(7))
            at[0] = leaves + i0
            at[1] = leaves + i1
            at[2] = leaves + i2
            at[3] = leaves + i3
            at[4] = leaves + i4
            at[5] = leaves + i5
            at[6] = leaves + i6
            at[7] = leaves + i7
            if flags & BATCH_DEEP:
                for lane in range(WALKS):
                    at[lane] = next_[at[lane]]
                walk_pool(at, _ONE, some, nodes, pool_node, pool_left, bits)
                for lane in range(WALKS):
                    sums[into + first + lane] += pool_value[at[lane]]
            else:
                for lane in range(WALKS):
                    sums[into + first + lane] += leaf[at[lane]]


@njit(
    [void(_const(int32), _const(uint64), _const(int32), int64, int64, float32[::1])],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def add_one_row(keys, nodes, table, begin, end, sums):  # type: ignore[no-untyped-def]
    """Walk the row in lane 0 through eight trees at a time; `sums[g]` gains the leaves of `begin` to `end`."""
    batches = table[table[BATCHES] : table[TREE_GROUP]]
    tree_group = table[table[TREE_GROUP] : table[BASE]]
    leaf = table[table[LEAF] : table[NEXT]].view(np.float32)
    next_ = table[table[NEXT] : table[POOL_LEFT]]
    pool_left = table[table[POOL_LEFT] : table[POOL_VALUE]]
    pool_value = table[table[POOL_VALUE] : table[BITS]].view(np.float32)
    bits = table[table[BITS] : table[END]].view(np.uint32)
    pool_node = uint64(table[POOL_NODE])
    at = np.empty(WALKS, np.uint64)
    lane = uint64(0)
    for b in range(begin >> 3, (end + 7) >> 3):
        depth = batches[3 * b + 1]
        flags = batches[3 * b + 2]
        width = _ONE << uint64(depth)
        b0 = uint64(batches[3 * b])
        b1 = b0 + width
        b2 = b1 + width
        b3 = b2 + width
        b4 = b3 + width
        b5 = b4 + width
        b6 = b5 + width
        b7 = b6 + width
        i0 = i1 = i2 = i3 = i4 = i5 = i6 = i7 = _ONE
        if flags & BATCH_CATEGORICAL:
            for _ in range(depth):
                i0 = (i0 << _ONE) + goes_right(nodes[b0 + i0], keys, lane, bits)
                i1 = (i1 << _ONE) + goes_right(nodes[b1 + i1], keys, lane, bits)
                i2 = (i2 << _ONE) + goes_right(nodes[b2 + i2], keys, lane, bits)
                i3 = (i3 << _ONE) + goes_right(nodes[b3 + i3], keys, lane, bits)
                i4 = (i4 << _ONE) + goes_right(nodes[b4 + i4], keys, lane, bits)
                i5 = (i5 << _ONE) + goes_right(nodes[b5 + i5], keys, lane, bits)
                i6 = (i6 << _ONE) + goes_right(nodes[b6 + i6], keys, lane, bits)
                i7 = (i7 << _ONE) + goes_right(nodes[b7 + i7], keys, lane, bits)
        else:
            for _ in range(depth):
                i0 = step(nodes, b0, i0, keys, lane)
                i1 = step(nodes, b1, i1, keys, lane)
                i2 = step(nodes, b2, i2, keys, lane)
                i3 = step(nodes, b3, i3, keys, lane)
                i4 = step(nodes, b4, i4, keys, lane)
                i5 = step(nodes, b5, i5, keys, lane)
                i6 = step(nodes, b6, i6, keys, lane)
                i7 = step(nodes, b7, i7, keys, lane)
        at[0] = b0 - width + i0
        at[1] = b0 + i1
        at[2] = b1 + i2
        at[3] = b2 + i3
        at[4] = b3 + i4
        at[5] = b4 + i5
        at[6] = b5 + i6
        at[7] = b6 + i7
        first = b << 3
        if flags & BATCH_DEEP:
            for r in range(WALKS):
                at[r] = next_[at[r]]
            walk_pool(at, lane, keys, nodes, pool_node, pool_left, bits)
            for t in range(max(begin, first), min(end, first + WALKS)):
                sums[tree_group[t]] += pool_value[at[t - first]]
        else:
            for t in range(max(begin, first), min(end, first + WALKS)):
                sums[tree_group[t]] += leaf[at[t - first]]


@njit(
    [void(_const(float32, 2), _const(uint64), _const(int32), int64, int64, float32[:, ::1])],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def add_margins(rows, nodes, table, begin, end, out):  # type: ignore[no-untyped-def]
    """Fill `out[n, g]` with the margins of trees `begin` to `end`.

    As many rows as vectors are made for go at a time; a rest goes in the narrowest vectors that hold it, with idle
    lanes, and one of one or two rows goes one by one.
    """
    groups = int64(table[GROUPS])
    features = int64(table[FEATURES])
    coded_count = int64(table[CATEGORICAL_FEATURES])
    coded = table[table[CODED] : table[LEAF]]
    base = table[table[BASE] : table[CODED]].view(np.float32)
    keys = np.empty(2 * (features + coded_count) * ROWS, np.int32)
    keys[2 * features * ROWS :] = 0  # codes of idle lanes are looked up too
    sums = np.empty(groups * ROWS, np.float32)
    n = rows.shape[0]
    i = 0
    while n - i >= 3:
        count = min(n - i, ROWS)
        lanes = WIDTHS[0] if count <= WIDTHS[0] else WIDTHS[1] if count <= WIDTHS[1] else WIDTHS[2]
        fill_lanes(rows, i, count, lanes, features, coded_count, coded, keys)
        for k in range(groups):
            sums[k * ROWS : (k + 1) * ROWS] = base[k]
        add_rows(keys, nodes, table, count, lanes, begin, end, sums)
        for lane in range(count):
            for k in range(groups):
                out[i + lane, k] = sums[k * ROWS + lane]
        i += count
    while i < n:
        fill_lanes(rows, i, 1, 1, features, coded_count, coded, keys)
        out[i] = base
        add_one_row(keys, nodes, table, begin, end, out[i])
        i += 1


add_margins_now = add_margins.get_overload(add_margins.signatures[0])
"""`add_margins` without the look at its arguments' types that every call of a dispatcher takes; they must be right."""


@njit(
    [float32(float32, int64)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def link(score: float, kind: int) -> float:
    """Base score to margin (`objectives.Link`), through the C library's float functions as XGBoost does."""
    one = float32(1)
    if kind == 1:
        return -math.log(one / score - one)
    if kind == 2:
        return math.log(score)
    return score


@njit(
    [void(float32[::1])],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def softmax(row: NDArray[np.float32]) -> None:
    """Softmax in place; the sum is float64 and divided as float32, as XGBoost does."""
    greatest = row.max()
    total = 0.0
    for k in range(row.shape[0]):
        row[k] = math.exp(row[k] - greatest)
        total += row[k]
    for k in range(row.shape[0]):
        row[k] /= float32(total)


@njit(
    [void(float32[:, ::1], int64)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def transform(margins: NDArray[np.float32], kind: int) -> None:
    """Margins to predictions (`objectives.Transform`) in place; ARGMAX leaves the class in column 0."""
    one = float32(1)
    for i in range(margins.shape[0]):
        row = margins[i]
        if kind == 4:
            softmax(row)
        elif kind == 5:
            row[0] = float32(np.argmax(row))
        else:
            for k in range(row.shape[0]):
                if kind == 1:
                    row[k] = one / (math.exp(min(-row[k], float32(88.7))) + one + float32(1e-16))
                elif kind == 2:
                    row[k] = math.exp(row[k])
                elif kind == 3:
                    row[k] = one if row[k] > 0 else float32(0)


@njit(
    [void(float64[::1], int64, float64, boolean)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def extend(weights: NDArray[np.float64], length: int, share: float, followed: bool) -> None:
    """Add one feature to a path's permutation weights (TreeSHAP's EXTEND); `length` features are in it."""
    weights[length] = 0.0
    for i in range(length - 1, -1, -1):
        if followed:
            weights[i + 1] += weights[i] * (i + 1) / (length + 1)
        weights[i] *= share * (length - i) / (length + 1)


@njit(
    [float64(float64[::1], int64, float64, boolean)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def unwound_sum(weights: NDArray[np.float64], length: int, share: float, followed: bool) -> float:
    """Sum of the weights of a path of `length` features without one of them (TreeSHAP's UNWIND)."""
    total = 0.0
    last = weights[length]
    for i in range(length - 1, -1, -1):
        if followed:
            part = last * (length + 1) / (i + 1)
            last = weights[i] - part * share * (length - i) / (length + 1)
        else:
            part = weights[i] * (length + 1) / (share * (length - i))
        total += part
    return total


@njit(
    [
        void(
            _const(float32, 2),
            _const(int32),
            int64,
            int64,
            _const(uint64),
            _const(int32),
            _const(int32),
            _const(uint8),
            _const(float64),
            _const(float32),
            _const(int32),
            _const(int64),
            int64,
            float64[:, :, ::1],
        )
    ],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def add_contributions(  # type: ignore[no-untyped-def]
    rows, table, begin, end, code, feature, parent, side, share, value, leaves, leaf_start, depth, out
):
    """Add to `out[n, g, f + 1]` the path-dependent TreeSHAP values of trees `begin` to `end`; the last is the mean.

    Leaf by leaf: a path is the features it splits on, each with its share of cover (if the feature were unknown)
    and whether the row follows all its splits.
    """
    features = int64(table[FEATURES])
    coded_count = int64(table[CATEGORICAL_FEATURES])
    coded = table[table[CODED] : table[LEAF]]
    tree_group = table[table[TREE_GROUP] : table[BASE]]
    bits = table[table[BITS] : table[END]].view(np.uint32)
    keys = np.empty(2 * (features + coded_count) * ROWS, np.int32)
    path_feature = np.empty(depth + 1, np.int64)
    path_share = np.empty(depth + 1, np.float64)
    path_followed = np.empty(depth + 1, np.bool_)
    weights = np.empty(depth + 2, np.float64)
    for i in range(rows.shape[0]):
        fill_lanes(rows, i, 1, 1, features, coded_count, coded, keys)
        for t in range(begin, end):
            sums = out[i, tree_group[t]]
            for leaf in leaves[leaf_start[t] : leaf_start[t + 1]]:
                length = 0
                mean = 1.0
                node = leaf
                while parent[node] >= 0:
                    above = parent[node]
                    follows = goes_right(code[above], keys, uint64(0), bits) == side[node]
                    mean *= share[node]
                    k = 0
                    while k < length and path_feature[k] != feature[above]:
                        k += 1
                    if k == length:
                        path_feature[k] = feature[above]
                        path_share[k] = share[node]
                        path_followed[k] = follows
                        length += 1
                    else:
                        path_share[k] *= share[node]
                        path_followed[k] &= follows
                    node = above
                sums[features] += mean * value[leaf]
                weights[0] = 1.0
                for k in range(length):
                    extend(weights, k + 1, path_share[k], path_followed[k])
                for k in range(length):
                    if path_followed[k]:
                        gain = (1.0 - path_share[k]) * unwound_sum(weights, length, path_share[k], True)
                    elif path_share[k] > 0.0:
                        gain = -path_share[k] * unwound_sum(weights, length, path_share[k], False)
                    else:
                        gain = 0.0
                    sums[path_feature[k]] += gain * value[leaf]


def warm() -> None:
    """Have every kernel ready.

    Signatures are explicit, so importing this module compiles (or loads from Numba's cache) all there is and
    nothing compiles later; calling this in a start-up sequence says so and is cheap.
    """
