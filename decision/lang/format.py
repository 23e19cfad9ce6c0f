"""Typed conditions back to text: canonical names, full enough to compile to the same tree again."""

from __future__ import annotations

import re
from typing import Final

from decision.lang.calendar import UNITS_US
from decision.lang.instants import format_instant
from decision.lang.names import labelled
from decision.lang.syntax import (
    UTC,
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
)
from decision.lang.tokens import RESERVED
from decision.schema import DType, Value

OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, ATOM = range(8)
"""How tightly a form binds; an operand that binds less tightly than its place asks for gets parentheses."""

PLAIN_NAME: Final = re.compile(r"[^\W\d]\w*\Z")


def format_expr(expr: Expr) -> str:
    """The text of an expression, such as `session.views_30m >= 3 AND NOT segments.big_spender`."""
    return _text(expr)[0]


def _text(expr: Expr) -> tuple[str, int]:  # noqa: C901 - one case per node is the clearest form
    match expr:
        case Literal():
            return _literal(expr)
        case Ref() if labelled(expr.name):
            return expr.name, ATOM
        case Ref():
            return ".".join(map(format_name, expr.name.split("."))), ATOM
        case Now():
            return "now()", ATOM
        case ToFloat():
            return _text(expr.operand)
        case Not():
            return f"NOT {_in(expr.operand, NOT)}", NOT
        case And():
            return " AND ".join(_in(operand, NOT) for operand in expr.operands), AND
        case Or():
            return " OR ".join(_in(operand, AND) for operand in expr.operands), OR
        case Compare():
            return f"{_in(expr.left, SUM)} {expr.op} {_in(expr.right, SUM)}", COMPARE
        case In():
            return f"{_in(expr.operand, SUM)} IN ({_list(expr.items)})", COMPARE
        case Like():
            return f"{_in(expr.operand, SUM)} LIKE {format_string(expr.pattern)}", COMPARE
        case IsNull():
            return f"{_in(expr.operand, SUM)} IS NULL", COMPARE
        case Case():
            return _case(expr), ATOM
        case Arithmetic():
            level = SUM if expr.op in "+-" else PRODUCT
            return f"{_in(expr.left, level)} {expr.op} {_in(expr.right, level + 1)}", level
        case Negate():
            return f"- {_in(expr.operand, UNARY)}", UNARY
        case Call():
            return f"{expr.function}({_list(expr.args)})", ATOM
        case DatePart():
            zone = "" if expr.zone == UTC else f", {format_string(expr.zone.name)}"
            return f"{expr.part}({format_expr(expr.operand)}{zone})", ATOM


def _in(expr: Expr, level: int) -> str:
    text, binds = _text(expr)
    return text if binds >= level else f"({text})"


def _list(items: tuple[Expr, ...]) -> str:
    return ", ".join(map(format_expr, items))


def _case(expr: Case) -> str:
    whens = (f"WHEN {format_expr(condition)} THEN {format_expr(value)}" for condition, value in expr.branches)
    return f"CASE {' '.join(whens)} ELSE {format_expr(expr.default)} END"


def format_name(name: str) -> str:
    """A name, in backticks where it is a reserved word or no plain one."""
    return name if PLAIN_NAME.match(name) and name.upper() not in RESERVED else f"`{name}`"


def format_string(text: str) -> str:
    """A string in double quotes."""
    return '"' + text.replace('"', '""') + '"'


def format_literal(value: Value, dtype: DType) -> str:
    """A constant of a scalar type."""
    return _literal(Literal(value=value, dtype=dtype))[0]


def _literal(expr: Literal) -> tuple[str, int]:
    value = expr.value
    if value is None:
        return "NULL", ATOM
    if isinstance(value, bool):
        return str(value).upper(), ATOM
    if isinstance(value, str):
        return format_string(value), ATOM
    return _timed(expr.dtype, int(value)) if expr.dtype in TIMED else _number(value)  # type: ignore[arg-type]


TIMED: Final = (DType.TIMESTAMP, DType.INTERVAL)


def _number(value: float) -> tuple[str, int]:
    return repr(value), UNARY if value < 0 else ATOM


def _timed(dtype: DType, value_us: int) -> tuple[str, int]:
    if dtype is DType.INTERVAL:
        return format_interval(value_us), UNARY if value_us < 0 else ATOM
    text = format_instant(value_us)
    if text is not None:
        return f'timestamp("{text}")', ATOM
    return f"epoch() + {format_interval(value_us)}", SUM


def format_interval(value_us: int) -> str:
    """An interval in the largest unit that it is a whole number of, else in decimal seconds."""
    sign, size_us = ("-" if value_us < 0 else ""), abs(value_us)
    for unit, unit_us in reversed(UNITS_US.items()):
        if size_us % unit_us == 0:
            return f"{sign}{size_us // unit_us} {unit}s"
    seconds, micros = divmod(size_us, UNITS_US["second"])
    return f"{sign}{seconds}.{micros:06d} seconds"
