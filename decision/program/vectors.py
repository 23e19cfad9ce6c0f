"""Bytes and numbers in vectors, for the kernels that look at one row.

Numba makes no vectors of loops that turn comparisons into bits. So written, eight constants against a value take a
comparison and a store with AVX-512, and 64 truths become a mask in two instructions.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from decision.vectors import BIT, BYTE, WORD, data_of, loaded, spread

EIGHT: Final = 8
SIXTY_FOUR: Final = 64


def _comparison(op: str) -> Any:
    """Make the comparison of a value with eight neighbouring constants."""

    @intrinsic
    def compared(_typing: Any, value: Any, constants: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number, array, place = args
            data = data_of(context, builder, signature.args[1], array)
            items = loaded(builder, data, place, ir.VectorType(number.type, EIGHT))
            compare = builder.fcmp_ordered if signature.args[0] == types.float64 else builder.icmp_signed
            bits = compare(op, spread(builder, number, EIGHT), items)
            return builder.bitcast(builder.zext(bits, ir.VectorType(BYTE, EIGHT)), WORD)

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
        lanes = ir.VectorType(BYTE, SIXTY_FOUR)
        found = loaded(builder, data_of(context, builder, signature.args[0], array), place, lanes)
        high = builder.lshr(found, ir.Constant(lanes, [1] * SIXTY_FOUR))
        return builder.bitcast(builder.trunc(high, ir.VectorType(BIT, SIXTY_FOUR)), WORD)

    return types.uint64(truths, at), generate
