"""When a condition may change though nothing happens: the instant at which time alone flips it.

The expression is followed as a function of time from now on. As long as no operator changes its mind, every value is
constant or, for timestamps and intervals, a straight line; a `Course` says which, and until when that is certain. The
earliest instant at which the whole may change is where its certainty ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from decision.lang.calendar import steady_stretch
from decision.lang.interpreter import apply, binary, evaluate, read, unary
from decision.lang.syntax import (
    And,
    Arithmetic,
    Call,
    Case,
    Compare,
    DatePart,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Negate,
    Not,
    Now,
    Or,
    Ref,
    ToFloat,
    uses_now,
)
from decision.lang.values import INT64_MAX, INT64_MIN, member
from decision.schema import DType, Value

STEPS_MAX: Final = 64
"""Ends of certainty that `next_flip_us` looks past because the value stayed the same."""

FOREVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Course:
    """A value now, its change per microsecond, and the instant before which this is certain.

    `slope` is 0 for all but timestamps and intervals, and for NULL.
    """

    value: Value
    slope: int
    until: float


def next_flip_us(expr: Expr, row: Mapping[str, Value], now_us: int) -> int | None:
    """The earliest instant after now at which the value may change through `now()` alone, given the row.

    Between now and that instant the value is constant. At the instant itself it has changed, unless more than
    `STEPS_MAX` instants had to be looked at (a condition on the minute, say) or the value itself moves with time; then
    it may still be the same and the caller asks again.

    Args:
        expr: A typed tree, usually a segment's condition.
        row: Values by canonical name, as for `evaluate`.
        now_us: Now, microseconds since the epoch.

    Returns:
        An instant after `now_us`, or None if the value stays for good.
    """
    if not uses_now(expr):
        return None
    course = follow(expr, row, now_us)
    if course.slope:
        return now_us + 1
    for _ in range(STEPS_MAX):
        if course.until > INT64_MAX:
            return None
        at_us = int(course.until)
        if evaluate(expr, row, at_us) != course.value:
            return at_us
        course = follow(expr, row, at_us)
        if course.slope:
            return at_us
    return int(course.until) if course.until <= INT64_MAX else None


def follow(expr: Expr, row: Mapping[str, Value], now_us: int) -> Course:
    """The course of an expression from now on."""
    if not uses_now(expr):
        return Course(evaluate(expr, row, now_us), 0, FOREVER)
    match expr:
        case Now():
            return Course(now_us, 1, FOREVER)
        case Literal() | Ref():
            return Course(
                read(row.get(expr.name), expr.dtype) if isinstance(expr, Ref) else expr.value, 0, FOREVER
            )
        case Case():
            return _case(expr, row, now_us)
        case And():
            return _settled([follow(operand, row, now_us) for operand in expr.operands], decisive=False)
        case Or():
            return _settled([follow(operand, row, now_us) for operand in expr.operands], decisive=True)
        case Compare():
            return _compared(expr, follow(expr.left, row, now_us), follow(expr.right, row, now_us), now_us)
        case Arithmetic():
            return _arithmetic(expr, follow(expr.left, row, now_us), follow(expr.right, row, now_us), now_us)
        case In():
            items = [follow(item, row, now_us) for item in expr.items]
            return _member(follow(expr.operand, row, now_us), items, now_us)
        case Call():
            return _call(expr, [follow(arg, row, now_us) for arg in expr.args], now_us)
        case _:
            return _unary(expr, follow(expr.operand, row, now_us), now_us)


def _soonest(courses: Iterable[Course]) -> float:
    return min((course.until for course in courses), default=FOREVER)


def _settled(courses: Sequence[Course], *, decisive: bool) -> Course:
    """AND and OR: one operand with the decisive value is enough, for as long as the most lasting one holds."""
    deciding = [course.until for course in courses if course.value is decisive]
    if deciding:
        return Course(decisive, 0, max(deciding))
    unknown = any(course.value is None for course in courses)
    return Course(None if unknown else not decisive, 0, _soonest(courses))


def _case(expr: Case, row: Mapping[str, Value], now_us: int) -> Course:
    until = FOREVER
    for condition, value in expr.branches:
        course = follow(condition, row, now_us)
        until = min(until, course.until)
        if course.value is True:
            return _no_longer(follow(value, row, now_us), until)
    return _no_longer(follow(expr.default, row, now_us), until)


def _no_longer(course: Course, until: float) -> Course:
    return Course(course.value, course.slope, min(course.until, until))


def _meeting(left: Course, right: Course, now_us: int) -> float:
    """The first instant after now at which the order of two courses is another."""
    gap = cast("int", left.value) - cast("int", right.value)
    slope = left.slope - right.slope
    if gap == 0:
        return now_us + 1 if slope else FOREVER
    if slope == 0 or (gap > 0) == (slope > 0):
        return FOREVER
    return now_us + -(-abs(gap) // abs(slope))


def _compared(expr: Compare, left: Course, right: Course, now_us: int) -> Course:
    until = _soonest((left, right))
    if left.slope != right.slope and left.value is not None and right.value is not None:
        until = min(until, _meeting(left, right, now_us))
    return Course(binary(expr, left.value, right.value), 0, until)


def _member(operand: Course, items: Sequence[Course], now_us: int) -> Course:
    until = _soonest((operand, *items))
    if operand.value is not None:
        present = [item for item in items if item.value is not None and item.slope != operand.slope]
        until = min([until, *(_meeting(operand, item, now_us) for item in present)])
    return Course(member(operand.value, [item.value for item in items]), 0, until)


def _arithmetic(expr: Arithmetic, left: Course, right: Course, now_us: int) -> Course:
    value = binary(expr, left.value, right.value)
    until = _soonest((left, right))
    if expr.dtype not in (DType.TIMESTAMP, DType.INTERVAL) or None in (left.value, right.value):
        return Course(value, 0, until)
    exact, slope = _line(expr, left, right)
    return _bounded(value, exact, slope, until, now_us)


def _line(expr: Arithmetic, left: Course, right: Course) -> tuple[int, int]:
    """Exact value and slope of a sum, difference or multiple."""
    a, b = cast("int", left.value), cast("int", right.value)
    match expr.op:
        case "+":
            return a + b, left.slope + right.slope
        case "-":
            return a - b, left.slope - right.slope
        case _:
            return a * b, left.slope * b + right.slope * a


def _bounded(value: Value, exact: int, slope: int, until: float, now_us: int) -> Course:
    """A line that is NULL where int64 does not hold it."""
    if slope == 0:
        return Course(value, 0, until)
    if value is not None:
        room = INT64_MAX - exact if slope > 0 else exact - INT64_MIN
        return Course(value, slope, min(until, now_us + room // abs(slope) + 1))
    outside = INT64_MIN - exact if slope > 0 else exact - INT64_MAX
    returns = now_us + -(-outside // abs(slope)) if outside > 0 else FOREVER
    return Course(None, 0, min(until, returns))


def _call(expr: Call, args: Sequence[Course], now_us: int) -> Course:
    value = apply(expr, [arg.value for arg in args])
    until = _soonest(args)
    match expr.function:
        case "coalesce":
            return next(
                (_no_longer(arg, until) for arg in args if arg.value is not None), Course(None, 0, until)
            )
        case "least" | "greatest":
            return _extreme(value, args, until, now_us)
        case "abs" if args[0].slope:
            return _absolute(value, args[0], until, now_us)
        case "contains" if args[1].slope and args[0].value is not None:
            items = [Course(item, 0, FOREVER) for item in cast("tuple[int, ...]", args[0].value)]
            return _no_longer(_member(args[1], items, now_us), until)
        case _:
            return Course(value, 0, until)


def _extreme(value: Value, args: Sequence[Course], until: float, now_us: int) -> Course:
    present = [arg for arg in args if arg.value is not None]
    if not any(arg.slope for arg in present):
        return Course(value, 0, until)
    chosen = next(arg for arg in present if arg.value == value)
    meetings = [_meeting(chosen, arg, now_us) for arg in present if arg.slope != chosen.slope]
    return Course(value, chosen.slope, min([until, *meetings]))


def _absolute(value: Value, arg: Course, until: float, now_us: int) -> Course:
    inner = cast("int", arg.value)
    slope = arg.slope if inner >= 0 else -arg.slope
    until = min(until, _meeting(arg, Course(0, 0, FOREVER), now_us))
    return _bounded(value, abs(inner), slope, until, now_us)


def _unary(expr: Not | IsNull | Like | DatePart | Negate | ToFloat, operand: Course, now_us: int) -> Course:
    match expr:
        case Not():
            return Course(None if operand.value is None else not operand.value, 0, operand.until)
        case IsNull():
            return Course(operand.value is None, 0, operand.until)
        case Negate() if operand.slope:
            inner = cast("int", operand.value)
            return _bounded(unary(expr, inner), -inner, -operand.slope, operand.until, now_us)
        case DatePart() if operand.slope:
            return _part(expr, operand, now_us)
        case _:
            return Course(unary(expr, operand.value), 0, operand.until)


def _part(expr: DatePart, operand: Course, now_us: int) -> Course:
    """A date part of a moving timestamp holds until the timestamp leaves its unit, or its offset."""
    at_us = cast("int", operand.value)
    start_us, end_us = steady_stretch(expr.part, at_us, expr.zone)
    way = end_us - at_us if operand.slope > 0 else at_us - start_us + 1
    until = now_us + -(-way // abs(operand.slope))
    return Course(unary(expr, at_us), 0, min(operand.until, until))
