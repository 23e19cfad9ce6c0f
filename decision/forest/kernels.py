"""The forest's compiled kernels, all of them, with their signatures spelt out.

Legend: `n` rows, `f` features, `g` groups (classes or targets), `t` trees. Rows are float32[n, f] with NaN for
missing. Trees are nodes of flat arrays; `left` is -1 at a leaf, the right child is `left + 1`.

The order of float32 operations is XGBoost's `inplace_predict`, to the bit: every group starts at its base margin
and trees are added in the model's order; dart adds `((base + leaf) - base) * weight`.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import float32, int32, int64, types, uint8, uint32, void
from numba import njit as _njit
from numpy.typing import NDArray

DEFAULT_LEFT: Final = 1
CATEGORICAL: Final = 2
MAX_CATEGORY: Final = 1 << 24


def _const(dtype: types.Type, ndim: int = 1) -> types.Array:
    return types.Array(dtype, ndim, "C", readonly=True)


_NODES = (
    _const(int32),
    _const(int32),
    _const(float32),
    _const(uint8),
    _const(int32),
    _const(int32),
    _const(uint32),
)
"""left, feature, value, flags, set of a node, start of a set, words of the sets."""


@_njit(
    [types.boolean(float32, uint8, float32, int64, int64, _const(uint32))],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def goes_left(
    value: float, flags: int, threshold: float, start: int, stop: int, words: NDArray[np.uint32]
) -> bool:
    """One split: missing follows the default, listed categories and values from the threshold on go right."""
    if math.isnan(value):
        return (flags & DEFAULT_LEFT) != 0
    if not flags & CATEGORICAL:
        return value < threshold
    if value < 0 or value >= MAX_CATEGORY:
        return True
    code = int64(value)
    word = start + (code >> 5)
    if word >= stop:
        return True
    return (words[word] >> uint32(code & 31)) & 1 == 0


@_njit(
    [int64(_const(float32, 2), int64, int64, *_NODES)],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def find_leaf(rows, i, root, left, feature, value, flags, node_set, set_start, words):  # type: ignore[no-untyped-def]
    """The leaf that row `i` falls into."""
    node = root
    while left[node] >= 0:
        chosen = node_set[node]
        x = rows[i, feature[node]]
        at_left = goes_left(x, flags[node], value[node], set_start[chosen], set_start[chosen + 1], words)
        node = left[node] + (0 if at_left else 1)
    return node


@_njit(
    [
        void(
            _const(float32, 2),
            _const(int32),
            *_NODES,
            _const(int32),
            _const(float32),
            _const(float32),
            types.boolean,
            int64,
            int64,
            float32[:, ::1],
        )
    ],
    cache=True,
    nogil=True,
    fastmath=False,
    error_model="numpy",
    boundscheck=False,
)
def add_margins(  # type: ignore[no-untyped-def]
    rows, roots, left, feature, value, flags, node_set, set_start, words, group, base, weight, dart, begin, end, out
):
    """Fill `out[n, g]` with the margins of trees `begin` to `end`, walking node by node."""
    for i in range(rows.shape[0]):
        for k in range(base.shape[0]):
            out[i, k] = base[k]
        for t in range(begin, end):
            leaf = value[find_leaf(rows, i, roots[t], left, feature, value, flags, node_set, set_start, words)]
            k = group[t]
            if dart:
                leaf = ((base[k] + leaf) - base[k]) * weight[t]
            out[i, k] += leaf


@_njit(
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


@_njit(
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


@_njit(
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


def warm() -> None:
    """Have every kernel ready.

    Signatures are explicit, so importing this module compiles (or loads from Numba's cache) all there is and
    nothing compiles later; calling this in a start-up sequence says so and is cheap.
    """
