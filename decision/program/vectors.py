"""Bytes and numbers in vectors, for the kernels that look at one row.

The compiler makes no vectors of loops that turn comparisons into bits, so these are written in its own language, which
has them for every processor: eight constants against a value take a comparison and a store with AVX-512, 64 truths
become a mask in two instructions. They read where they are told to, without a check.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

EIGHT: Final = 8
SIXTY_FOUR: Final = 64
_BIT: Final = ir.IntType(1)
_BYTE: Final = ir.IntType(8)
_WORD: Final = ir.IntType(64)


def _loaded(context: Any, builder: Any, array: Any, array_type: Any, at: Any, lanes: ir.VectorType) -> Any:
    """So many elements of an array from a place on, wherever its memory begins."""
    data = context.make_array(array_type)(context, builder, array).data
    place = builder.bitcast(builder.gep(data, [at]), lanes.as_pointer())
    return builder.load(place, align=1)


def _splat(builder: Any, value: Any) -> Any:
    """A value in every one of eight lanes."""
    lanes = ir.VectorType(value.type, EIGHT)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), EIGHT), [0] * EIGHT)
    return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), mask)


def _comparison(op: str) -> Any:
    """Make the comparison of a value with eight neighbouring constants."""

    @intrinsic
    def compared(_typing: Any, value: Any, constants: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number, array, place = args
            lanes = ir.VectorType(number.type, EIGHT)
            items = _loaded(context, builder, array, signature.args[1], place, lanes)
            compare = builder.fcmp_ordered if signature.args[0] == types.float64 else builder.icmp_signed
            bits = compare(op, _splat(builder, number), items)
            return builder.bitcast(builder.zext(bits, ir.VectorType(_BYTE, EIGHT)), _WORD)

        return types.uint64(value, constants, at), generate

    return compared


at_most = _comparison("<=")
"""`at_most(value, constants, at)`: uint64 of eight bytes, byte k is 1 where value <= constants[at + k], else 0.

The value and the constants are int64, or float64, where a NaN is neither at most, at least, equal nor unequal.
"""
at_least = _comparison(">=")
equal = _comparison("==")
unequal = _comparison("!=")


@intrinsic
def packed(_typing: Any, truths: Any, at: Any) -> Any:
    """`packed(truths, at)`: uint64, bit k is 1 where byte `at + k` of the uint8s is TRUE, for the 64 from there on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, place = args
        lanes = ir.VectorType(_BYTE, SIXTY_FOUR)
        found = _loaded(context, builder, array, signature.args[0], place, lanes)
        high = builder.lshr(found, ir.Constant(lanes, [1] * SIXTY_FOUR))
        return builder.bitcast(builder.trunc(high, ir.VectorType(_BIT, SIXTY_FOUR)), _WORD)

    return types.uint64(truths, at), generate
