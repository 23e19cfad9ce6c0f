"""Comparisons with a constant as few kinds: `x < c` is `x <= c'` for the next lower c'.

So all comparisons of one register with constants fall into few groups, and `n < 5` and `n <= 4` are one.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from decision.lang.syntax import CompareOp
from decision.lang.values import INT64_MAX, INT64_MIN
from decision.program import opcodes

MIRRORED: Final[dict[CompareOp, CompareOp]] = {
    "=": "=",
    "<>": "<>",
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
}
"""`c op x` as `x op' c`."""
NEGATED: Final[dict[CompareOp, CompareOp]] = {
    "=": "<>",
    "<>": "=",
    "<": ">=",
    "<=": ">",
    ">": "<=",
    ">=": "<",
}
"""NOT (x op c) as `x op' c`; both are NULL where x is."""

_INT: Final = {"<=": opcodes.LE_I, ">=": opcodes.GE_I, "=": opcodes.EQ_I, "<>": opcodes.NE_I}
_FLOAT: Final = {"<=": opcodes.LE_F, ">=": opcodes.GE_F, "=": opcodes.EQ_F, "<>": opcodes.NE_F}


def int_threshold(op: CompareOp, limit: int) -> tuple[int, int] | None:
    """Kind and word of a comparison of an int64; None where it is never TRUE."""
    match op:
        case "<":
            return None if limit == INT64_MIN else (opcodes.LE_I, limit - 1)
        case ">":
            return None if limit == INT64_MAX else (opcodes.GE_I, limit + 1)
        case _:
            return _INT[op], limit


def float_threshold(op: CompareOp, limit: float) -> tuple[int, int] | None:
    """Kind and word of a comparison of a float64; None where it is never TRUE."""
    match op:
        case "<":
            return None if limit == -math.inf else (opcodes.LE_F, bits(math.nextafter(limit, -math.inf)))
        case ">":
            return None if limit == math.inf else (opcodes.GE_F, bits(math.nextafter(limit, math.inf)))
        case _:
            return _FLOAT[op], bits(limit)


def bits(value: float) -> int:
    """A float64 as the int64 of the same bits; both zeros are 0.0, which no operator tells apart."""
    return int(struct.unpack("<q", struct.pack("<d", value or 0.0))[0])


def of_bits(word: int) -> float:
    """The float64 of the bits of an int64."""
    return float(struct.unpack("<d", struct.pack("<q", word))[0])
