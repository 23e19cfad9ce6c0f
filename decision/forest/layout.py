"""Trees of a model as the two flat arrays that the kernels read; `kernels` describes their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from decision.forest import kernels
from decision.forest.coding import NodeCoder
from decision.forest.errors import UnsupportedModelError
from decision.forest.lanes import MAX_DEPTH
from decision.forest.paths import Paths, find_paths
from decision.forest.trees import Tree

MAX_TABLE: Final = 2**31 - 1

Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A forest in the kernels' form.

    Attributes:
        nodes: uint64, the tops in batches of eight trees, then the pool.
        table: int32, a header (`kernels.HEADER_SIZE`) and the sections it locates; floats are stored as bits.
        paths: The same trees for attributions.
    """

    nodes: NDArray[np.uint64]
    table: NDArray[np.int32]
    paths: Paths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """One tree's part of the arrays; `pool_left` and `next` count from the start of its own pool."""

    nodes: NDArray[np.uint64]
    leaf: Float32s
    next: Int64s
    pool_nodes: NDArray[np.uint64]
    pool_left: Int64s
    pool_value: Float32s


def lay_out(
    trees: Sequence[Tree],
    leaves: Sequence[Float32s],
    group: Int64s,
    base: Float32s,
    feature_count: int,
) -> Layout:
    """Lay trees out.

    Args:
        trees: In the model's order.
        leaves: For each tree, by node, what a leaf adds to its group.
        group: int64[t], the group of each tree.
        base: float32[g], the margin each group starts with.
        feature_count: Columns of a row.

    Raises:
        UnsupportedModelError: More nodes or sets of categories than the arrays can index.
    """
    coder = NodeCoder(trees, feature_count)
    codes = [coder.encode(tree) for tree in trees]
    batches: list[tuple[int, int, int]] = []
    pieces: list[_Piece] = []
    start = 0
    for first in range(0, len(trees), kernels.WALKS):
        batch = trees[first : first + kernels.WALKS]
        depth = min(MAX_DEPTH, max(tree.depth for tree in batch))
        flags = _flags(batch, depth)
        deep = bool(flags & kernels.BATCH_DEEP)
        batches.append((start, depth, flags))
        some = slice(first, first + kernels.WALKS)
        pieces += [
            _piece(tree, leaf, _padded(tree, code, coder.pad), depth, deep=deep)
            for tree, leaf, code in zip(batch, leaves[some], codes[some], strict=True)
        ]
        pieces += [_idle(coder.pad, depth, deep=deep)] * (kernels.WALKS - len(batch))
        start += kernels.WALKS << depth
    sections = _sections(pieces) | {
        kernels.BATCHES: np.array(batches, np.int64).ravel(),
        kernels.TREE_GROUP: group,
        kernels.BASE: base,
        kernels.CODED: coder.coded,
        kernels.BITS: coder.words(),
    }
    counts = {
        kernels.GROUPS: len(base),
        kernels.FEATURES: feature_count,
        kernels.CATEGORICAL_FEATURES: len(coder.coded) // 2,
        kernels.POOL_NODE: start,
    }
    nodes = [piece.nodes for piece in pieces] + [piece.pool_nodes for piece in pieces]
    return Layout(
        nodes=_join(nodes, np.uint64),
        table=_table(counts, sections),
        paths=find_paths(trees, leaves, codes),
    )


def _flags(batch: Sequence[Tree], depth: int) -> int:
    categorical = any(tree.categories for tree in batch)
    deep = any(tree.depth > depth for tree in batch)
    return (kernels.BATCH_CATEGORICAL if categorical else 0) | (kernels.BATCH_DEEP if deep else 0)


def _padded(tree: Tree, codes: NDArray[np.uint64], pad: np.uint64) -> NDArray[np.uint64]:
    """Leaves as splits that always go left, to themselves."""
    return np.where(tree.left >= 0, codes, pad)


def _piece(tree: Tree, leaf: Float32s, codes: NDArray[np.uint64], depth: int, *, deep: bool) -> _Piece:
    nodes = np.zeros(1 << depth, np.uint64)
    at = np.zeros(1, np.int64)
    for level in range(depth):
        nodes[1 << level : 2 << level] = codes[at]
        inner = tree.left[at] >= 0
        left = np.where(inner, tree.left[at], at)
        at = np.column_stack((left, left + inner)).ravel()
    pool, place = _pool_order(tree, at if deep else at[:0])
    return _Piece(
        nodes=nodes,
        leaf=leaf[at],
        next=place[at],
        pool_nodes=codes[pool],
        pool_left=np.where(tree.left[pool] >= 0, place[tree.left[pool]], place[pool]),
        pool_value=leaf[pool],
    )


def _pool_order(tree: Tree, at: Int64s) -> tuple[Int64s, Int64s]:
    """Nodes `at` and all below them, siblings side by side; and each node's place, -1 for none."""
    levels = [np.unique(at)]
    while len(levels[-1]):
        parents = levels[-1][tree.left[levels[-1]] >= 0]
        levels.append(np.column_stack((tree.left[parents], tree.left[parents] + 1)).ravel())
    pool = np.concatenate(levels)
    place = np.full(len(tree.left), -1, np.int64)
    place[pool] = np.arange(len(pool))
    return pool, place


def _idle(pad: np.uint64, depth: int, *, deep: bool) -> _Piece:
    """A tree that fills a batch up and is never added."""
    size = 1 << depth
    pool = int(deep)
    return _Piece(
        nodes=np.full(size, pad),
        leaf=np.zeros(size, np.float32),
        next=np.zeros(size, np.int64),
        pool_nodes=np.full(pool, pad),
        pool_left=np.zeros(pool, np.int64),
        pool_value=np.zeros(pool, np.float32),
    )


def _sections(pieces: Sequence[_Piece]) -> dict[int, NDArray[np.generic]]:
    """Leaves and pool of all trees, with the pool's indices counted from its common start."""
    sizes = [len(piece.pool_left) for piece in pieces]
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    placed = list(zip(pieces, starts, strict=True))
    return {
        kernels.LEAF: _join([piece.leaf for piece in pieces], np.float32),
        kernels.NEXT: _join([piece.next + start for piece, start in placed if any(sizes)], np.int64),
        kernels.POOL_LEFT: _join([piece.pool_left + start for piece, start in placed], np.int64),
        kernels.POOL_VALUE: _join([piece.pool_value for piece in pieces], np.float32),
    }


def _join(arrays: Sequence[NDArray[Any]], dtype: type[T]) -> NDArray[T]:
    return np.concatenate(arrays, dtype=dtype, casting="unsafe") if arrays else np.zeros(0, dtype)


def _table(counts: Mapping[int, int], sections: Mapping[int, NDArray[np.generic]]) -> NDArray[np.int32]:
    header = np.zeros(kernels.HEADER_SIZE, np.int64)
    parts = [_as_int32(sections[number]) for number in range(kernels.BATCHES, kernels.END)]
    ends = kernels.HEADER_SIZE + np.cumsum([0, *map(len, parts)])
    header[kernels.BATCHES : kernels.END + 1] = ends
    for number, count in counts.items():
        header[number] = count
    if np.any(header > MAX_TABLE):
        raise UnsupportedModelError(f"the forest takes more than {MAX_TABLE} cells")
    return np.concatenate([header.astype(np.int32), *parts])


def _as_int32(values: NDArray[np.generic]) -> NDArray[np.int32]:
    return values.view(np.int32) if values.dtype.itemsize == 4 else values.astype(np.int32)
