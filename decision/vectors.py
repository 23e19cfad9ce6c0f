"""Vectors for compiled kernels, in the compiler's own language: what Numba makes no vectors of by itself.

The language has vectors for every processor; where one has shorter ones, they are taken in parts. Nothing here checks
what it is given.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

BIT = ir.IntType(1)
BYTE = ir.IntType(8)
HALF = ir.IntType(32)
WORD = ir.IntType(64)


def data_of(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Where an array's elements begin."""
    return context.make_array(array_type)(context, builder, array).data


def loaded(builder: Any, data: Any, at: Any, lanes: Any) -> Any:
    """A vector of what lies from a place on, wherever its memory begins."""
    return builder.load(builder.bitcast(builder.gep(data, [at]), lanes.as_pointer()), align=1)


def spread(builder: Any, value: Any, count: int) -> Any:
    """A value in every one of so many lanes."""
    lanes = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(HALF, 0))
    mask = ir.Constant(ir.VectorType(HALF, count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), mask)
