"""Sixteen rows through one complete tree, a row in each lane of a vector.

All splits of the tree are compared, and from the leaves up each split keeps one of two vectors. That takes ten times
the comparisons of a walk, yet none waits for another, and nothing is looked up lane by lane.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from decision.vectors import HALF, WORD, data_of, loaded, spread

ROWS: Final = 16
"""Rows side by side."""
MAX_DEPTH: Final = 8
"""Splits of the longest path of a complete tree."""


def _is_wide() -> bool:
    """Whether the kernels are compiled for a processor whose vectors hold sixteen rows."""
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return "+avx512f" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get("avx512f"))


WIDE: Final = _is_wide()
"""Whether this takes less time than walks do; with narrower vectors it takes half as much again."""

_KEYS: Final = ir.VectorType(HALF, ROWS)
_SUMS: Final = ir.VectorType(ir.FloatType(), ROWS)


@intrinsic
def add_tree(
    _typing: Any, depth: Any, base: Any, keys: Any, nodes: Any, leaves: Any, sums: Any, into: Any
) -> Any:
    """`add_tree(depth, base, keys, nodes, leaves, sums, into)`: add to each row's sum the leaf that it reaches.

    A tree of at most `MAX_DEPTH` splits on a path and no categorical one. Its nodes lie at `base` as `kernels` has
    them, its leaves from `base` on, left to right. The sums, float32, begin at `into`; keys are int32, `ROWS` to a
    slot.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            data_of(context, builder, kind, arg)
            for kind, arg in zip(signature.args[2:6], args[2:6], strict=True)
        ]
        place = builder.bitcast(builder.gep(arrays.pop(), [args[6]]), _SUMS.as_pointer())
        tree = _Tree(builder, args[1], *arrays)
        done = builder.append_basic_block("added")
        choice = builder.switch(args[0], done)
        for splits in range(MAX_DEPTH + 1):
            block = builder.append_basic_block(f"depth{splits}")
            choice.add_case(ir.Constant(WORD, splits), block)
            with builder.goto_block(block):
                found = tree.reached(1, splits)
                builder.store(builder.fadd(builder.load(place, align=4), found), place, align=4)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(depth, base, keys, nodes, leaves, sums, into), generate


class _Tree:
    """Writes the code of one complete tree, whose nodes count from 1 at the root."""

    def __init__(self, builder: Any, base: Any, keys: Any, nodes: Any, leaves: Any) -> None:
        self._builder = builder
        self._keys = keys
        self._halves = builder.bitcast(builder.gep(nodes, [base]), HALF.as_pointer())
        self._leaves = builder.gep(leaves, [base])

    def reached(self, node: int, splits: int) -> Any:
        """The leaves that rows reach from a node, with so many splits on each path from it."""
        if splits == 0:
            first = 1 << (node.bit_length() - 1)
            return spread(self._builder, self._at(self._leaves, node - first), ROWS)
        builder = self._builder
        limit = spread(builder, self._at(self._halves, 2 * node), ROWS)
        slot = builder.zext(self._at(self._halves, 2 * node + 1), WORD)
        right = builder.icmp_signed(">=", loaded(builder, self._keys, slot, _KEYS), limit)
        left_leaves = self.reached(2 * node, splits - 1)
        return builder.select(right, self.reached(2 * node + 1, splits - 1), left_leaves)

    def _at(self, start: Any, place: int) -> Any:
        return self._builder.load(self._builder.gep(start, [ir.Constant(WORD, place)]), align=4)
