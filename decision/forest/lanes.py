"""Rows through one complete tree, a row in each lane of a vector.

All splits of the tree are compared, and from the leaves up each split keeps one of two vectors. That takes ten times
the comparisons of a walk, yet none waits for another, and nothing is looked up lane by lane.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from decision.vectors import HALF, WORD, data_of, loaded, spread

ROWS: Final = 64
"""Most rows side by side."""
WIDTHS: Final = (16, 32, ROWS)
"""How many rows vectors are made for; four times as many take twice the time, as fetching a tree takes much of it."""
MAX_DEPTH: Final = 8
"""Splits of the longest path of a complete tree."""


def _is_wide() -> bool:
    """Whether the kernels are compiled for a processor whose vectors hold sixteen rows."""
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return "+avx512f" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get("avx512f"))


WIDE: Final = _is_wide()
"""Whether this takes less time than walks do; with narrower vectors it takes half as much again."""


@intrinsic
def add_tree(
    _typing: Any, depth: Any, lanes: Any, base: Any, keys: Any, nodes: Any, leaves: Any, sums: Any, into: Any
) -> Any:
    """`add_tree(depth, lanes, base, keys, nodes, leaves, sums, into)`: add to each row's sum the leaf that it reaches.

    A tree of at most `MAX_DEPTH` splits on a path and no categorical one. Its nodes lie at `base` as `kernels` has
    them, its leaves from `base` on, left to right. The sums, float32, begin at `into`; keys are int32, `ROWS` to a
    slot. `lanes`, one of `WIDTHS`, is how many rows count.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            data_of(context, builder, kind, arg)
            for kind, arg in zip(signature.args[3:7], args[3:7], strict=True)
        ]
        place = builder.gep(arrays.pop(), [args[7]])
        done = builder.append_basic_block("added")
        shape = builder.add(builder.mul(args[1], ir.Constant(WORD, MAX_DEPTH + 1)), args[0])
        choice = builder.switch(shape, done)
        for rows, splits in product(WIDTHS, range(MAX_DEPTH + 1)):
            block = builder.append_basic_block(f"rows{rows}depth{splits}")
            choice.add_case(ir.Constant(WORD, rows * (MAX_DEPTH + 1) + splits), block)
            with builder.goto_block(block):
                into_lanes = builder.bitcast(place, ir.VectorType(ir.FloatType(), rows).as_pointer())
                found = _Tree(builder, rows, args[2], *arrays).reached(1, splits)
                builder.store(builder.fadd(builder.load(into_lanes, align=4), found), into_lanes, align=4)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(depth, lanes, base, keys, nodes, leaves, sums, into), generate


class _Tree:
    """Writes the code of one complete tree, whose nodes count from 1 at the root."""

    def __init__(self, builder: Any, lanes: int, base: Any, keys: Any, nodes: Any, leaves: Any) -> None:
        self._builder = builder
        self._lanes = lanes
        self._key_lanes = ir.VectorType(HALF, lanes)
        self._keys = keys
        self._halves = builder.bitcast(builder.gep(nodes, [base]), HALF.as_pointer())
        self._leaves = builder.gep(leaves, [base])

    def reached(self, node: int, splits: int) -> Any:
        """The leaves that rows reach from a node, with so many splits on each path from it."""
        if splits == 0:
            first = 1 << (node.bit_length() - 1)
            return spread(self._builder, self._at(self._leaves, node - first), self._lanes)
        builder = self._builder
        limit = spread(builder, self._at(self._halves, 2 * node), self._lanes)
        slot = builder.zext(self._at(self._halves, 2 * node + 1), WORD)
        left, right = (self.reached(child, splits - 1) for child in (2 * node, 2 * node + 1))
        goes_right = builder.icmp_signed(">=", loaded(builder, self._keys, slot, self._key_lanes), limit)
        return builder.select(goes_right, right, left)

    def _at(self, start: Any, place: int) -> Any:
        return self._builder.load(self._builder.gep(start, [ir.Constant(WORD, place)]), align=4)
