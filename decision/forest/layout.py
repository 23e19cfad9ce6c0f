"""Trees of a model as the flat arrays that the kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.forest import kernels
from decision.forest.errors import UnsupportedModelError
from decision.forest.trees import Tree

MAX_SET_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeArrays:
    """All nodes of all trees, one after the other; see `kernels` for how they are walked.

    Attributes:
        roots: int32[t], the first node of every tree.
        left: int32, left child, -1 at a leaf; the right child is next to it.
        feature: int32, the feature of a split.
        value: float32, threshold or leaf.
        flags: uint8, `kernels.DEFAULT_LEFT` and `kernels.CATEGORICAL`.
        node_set: int32, which set of categories a node tests; set 0 is empty.
        set_start: int32, first word of every set and one past the last.
        words: uint32, bit sets of the categories that go right.
        cover: float32, sum of hessians.
    """

    roots: NDArray[np.int32]
    left: NDArray[np.int32]
    feature: NDArray[np.int32]
    value: NDArray[np.float32]
    flags: NDArray[np.uint8]
    node_set: NDArray[np.int32]
    set_start: NDArray[np.int32]
    words: NDArray[np.uint32]
    cover: NDArray[np.float32]


def lay_out(trees: Sequence[Tree]) -> NodeArrays:
    """Concatenate the trees, renumbering children and dropping nodes that pruning left unreachable."""
    sizes = [len(tree.order) for tree in trees]
    roots = np.concatenate(([0], np.cumsum(sizes)))[:-1] if sizes else np.zeros(0, np.int64)
    node_set, set_start, words = _category_sets(trees)
    return NodeArrays(
        roots=_frozen(roots, np.int32),
        left=_frozen(_join([_children(tree, root) for tree, root in zip(trees, roots, strict=True)]), np.int32),
        feature=_frozen(_join([tree.feature[tree.order] for tree in trees]), np.int32),
        value=_frozen(_join([tree.value[tree.order] for tree in trees]), np.float32),
        flags=_frozen(_join([_flags(tree) for tree in trees]), np.uint8),
        node_set=_frozen(node_set, np.int32),
        set_start=_frozen(set_start, np.int32),
        words=_frozen(words, np.uint32),
        cover=_frozen(_join([tree.cover[tree.order] for tree in trees]), np.float32),
    )


def _join(pieces: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def _frozen(values: NDArray[np.generic], dtype: type[np.generic]) -> NDArray[np.generic]:
    array = np.ascontiguousarray(values, dtype=dtype)
    array.flags.writeable = False
    return array


def _children(tree: Tree, root: int) -> NDArray[np.int64]:
    """Left children in the numbering of `tree.order`, in which siblings stay neighbours."""
    place = np.full(len(tree.left), -1, np.int64)
    place[tree.order] = np.arange(len(tree.order))
    left = tree.left[tree.order]
    return np.where(left >= 0, place[left] + root, -1)


def _flags(tree: Tree) -> NDArray[np.uint8]:
    flags = np.where(tree.default_left, kernels.DEFAULT_LEFT, 0).astype(np.uint8)
    flags[list(tree.categories)] |= kernels.CATEGORICAL
    return flags[tree.order]


def _category_sets(trees: Sequence[Tree]) -> tuple[list[int], list[int], NDArray[np.uint32]]:
    """Bit sets of all categorical splits; equal sets are stored once."""
    known: dict[bytes, int] = {b"": 0}
    node_set: list[int] = []
    size = 0
    for tree in trees:
        for node in tree.order.tolist():
            bits = _bits(tree.categories[node]) if node in tree.categories else b""
            size += 0 if bits in known else len(bits)
            if size > MAX_SET_BYTES:
                raise UnsupportedModelError(f"the sets of categories take more than {MAX_SET_BYTES} bytes")
            node_set.append(known.setdefault(bits, len(known)))
    sizes = [len(bits) // 4 for bits in known]
    words = np.frombuffer(b"".join(known), np.uint32)
    return node_set, [0, *np.cumsum(sizes).tolist()], words


def _bits(codes: NDArray[np.int64]) -> bytes:
    """A little-endian bit set in whole 32-bit words; empty for no codes."""
    if not len(codes):
        return b""
    bits = np.zeros((int(codes.max()) // 32 + 1) * 32, np.uint8)
    bits[codes] = 1
    return np.packbits(bits, bitorder="little").tobytes()
