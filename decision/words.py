"""Conditions in words: the text of a typed tree, and which part of it failed for which values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from decision.lang.interpreter import evaluate
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
    references,
)
from decision.schema import Value

_MOST: Final = 5
"""Most list items and values that a sentence spells out."""


def failures(condition: Expr, row: Mapping[str, Value], now_us: int) -> tuple[str, ...]:
    """Each part of a conjunction that is not TRUE, as a sentence with the values it read.

    Args:
        condition: A typed tree of type bool.
        row: Values by canonical name; an absent one is NULL.
        now_us: The value of `now()`, microseconds since the epoch.
    """
    return tuple(
        f"{spell(part)} is {truth(value)}{_where(part, row)}"
        for part in _conjuncts(condition)
        if (value := evaluate(part, row, now_us)) is not True
    )


def truth(value: Value) -> str:
    """TRUE, FALSE or NULL."""
    return "NULL" if value is None else str(value).upper()


def spell(expr: Expr) -> str:
    """The text of a tree; not always the text it was parsed from, but of the same meaning."""
    match expr:
        case Literal():
            return _literal(expr.value)
        case Ref():
            return expr.name
        case Now():
            return "now()"
        case And():
            return " AND ".join(map(_inner, expr.operands))
        case Or():
            return " OR ".join(map(_inner, expr.operands))
        case Compare() | Arithmetic():
            return f"{_inner(expr.left)} {expr.op} {_inner(expr.right)}"
        case Call():
            return f"{expr.function}({', '.join(map(spell, expr.args))})"
        case Case():
            return _case(expr)
        case _:
            return _unary(expr)


def _unary(expr: Not | In | Like | IsNull | Negate | ToFloat | DatePart) -> str:
    operand = _inner(expr.operand)
    match expr:
        case Not():
            return f"NOT {operand}"
        case In():
            items = [spell(item) for item in expr.items]
            return f"{operand} IN ({', '.join(items[:_MOST])}{', …' if len(items) > _MOST else ''})"
        case Like():
            return f"{operand} LIKE {_literal(expr.pattern)}"
        case IsNull():
            return f"{operand} IS NULL"
        case Negate():
            return f"-{operand}"
        case ToFloat():
            return operand
        case DatePart():
            return f"{expr.part}({operand}, {_literal(expr.zone.name)})"


def _case(expr: Case) -> str:
    branches = " ".join(f"WHEN {spell(condition)} THEN {spell(value)}" for condition, value in expr.branches)
    return f"CASE {branches} ELSE {spell(expr.default)} END"


def _inner(expr: Expr) -> str:
    text = spell(expr)
    return (
        f"({text})" if isinstance(expr, And | Or | Not | Compare | Arithmetic | In | Like | IsNull) else text
    )


def _literal(value: Value) -> str:
    match value:
        case None | bool():
            return truth(value)
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def _conjuncts(condition: Expr) -> Iterator[Expr]:
    if not isinstance(condition, And):
        yield condition
        return
    for operand in condition.operands:
        yield from _conjuncts(operand)


def _where(part: Expr, row: Mapping[str, Value]) -> str:
    names = sorted(references(part))[:_MOST]
    return f" ({', '.join(f'{name} is {_literal(row.get(name))}' for name in names)})" if names else ""
