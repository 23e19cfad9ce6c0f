"""Splits as the kernels' 64-bit nodes, and sets of categories as bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.forest import kernels
from decision.forest.errors import UnsupportedModelError
from decision.forest.lanes import ROWS
from decision.forest.trees import Tree

MAX_SET_BITS: Final = 1 << 28
"""Codes of a feature times its distinct sets, summed: 32 MB."""


class NodeCoder:
    """Encodes the splits of one forest; equal sets of categories are stored once.

    Attributes:
        pad: A split that always goes left: no key of feature 0 with missing as the least reaches its limit.
        coded: int64, for every feature with a categorical split: the feature and its number of codes.
    """

    def __init__(self, trees: Sequence[Tree], feature_count: int) -> None:
        self._features = feature_count
        self._code_count = _code_counts(trees)
        self._place = {feature: place for place, feature in enumerate(self._code_count)}
        self._start: dict[tuple[int, bytes], int] = {}
        self._bits = 0
        self.pad = np.uint64((feature_count * ROWS << 32) | kernels.KEY_GREATEST)
        self.coded = np.array(list(self._code_count.items()), np.int64).ravel()

    def encode(self, tree: Tree) -> NDArray[np.uint64]:
        """A uint64 per node of the tree; those of leaves mean nothing."""
        slot = np.where(tree.default_left, tree.feature + self._features, tree.feature)
        limit = _keys(tree.value)
        flag = np.zeros(len(limit), np.int64)
        for node, codes in tree.categories.items():
            feature = int(tree.feature[node])
            slot[node] = 2 * (self._features + self._place[feature]) + int(tree.default_left[node])
            limit[node] = self._set_start(feature, codes)
            flag[node] = 1
        return (flag << 63 | slot * ROWS << 32 | limit & 0xFFFFFFFF).view(np.uint64)

    def words(self) -> NDArray[np.uint32]:
        """All sets, bit by bit; at least one word, for splits that look nothing up still read one."""
        return np.frombuffer(b"".join(bits for _, bits in self._start) or bytes(4), np.uint32)

    def _set_start(self, feature: int, codes: NDArray[np.int64]) -> int:
        bits = _set_bits(codes, self._code_count[feature])
        if (feature, bits) not in self._start:
            self._start[feature, bits] = self._bits
            self._bits += 8 * len(bits)
            if self._bits > MAX_SET_BITS:
                raise UnsupportedModelError(f"the sets of categories take more than {MAX_SET_BITS} bits")
        return self._start[feature, bits]


def _code_counts(trees: Sequence[Tree]) -> dict[int, int]:
    """By feature, one more than the greatest code that any of its sets holds."""
    counts: dict[int, int] = {}
    for tree in trees:
        for node, codes in tree.categories.items():
            feature = int(tree.feature[node])
            counts[feature] = max(counts.get(feature, 0), int(codes.max(initial=-1)) + 1)
    return counts


def _set_bits(codes: NDArray[np.int64], code_count: int) -> bytes:
    """Whole 32-bit words: a bit per code, then 0 for an unknown code and 1 for a missing one that goes right."""
    right = np.append(codes, code_count + 1)
    bits = np.zeros((code_count + 2 + 31) // 32 * 4, np.uint8)
    np.bitwise_or.at(bits, right >> 3, (1 << (right & 7)).astype(np.uint8))
    return bits.tobytes()


def _keys(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """`kernels.key_of` for a whole array; NaN (in leaves and categorical splits) gives a key that is never read."""
    bits = (values + np.float32(0)).view(np.int32)
    return (bits ^ ((bits >> 31) & np.int32(kernels.KEY_GREATEST))).astype(np.int64)
