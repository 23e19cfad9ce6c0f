"""What a program says about rows."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision.program import opcodes
from decision.program.layout import WORD

_TRUTH: Final = np.array([0, -1, 1], np.int8)


class Results(NamedTuple):
    """What came out. Of a frame these are views, good until it is evaluated again.

    Attributes:
        conditions: How many there are.
        truths: uint8[registers, rows]: FALSE 0, NULL 1, TRUE 2. Conditions come first, then the other distinct
            comparisons and connectives; see `Program.verdicts`. Of columns, the conditions alone.
        parts: uint64[rows, words]: bit i % 64 of word i // 64 is 1 where register i of `truths` is TRUE.
    """

    conditions: int
    truths: NDArray[np.uint8]
    parts: NDArray[np.uint64]

    @classmethod
    def of(cls, registers: NDArray[np.uint8]) -> Results:
        """Results of conditions alone, uint8[conditions, rows]."""
        count, rows = registers.shape
        bits = np.zeros((rows, WORD // 8 * _up(count)), np.uint8)
        bits[:, : -(-count // 8)] = np.packbits(registers == opcodes.TRUE, axis=0, bitorder="little").T
        return cls(count, registers, bits.view(np.uint64))

    def none(self) -> Results:
        """The same of no rows."""
        return Results(self.conditions, self.truths[:, :0], self.parts[:0])

    @property
    def registers(self) -> NDArray[np.uint8]:
        """uint8[conditions, rows], the conditions of `truths`."""
        return self.truths[: self.conditions]

    @property
    def mask(self) -> NDArray[np.uint64]:
        """uint64[rows, words], the conditions of `parts`."""
        return self.parts[:, : _up(self.conditions)]

    @property
    def truth(self) -> NDArray[np.int8]:
        """int8[rows, conditions]: 1 is TRUE, 0 FALSE, -1 NULL."""
        truths: NDArray[np.int8] = _TRUTH[self.registers].T
        return truths


def _up(count: int) -> int:
    """Words that so many bits take."""
    return -(-count // WORD)
