"""How conditions came out, kept as bits: small, always there, and enough to put a decision into words later.

A program lists its conditions, in their order, and behind them the comparisons that AND, OR and NOT join in them, each
once, in the order in which they are first read. The list follows from the conditions alone, so bits that were kept
have their meaning wherever the same conditions are compiled, however the program lays its registers out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.errors import VerdictError
from decision.lang.syntax import And, Expr, Literal, Not, Or
from decision.program import opcodes

Truth = bool | None
"""TRUE, FALSE or NULL."""
_TRUTHS: Final[dict[int, Truth]] = {opcodes.FALSE: False, opcodes.NULL: None, opcodes.TRUE: True}


def comparisons(condition: Expr) -> Iterator[Expr]:
    """What AND, OR and NOT join in a condition, in the order of reading; constants are left out."""
    match condition:
        case And() | Or():
            for operand in condition.operands:
                yield from comparisons(operand)
        case Not():
            yield from comparisons(condition.operand)
        case Literal():
            return
        case _:
            yield condition


def listing(conditions: Sequence[Expr]) -> tuple[Expr, ...]:
    """What the bits of a row stand for: the conditions, then their comparisons."""
    parts = (part for condition in conditions for part in comparisons(condition))
    return (*conditions, *dict.fromkeys(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Truths over rows, every row padded to whole bytes.

    Attributes:
        count: Truths in a row.
        is_true: Row by row, bit i % 8 of byte i // 8 is 1 where truth i is TRUE.
        is_null: The same where it is NULL; empty where none is. What is neither is FALSE.
    """

    count: int = 0
    is_true: bytes = b""
    is_null: bytes = b""

    @classmethod
    def pack(cls, truths: NDArray[np.uint8]) -> Bits:
        """Bits of truths, uint8[rows, count] of the program's codes."""
        nulls = truths == opcodes.NULL
        return cls(
            count=truths.shape[1],
            is_true=np.packbits(truths == opcodes.TRUE, axis=1, bitorder="little").tobytes(),
            is_null=np.packbits(nulls, axis=1, bitorder="little").tobytes() if nulls.any() else b"",
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return -(-self.count // 8)

    def row(self, index: int) -> tuple[Truth, ...]:
        """The truths of one row.

        Raises:
            VerdictError: If there is no such row, or the bits are cut short.
        """
        codes = self._bits(self.is_true, index) * opcodes.TRUE
        if self.is_null:
            codes += self._bits(self.is_null, index) * opcodes.NULL
        try:
            return tuple(_TRUTHS[code] for code in codes.tolist())
        except KeyError:
            raise VerdictError("a truth is kept as both TRUE and NULL") from None

    def _bits(self, data: bytes, index: int) -> NDArray[np.uint8]:
        part = data[index * self.row_bytes : (index + 1) * self.row_bytes]
        if index < 0 or len(part) != self.row_bytes:
            raise VerdictError(f"no row {index} of {self.count} truths in {len(data)} bytes")
        bits: NDArray[np.uint8] = np.unpackbits(np.frombuffer(part, np.uint8), bitorder="little")
        return bits[: self.count]
