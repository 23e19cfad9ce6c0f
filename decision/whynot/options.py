"""Values worth trying for an input: one for each way in which the comparisons with it can come out.

Between two neighbouring constants that an input is compared with nothing changes, so one value of each such stretch
stands for all of them, the one nearest to what the input is now. What is fixed in the decision is a constant here:
`now()`, the offer's attributes, and every input that may not change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from decision.lang.interpreter import evaluate
from decision.lang.syntax import (
    Arithmetic,
    Call,
    Compare,
    Expr,
    In,
    IsNull,
    Like,
    Negate,
    Ref,
    ToFloat,
    children,
    references,
    walk,
)
from decision.program.verdicts import Truth
from decision.schema import DType, Value, ValueType
from decision.whynot.lattice import Lattice, lattice_of
from decision.whynot.texts import texts_for

OPTIONS_MAX: Final = 64
"""Values tried for one input, the nearest first."""
CONSTANTS_MAX: Final = 512
"""Constants of one input that are looked at; fewer where the comparisons are long."""
NODES_MAX: Final = 200_000
"""Nodes of comparisons that are evaluated for one input."""
DAY_US: Final = 86_400_000_000
SAME_WAY: Final = frozenset({"round", "floor", "coalesce", "least", "greatest"})
"""Functions that rise where their one argument that is not constant does."""

Row = Mapping[str, Value]
Outcomes = tuple[Truth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A value to try.

    Attributes:
        distance: How far it is from the present value, from 0 to 1.
        such_as: It stands for any text that the policy does not name.
    """

    value: Value
    distance: float
    such_as: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to try for one input, nearest first.

    Attributes:
        exact: Every way in which the comparisons can come out has its option.
    """

    ref: Ref
    before: Value
    options: tuple[Option, ...]
    exact: bool


def options_for(
    ref: Ref,
    value_type: ValueType | None,
    parts: Sequence[Expr],
    changeable: frozenset[str],
    row: Row,
    now_us: int,
) -> Options:
    """The values to try for one input.

    Args:
        ref: The input.
        value_type: A feature's type; None for context.
        parts: Comparisons that read it.
        changeable: Names of all inputs that may change: what reads two of them has no constants to go by.
        row: The present values.
        now_us: The decision's clock.
    """
    before = evaluate(ref, row, now_us)
    alone = all(references(part) & changeable == {ref.name} for part in parts)
    values, exact = _values(_Reading(ref, parts, row, now_us), value_type, before)
    present = _outcomes(parts, row, now_us)
    tried: dict[Outcomes, Option] = {}
    for option in sorted(values, key=lambda option: option.distance):
        outcomes = _outcomes(parts, {**row, ref.name: option.value}, now_us)
        if outcomes != present:
            tried.setdefault(outcomes, option)
    options = tuple(tried.values())[:OPTIONS_MAX]
    return Options(
        ref=ref, before=before, options=options, exact=alone and exact and len(options) == len(tried)
    )


def _outcomes(parts: Sequence[Expr], row: Row, now_us: int) -> Outcomes:
    return tuple(cast("Truth", evaluate(part, row, now_us)) for part in parts)


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one input is read."""

    ref: Ref
    parts: Sequence[Expr]
    row: Row
    now_us: int

    @property
    def constants_max(self) -> int:
        """Constants to look at, of which each is tried in every comparison."""
        nodes = sum(1 for part in self.parts for _ in walk(part))
        return max(1, min(CONSTANTS_MAX, NODES_MAX // max(1, nodes)))

    def reads(self, expr: Expr) -> bool:
        return self.ref.name in references(expr)

    def value(self, expr: Expr) -> Value:
        """An expression's value at present."""
        return evaluate(expr, self.row, self.now_us)

    def sides(self) -> Iterator[tuple[Expr, list[Value]] | None]:
        """An expression over the input with the constants it is compared with; None for what is read otherwise."""
        for part in self.parts:
            yield self._side(part)

    def _side(self, part: Expr) -> tuple[Expr, list[Value]] | None:
        match part:
            case Compare() if not self.reads(part.right):
                return part.left, [self.value(part.right)]
            case Compare() if not self.reads(part.left):
                return part.right, [self.value(part.left)]
            case In() if not any(map(self.reads, part.items)):
                return part.operand, [self.value(item) for item in part.items]
            case IsNull(operand=Ref() as operand):
                return operand, []
            case Like(operand=Ref() as operand):
                return operand, []
            case Call(function="contains", args=(items, wanted)) if not self.reads(items):
                return wanted, list(cast("tuple[Value, ...]", self.value(items) or ()))
            case _:
                return None


def _values(reading: _Reading, value_type: ValueType | None, before: Value) -> tuple[list[Option], bool]:
    """Options with perhaps several for one way, and whether they cover every way."""
    null = [] if before is None else [Option(value=None, distance=1.0)]
    dtype = reading.ref.dtype
    if dtype is DType.BOOL:
        return [*null, *(Option(value=v, distance=1.0) for v in (True, False) if v is not before)], True
    sides = list(reading.sides())
    if dtype is DType.STRING:
        values, exact = _text_values(reading, [side for side in sides if side is not None])
    else:
        lattice = cast("Lattice", lattice_of(dtype, value_type))
        values, exact = _numbers(reading, [side for side in sides if side is not None], lattice, before)
    return [*null, *values], exact and None not in sides


def _text_values(reading: _Reading, sides: Sequence[tuple[Expr, list[Value]]]) -> tuple[list[Option], bool]:
    constants = {value for _, values in sides for value in values if isinstance(value, str)}
    named = sorted(constants)[: reading.constants_max]
    patterns = [part.pattern for part in reading.parts if isinstance(part, Like)]
    others, whole = texts_for(list(dict.fromkeys(patterns)), constants)
    options = [Option(value=text, distance=1.0) for text in named]
    options += [Option(value=text, distance=1.0, such_as=True) for text in others]
    plain = all(isinstance(side, Ref) or _direction(side, reading) is not None for side, _ in sides)
    return options, whole and plain and len(named) == len(constants)


def _numbers(
    reading: _Reading, sides: Sequence[tuple[Expr, list[Value]]], lattice: Lattice, before: Value
) -> tuple[list[Option], bool]:
    """One value of every stretch between the places at which a comparison may change."""
    exact, starts, most = True, {lattice.low}, reading.constants_max
    for side, constants in sides:
        direction = _direction(side, reading)
        numbers = [value for value in constants if isinstance(value, int | float)]
        exact = exact and direction is not None and len(numbers) <= most
        for number in numbers[:most]:
            if direction is not None:
                starts |= _changes(side, direction, number, lattice, reading)
    wanted = _anchor(reading, before)
    ends = sorted(start for start in starts if start <= lattice.high)
    stretches = zip(ends, [*(start - 1 for start in ends[1:]), lattice.high], strict=True)
    values = [lattice.nearest(low, high, wanted) for low, high in stretches]
    return [Option(value=value, distance=_distance(before, value, reading.ref)) for value in values], exact


def _anchor(reading: _Reading, before: Value) -> float:
    """The value that others are near to; what is missing is near to nothing, or to now."""
    if before is not None:
        return cast("float", before)
    return reading.now_us if reading.ref.dtype is DType.TIMESTAMP else 0


def _distance(before: Value, after: float, ref: Ref) -> float:
    if before is None:
        return 1.0
    number = cast("float", before)
    if not (math.isfinite(number) and math.isfinite(after)):
        return 1.0
    if ref.dtype is DType.TIMESTAMP:
        apart = abs(number - after)
        return apart / (apart + DAY_US)
    size = abs(number) + abs(after)
    return abs(number / size - after / size) if 0 < size < math.inf else float(number != after)


def _changes(side: Expr, direction: int, constant: float, lattice: Lattice, reading: _Reading) -> set[int]:
    """The places where an expression reaches and where it passes a constant."""
    row, name = dict(reading.row), reading.ref.name

    def value(at: float) -> float:
        if isinstance(side, Ref):
            return at
        row[name] = at
        found = evaluate(side, row, reading.now_us)
        if found is None:  # beyond int64, on the side to which the expression was going
            return direction * math.copysign(math.inf, at)
        return cast("float", found)

    if direction > 0:
        tests = (lambda at: value(at) >= constant, lambda at: value(at) > constant)
    else:
        tests = (lambda at: value(at) <= constant, lambda at: value(at) < constant)
    return {lattice.first(test) for test in tests}


def _direction(expr: Expr, reading: _Reading) -> int | None:
    """1 where an expression never falls as the input rises, -1 where it never rises, None where neither is sure."""
    if not reading.reads(expr):
        return 1
    match expr:
        case Ref():
            return 1
        case ToFloat():
            return _direction(expr.operand, reading)
        case Negate():
            return _opposite(_direction(expr.operand, reading))
        case Arithmetic():
            return _arithmetic(expr, reading)
        case Call() if expr.function in SAME_WAY:
            moving = [arg for arg in children(expr) if reading.reads(arg)]
            return _direction(moving[0], reading) if len(moving) == 1 else None
        case _:
            return None


def _arithmetic(expr: Arithmetic, reading: _Reading) -> int | None:
    left, right = reading.reads(expr.left), reading.reads(expr.right)
    if left and right:
        return None
    inner = _direction(expr.left if left else expr.right, reading)
    match expr.op:
        case "+":
            return inner
        case "-":
            return inner if left else _opposite(inner)
        case "*" | "/" if left or expr.op == "*":
            factor = reading.value(expr.right if left else expr.left)
            return _opposite(inner) if isinstance(factor, int | float) and factor < 0 else inner
        case _:
            return None


def _opposite(direction: int | None) -> int | None:
    return None if direction is None else -direction
