"""One tree of the model document: read, checked, and as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.forest.document import Node
from decision.forest.errors import UnsupportedModelError

MAX_DEPTH: Final = 1024
"""Splits on a path; deeper trees are refused so that every walk and attribution has a bound."""

MAX_CATEGORY: Final = 1 << 24
"""Category codes are below this: a float32 counts exactly so far."""

_LEAF: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A binary tree; arrays are indexed by node, node 0 is the root.

    Attributes:
        left: int64, left child, -1 at a leaf; the right child is the next node.
        feature: int64, the feature a node splits on.
        value: float32, the threshold of a split (left if less), the value of a leaf.
        default_left: bool, where a missing value goes.
        cover: float32, sum of hessians of the training rows, for attributions.
        categories: Codes that go right, by node, for categorical splits; all others go left.
        order: int64, the reachable nodes, every parent before its children.
        depth: Splits on the longest path.
    """

    left: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[np.float32]
    default_left: NDArray[np.bool_]
    cover: NDArray[np.float32]
    categories: dict[int, NDArray[np.int64]]
    order: NDArray[np.int64]
    depth: int


def read_tree(node: Node, feature_count: int) -> Tree:
    """Read and check one entry of `trees`.

    Raises:
        ModelFormatError: Missing or odd-sized arrays, indices out of range, cycles, NaN, infinite leaves.
        UnsupportedModelError: Vector leaves, siblings that are not neighbours, depth over `MAX_DEPTH`.
    """
    _refuse_vector_leaves(node["tree_param"])
    left = node["left_children"].int64s()
    right = _sized(node["right_children"], len(left)).int64s()
    order, depth = _walk_order(node, left, right)
    inner = order[left[order] != _LEAF]
    tree = Tree(
        left=left,
        feature=_sized(node["split_indices"], len(left)).int64s(),
        value=_sized(node["split_conditions"], len(left)).float32s(),
        default_left=_sized(node["default_left"], len(left)).int64s() != 0,
        cover=_sized(node["sum_hessian"], len(left)).float32s(),
        categories=_read_categories(node, inner, len(left)),
        order=order,
        depth=depth,
    )
    _check_values(node, tree, inner, feature_count)
    return tree


def _refuse_vector_leaves(param: Node) -> None:
    if param.has("size_leaf_vector") and param["size_leaf_vector"].count() > 1:
        raise UnsupportedModelError(f"{param.path}: vector leaves (multi_strategy=multi_output_tree)")


def _sized(node: Node, count: int) -> Node:
    length = len(node.value) if isinstance(node.value, list | np.ndarray) else -1
    if length != count:
        raise node.error(f"an array of {count} nodes expected")
    return node


def _walk_order(
    node: Node, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Breadth-first from the root, level by level; each node may be reached once."""
    if not len(left):
        raise node.error("a tree without nodes")
    seen = np.zeros(len(left), np.bool_)
    levels = [np.zeros(1, np.int64)]
    while True:
        seen[levels[-1]] = True
        parents = levels[-1][left[levels[-1]] != _LEAF]
        if not len(parents):
            return np.concatenate(levels), len(levels) - 1
        if len(levels) > MAX_DEPTH:
            raise UnsupportedModelError(f"{node.path}: deeper than {MAX_DEPTH}, or a cycle")
        levels.append(_children(node, left[parents], right[parents], seen))


def _children(
    node: Node, left: NDArray[np.int64], right: NDArray[np.int64], seen: NDArray[np.bool_]
) -> NDArray[np.int64]:
    if np.any((left < 1) | (right < 1) | (left >= len(seen)) | (right >= len(seen))):
        raise node.error("a child index is out of range")
    if np.any(right != left + 1):
        raise UnsupportedModelError(f"{node.path}: XGBoost takes the right child to follow the left one")
    children = np.column_stack((left, right)).ravel()
    if np.any(seen[children]) or len(np.unique(children)) != len(children):
        raise node.error("a node has two parents")
    return children


def _check_values(node: Node, tree: Tree, inner: NDArray[np.int64], feature_count: int) -> None:
    leaves = tree.order[tree.left[tree.order] == _LEAF]
    if not np.all(np.isfinite(tree.value[leaves])):
        raise node["split_conditions"].error("a leaf is not finite")
    numeric = np.setdiff1d(inner, list(tree.categories))
    if np.any(np.isnan(tree.value[numeric])):
        raise node["split_conditions"].error("a threshold is NaN")
    if np.any((tree.feature[inner] < 0) | (tree.feature[inner] >= feature_count)):
        raise node["split_indices"].error(f"a feature index is not in [0, {feature_count})")


def _read_categories(node: Node, inner: NDArray[np.int64], node_count: int) -> dict[int, NDArray[np.int64]]:
    """Sets of codes by node, from segments of one array."""
    if not node.has("split_type"):
        return {}
    split_type = _sized(node["split_type"], node_count).int64s()
    if np.any((split_type[inner] < 0) | (split_type[inner] > 1)):
        raise UnsupportedModelError(f"{node.path}.split_type: an unknown kind of split")
    codes = node["categories"].int64s()
    if np.any((codes < 0) | (codes >= MAX_CATEGORY)):
        raise node["categories"].error(f"a category is not in [0, {MAX_CATEGORY})")
    sets = _segments(node, codes)
    categorical = set(inner[split_type[inner] == 1].tolist())
    if not categorical <= set(sets):
        raise node["categories_nodes"].error("a categorical split has no categories")
    return {index: codes for index, codes in sets.items() if index in categorical}


def _segments(node: Node, codes: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    nodes = node["categories_nodes"].int64s()
    starts = _sized(node["categories_segments"], len(nodes)).int64s()
    sizes = _sized(node["categories_sizes"], len(nodes)).int64s()
    if np.any((starts < 0) | (sizes < 0) | (starts > len(codes)) | (sizes > len(codes) - starts)):
        raise node["categories_segments"].error("a segment is out of range")
    pieces = (codes[start : start + size] for start, size in zip(starts, sizes, strict=True))
    return dict(zip(nodes.tolist(), pieces, strict=True))
