"""Conditions evaluated another way: by Python's decimals, dates, regular expressions and the algebra of three values.

Nothing here shares code with the interpreter but the tree it walks.
"""

from __future__ import annotations

import hashlib
import math
import operator
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from decision.lang import syntax as tree
from decision.schema import DType, Value

TRUTH = {False: 0.0, None: 0.5, True: 1.0}
NAMES = {0.0: False, 0.5: None, 1.0: True}
EXACT = Context(prec=2000)
OPS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Beyond(Exception):
    """An instant that Python's dates or the written-out zones do not reach."""


def oracle(expr: tree.Expr, row: Mapping[str, Value], now_us: int) -> Any:
    """The value of an expression; Beyond where this oracle cannot tell."""

    def of(part: tree.Expr) -> Any:
        return oracle(part, row, now_us)

    match expr:
        case tree.Literal():
            return expr.value
        case tree.Ref():
            return _nan_is_null(row.get(expr.name))
        case tree.Now():
            return now_us
        case tree.Not():
            return NAMES[1.0 - TRUTH[of(expr.operand)]]
        case tree.And():
            return NAMES[min(TRUTH[of(part)] for part in expr.operands)]
        case tree.Or():
            return NAMES[max(TRUTH[of(part)] for part in expr.operands)]
        case tree.IsNull():
            return of(expr.operand) is None
        case tree.In():
            return _any_equal(of(expr.operand), [of(item) for item in expr.items])
        case tree.Case():
            chosen = [value for condition, value in expr.branches if of(condition) is True]
            return of([*chosen, expr.default][0])
        case tree.Call():
            return _call(expr, [of(arg) for arg in expr.args])
        case _:
            values = [of(part) for part in tree.children(expr)]
            return None if None in values else _strict(expr, *values)


def _nan_is_null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _any_equal(value: Any, items: list[Any]) -> bool | None:
    facts = [None if value is None or _nan_is_null(item) is None else value == item for item in items]
    return NAMES[max((TRUTH[fact] for fact in facts), default=0.0)]


def _strict(expr: tree.Expr, *values: Any) -> Any:
    match expr:
        case tree.Compare():
            return bool(OPS[expr.op](*values))
        case tree.Arithmetic():
            return _float(expr.op, *values) if expr.dtype is DType.FLOAT64 else _int(expr.op, *values)
        case tree.Negate():
            return -values[0] if expr.dtype is DType.FLOAT64 else _int("-", 0, values[0])
        case tree.ToFloat():
            return float(np.int64(values[0]).astype(np.float64))
        case tree.Like():
            pattern = "".join(
                {"%": "(?:.|\n)*", "_": "(?:.|\n)"}.get(mark, re.escape(mark)) for mark in expr.pattern
            )
            return re.fullmatch(pattern, values[0]) is not None
        case tree.DatePart():
            return _part(expr, values[0])
        case _:
            raise AssertionError(expr)


def _int(op: str, left: int, right: int) -> int | None:
    if op == "%" and right == 0:
        return None
    functions: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
        "+": EXACT.add,
        "-": EXACT.subtract,
        "*": EXACT.multiply,
        "%": EXACT.remainder,
    }
    result = int(functions[op](Decimal(left), Decimal(right)))
    return result if result.bit_length() < 64 or result == -(2**63) else None


def _float(op: str, left: float, right: float) -> float | None:
    if op in "/%" and right == 0:
        return None
    functions = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod}
    with np.errstate(all="ignore"):
        result = float(functions[op](np.float64(left), np.float64(right)))
    return None if math.isnan(result) else result


def _part(expr: tree.DatePart, at_us: int) -> int:
    if not 0 <= at_us < 4_102_444_800_000_000:
        raise Beyond
    at = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).astimezone(
        ZoneInfo(expr.zone.name)
    )
    by_name = {"weekday": at.isoweekday(), "day_of_year": at.timetuple().tm_yday}
    return by_name.get(expr.part) or int(getattr(at, expr.part, 0))


def _call(expr: tree.Call, args: list[Any]) -> Any:
    present = [arg for arg in args if arg is not None]
    match expr.function:
        case "coalesce":
            return [*present, None][0]
        case "least" | "greatest":
            return sorted(present)[0 if expr.function == "least" else -1] if present else None
        case "contains":
            return None if args[0] is None else _any_equal(args[1], list(args[0]))
        case _:
            return _strict_call(expr, args) if len(present) == len(args) else None


def _strict_call(expr: tree.Call, args: list[Any]) -> Any:
    match expr.function:
        case "bucket":
            digest = hashlib.sha256(b"\x00".join([args[1].encode(), str(args[0]).encode()])).hexdigest()
            return int(digest[:16], 16) % args[2]
        case "abs":
            return (
                math.fabs(args[0])
                if expr.dtype is DType.FLOAT64
                else _int("*", args[0], -1 if args[0] < 0 else 1)
            )
        case "round":
            return _whole(args[0], ROUND_HALF_UP)
        case _:
            return _whole(args[0], ROUND_FLOOR)


def _whole(value: float, rounding: str) -> float:
    return value if math.isinf(value) else float(Decimal(value).to_integral_value(rounding))
