"""The fewest inputs to change so that an offer becomes eligible, found by trying all there is to try.

Changes of one input are tried first, then of two, then of three, each in every combination of the inputs' options and
over all combinations at once: truths are numbers, so AND is the least of its operands and OR the greatest. Of equally
many changes the one of the smallest distance wins, then the one whose inputs and values come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from decision.lang.interpreter import evaluate
from decision.lang.syntax import And, Expr, Literal, Not, Or, references, walk
from decision.program import opcodes
from decision.program.verdicts import comparisons
from decision.schema import Value
from decision.whynot.grounds import Grounds
from decision.whynot.options import Option, Options, Row

CHANGES_MAX: Final = 3
"""Inputs changed at once."""
WORK_MAX: Final = 200_000_000
"""Truths worked out in one search, about; half a second."""
_CALL_WORK: Final = 1_000
"""What starting an operation on arrays costs, in truths."""
_EVALUATION_WORK: Final = 2_000
"""What asking the interpreter costs."""
_CODES: Final[dict[Value, int]] = {False: opcodes.FALSE, None: opcodes.NULL, True: opcodes.TRUE}

Codes = NDArray[np.uint8]
Used = tuple[int, ...]
"""Inputs by their places, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        changes: The inputs to change, each with its new value; empty where nothing was found.
        finished_count: Up to so many changes at once everything was tried.
    """

    changes: tuple[tuple[Options, Option], ...]
    finished_count: int


def search(grounds: Grounds, inputs: Sequence[Options], row: Row, now_us: int) -> Found:
    """Find the smallest change.

    Args:
        grounds: What eligibility hangs on.
        inputs: What to try, in the order of preference.
        row: The present values.
        now_us: The decision's clock.
    """
    grid = _Grid(grounds, inputs, row, now_us)
    for count in range(1, min(CHANGES_MAX, len(inputs)) + 1):
        best: tuple[float, Used, Used] | None = None
        for used in combinations(range(len(inputs)), count):
            if not grid.afford(used):
                return Found(changes=grid.named(best), finished_count=count - 1)
            found = grid.nearest(used)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        if best is not None:
            return Found(changes=grid.named(best), finished_count=count)
    return Found(changes=(), finished_count=CHANGES_MAX)


class _Grid:
    """Eligibility over all combinations of some inputs' options."""

    def __init__(self, grounds: Grounds, inputs: Sequence[Options], row: Row, now_us: int) -> None:
        self._grounds = grounds
        self._inputs = inputs
        self._row = row
        self._now_us = now_us
        self._readers = {condition: self._reading(references(condition)) for condition in grounds.conditions}
        self._parts = {
            part: self._reading(references(part)) for c in grounds.conditions for part in comparisons(c)
        }
        self._nodes = sum(1 for condition in grounds.conditions for _ in walk(condition))
        self._tables: dict[tuple[Expr, Used], Codes] = {}
        self._kept: dict[tuple[Expr, Used], Codes] = {}
        self._left = WORK_MAX

    def _reading(self, names: frozenset[str]) -> frozenset[int]:
        return frozenset(place for place, item in enumerate(self._inputs) if item.ref.name in names)

    def afford(self, used: Used) -> bool:
        """Take the work for a combination of inputs from what is left; false where it is not enough."""
        cells = math.prod(len(self._inputs[place].options) for place in used)
        work = self._nodes * (_CALL_WORK + cells)
        for part, readers in self._parts.items():
            together = self._among(used, readers)
            if len(together) > 1 and (part, together) not in self._tables:
                work += _EVALUATION_WORK * math.prod(len(self._inputs[place].options) for place in together)
        self._left -= work
        return self._left >= 0

    def nearest(self, used: Used) -> tuple[float, Used, Used] | None:
        """The eligible combination of the smallest distance, as (distance, inputs, places of their options)."""
        shape = tuple(len(self._inputs[place].options) for place in used)
        held = [
            self._spread(self._held(condition, used), used, condition)
            for condition in self._grounds.conditions
        ]
        eligible = np.broadcast_to(self._grounds.eligible([truth == opcodes.TRUE for truth in held]), shape)
        if not eligible.any():
            return None
        distances = reduce(np.add.outer, [self._distances(place) for place in used])
        best = int(np.argmin(np.where(eligible, distances, np.inf)))
        return float(distances.flat[best]), used, tuple(map(int, np.unravel_index(best, shape)))

    def _distances(self, place: int) -> NDArray[np.float64]:
        return np.array([option.distance for option in self._inputs[place].options])

    def named(self, best: tuple[float, Used, Used] | None) -> tuple[tuple[Options, Option], ...]:
        """Inputs and options of a combination."""
        if best is None:
            return ()
        _, used, chosen = best
        inputs = (self._inputs[place] for place in used)
        return tuple((item, item.options[option]) for item, option in zip(inputs, chosen, strict=True))

    def _held(self, condition: Expr, used: Used) -> Codes:
        """Truths of a condition over the options of those inputs that it reads, one axis each."""
        key = condition, self._among(used, self._readers[condition])
        kept = self._kept.get(key)
        if kept is None:
            kept = self._joined(condition, key[1])
            if len(key[1]) <= 1:
                self._kept[key] = kept
        return kept

    def _spread(self, truths: Codes, used: Used, condition: Expr) -> Codes:
        return self._placed(truths, self._among(used, self._readers[condition]), used)

    def _joined(self, expr: Expr, used: Used) -> Codes:
        match expr:
            case Literal():
                return np.full((1,) * len(used), _CODES[expr.value], np.uint8)
            case Not():
                return opcodes.TRUE - self._joined(expr.operand, used)
            case And():
                return reduce(np.minimum, [self._joined(operand, used) for operand in expr.operands])
            case Or():
                return reduce(np.maximum, [self._joined(operand, used) for operand in expr.operands])
            case _:
                reading = self._among(used, self._parts[expr])
                return self._placed(self._table(expr, reading), reading, used)

    def _table(self, part: Expr, used: Used) -> Codes:
        """Truths of one comparison over the options of the inputs that it reads."""
        table = self._tables.get((part, used))
        if table is None:
            options = [self._inputs[place] for place in used]
            codes = [
                _CODES[evaluate(part, self._changed(options, chosen), self._now_us)]
                for chosen in product(*(item.options for item in options))
            ]
            table = np.array(codes, np.uint8).reshape([len(item.options) for item in options])
            self._tables[part, used] = table
        return table

    def _changed(self, inputs: Sequence[Options], chosen: Sequence[Option]) -> Row:
        changes = {item.ref.name: option.value for item, option in zip(inputs, chosen, strict=True)}
        return {**self._row, **changes}

    @staticmethod
    def _among(used: Used, readers: frozenset[int]) -> Used:
        return tuple(place for place in used if place in readers)

    @staticmethod
    def _placed(truths: Codes, axes: Used, used: Used) -> Codes:
        """Truths over some of the inputs as truths over all, without repeating any."""
        sizes = iter(truths.shape)
        shape: list[Any] = [next(sizes) if place in axes else 1 for place in used]
        return truths.reshape(shape)
