"""All paths from leaves to roots, for attributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from decision.forest.trees import Tree

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paths:
    """The nodes of all trees, one tree after the other, every parent before its children.

    Attributes:
        code: uint64, a split as the kernels read it.
        feature: int32, the feature of a split.
        parent: int32, the node above, -1 at a root.
        side: uint8, 1 for a right child.
        share: float64, the part of the parent's cover that this node has.
        value: float32, what a leaf adds to its group.
        leaves: int32, the leaves in the trees' order.
        leaf_start: int64[t + 1], first entry in `leaves` of each tree and one past the last.
        depth: The longest path.
        sound: Every split has a positive, finite cover, so shares mean something.
    """

    code: NDArray[np.uint64]
    feature: NDArray[np.int32]
    parent: NDArray[np.int32]
    side: NDArray[np.uint8]
    share: NDArray[np.float64]
    value: NDArray[np.float32]
    leaves: NDArray[np.int32]
    leaf_start: NDArray[np.int64]
    depth: int
    sound: bool


def find_paths(
    trees: Sequence[Tree], values: Sequence[NDArray[np.float32]], codes: Sequence[NDArray[np.uint64]]
) -> Paths:
    """Collect the paths of trees whose leaves add `values` and whose splits are `codes`, both by node."""
    starts = np.cumsum([0, *(len(tree.order) for tree in trees)]).tolist()
    parents = [_parents(tree) for tree in trees]
    leaves = [np.flatnonzero(tree.left[tree.order] < 0) for tree in trees]
    return Paths(
        code=_join([code[tree.order] for tree, code in zip(trees, codes, strict=True)], np.uint64),
        feature=_join([tree.feature[tree.order] for tree in trees], np.int32),
        parent=_join([np.where(p >= 0, p + s, -1) for p, s in zip(parents, starts, strict=False)], np.int32),
        side=_join([_sides(tree) for tree in trees], np.uint8),
        share=_join([_shares(tree, parent) for tree, parent in zip(trees, parents, strict=True)], np.float64),
        value=_join([value[tree.order] for tree, value in zip(trees, values, strict=True)], np.float32),
        leaves=_join([leaf + start for leaf, start in zip(leaves, starts, strict=False)], np.int32),
        leaf_start=np.cumsum([0, *map(len, leaves)]),
        depth=max((tree.depth for tree in trees), default=0),
        sound=all(_is_sound(tree) for tree in trees),
    )


def _join(arrays: Sequence[NDArray[Any]], dtype: type[T]) -> NDArray[T]:
    return np.concatenate(arrays, dtype=dtype, casting="unsafe") if arrays else np.zeros(0, dtype)


def _parents(tree: Tree) -> NDArray[np.int64]:
    """The parent of each node, both by place in `tree.order`; siblings are neighbours there."""
    inner = np.flatnonzero(tree.left[tree.order] >= 0)
    return np.concatenate(([-1], np.repeat(inner, 2)))


def _sides(tree: Tree) -> NDArray[np.int64]:
    return (np.arange(len(tree.order)) + 1) % 2


def _shares(tree: Tree, parent: NDArray[np.int64]) -> NDArray[np.float64]:
    cover = tree.cover[tree.order].astype(np.float64)
    return np.concatenate(([1.0], cover[1:] / cover[parent[1:]]))


def _is_sound(tree: Tree) -> bool:
    cover = tree.cover[tree.order]
    inner = tree.left[tree.order] >= 0
    return bool(np.all(np.isfinite(cover)) and np.all(cover >= 0) and np.all(cover[inner] > 0))
