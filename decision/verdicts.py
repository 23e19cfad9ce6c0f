"""How the conditions of one decision came out: always kept, turned into bits only where they are written down."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from decision.program import Bits, Program


class Verdicts:
    """The truths of a placement's conditions in one decision.

    Args:
        offers: The candidates in the order of their rows.
        request_program: Conditions that were evaluated once.
        request_truths: `Results.truths` of its one row.
        candidate_program: Conditions that were evaluated per candidate.
        candidate_truths: `Results.truths` of the candidates' rows.
    """

    def __init__(
        self,
        offers: tuple[str, ...],
        request_program: Program,
        request_truths: NDArray[np.uint8],
        candidate_program: Program,
        candidate_truths: NDArray[np.uint8],
    ) -> None:
        self.offers = offers
        self._request = request_program, request_truths
        self._candidates = candidate_program, candidate_truths

    @property
    def nbytes(self) -> int:
        """Bytes that the truths take."""
        return self._request[1].nbytes + self._candidates[1].nbytes

    @cached_property
    def request(self) -> Bits:
        """One row, of `request_program.listing`."""
        program, truths = self._request
        return program.verdicts(truths)

    @cached_property
    def candidates(self) -> Bits:
        """A row for each of `offers`, of `candidate_program.listing`."""
        program, truths = self._candidates
        return program.verdicts(truths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Verdicts):
            return NotImplemented
        return self._kept() == other._kept()

    def __hash__(self) -> int:
        return hash(self._kept())

    def _kept(self) -> tuple[tuple[str, ...], Bits, Bits]:
        return self.offers, self.request, self.candidates
