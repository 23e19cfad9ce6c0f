"""The reference interpreter: what a condition means, by the shortest way to say it.

`evaluate` walks the tree. `prepare` builds nested closures once and is what runs per request; both are held equal by
property test, and every other evaluator is held to `evaluate`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, cast

from decision.lang import values
from decision.lang.calendar import date_part
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
)
from decision.schema import DType, Scalar, Value

Row = Mapping[str, Value]
Prepared = Callable[[Row, int], Value]


def evaluate(expr: Expr, row: Row, now_us: int) -> Value:  # noqa: C901 - one case per node is the clearest form
    """The value of an expression.

    Args:
        expr: A typed tree.
        row: Values by canonical name; an absent name is NULL, a NaN is NULL.
        now_us: The value of `now()`, microseconds since the epoch.
    """
    match expr:
        case Literal():
            return expr.value
        case Ref():
            return read(row.get(expr.name), expr.dtype)
        case Now():
            return now_us
        case Not():
            return negation(evaluate(expr.operand, row, now_us))
        case And():
            return conjunction(evaluate(operand, row, now_us) for operand in expr.operands)
        case Or():
            return disjunction(evaluate(operand, row, now_us) for operand in expr.operands)
        case IsNull():
            return evaluate(expr.operand, row, now_us) is None
        case Case():
            return _case(expr, row, now_us)
        case In():
            items = (evaluate(item, row, now_us) for item in expr.items)
            return values.member(evaluate(expr.operand, row, now_us), items)
        case Call():
            return apply(expr, [evaluate(arg, row, now_us) for arg in expr.args])
        case Compare() | Arithmetic():
            return binary(expr, evaluate(expr.left, row, now_us), evaluate(expr.right, row, now_us))
        case Like() | DatePart() | Negate() | ToFloat():
            return unary(expr, evaluate(expr.operand, row, now_us))


def _case(expr: Case, row: Row, now_us: int) -> Value:
    for condition, value in expr.branches:
        if evaluate(condition, row, now_us) is True:
            return evaluate(value, row, now_us)
    return evaluate(expr.default, row, now_us)


def read(value: Value, dtype: DType) -> Value:
    """A row's value as its declared type: ints of float features become floats, NaN becomes NULL."""
    if dtype is DType.FLOAT64 and value is not None:
        return values.float64(float(cast("float", value)))
    return value


def negation(value: Value) -> bool | None:
    """NOT: NULL stays NULL."""
    return None if value is None else not value


def conjunction(operands: Iterable[Value]) -> bool | None:
    """AND: FALSE if any operand is FALSE, else NULL if any is NULL."""
    unknown = False
    for value in operands:
        if value is None:
            unknown = True
        elif not value:
            return False
    return None if unknown else True


def disjunction(operands: Iterable[Value]) -> bool | None:
    """OR: TRUE if any operand is TRUE, else NULL if any is NULL."""
    unknown = False
    for value in operands:
        if value is None:
            unknown = True
        elif value:
            return True
    return None if unknown else False


def binary(expr: Compare | Arithmetic, left: Value, right: Value) -> Value:
    """A comparison or arithmetic on two values; NULL if either is."""
    if left is None or right is None:
        return None
    if isinstance(expr, Compare):
        return values.compare(expr.op, cast("Scalar", left), cast("Scalar", right))
    if expr.dtype is DType.FLOAT64:
        return values.arithmetic_float(expr.op, cast("float", left), cast("float", right))
    return values.arithmetic_int(expr.op, cast("int", left), cast("int", right))


def unary(expr: Like | DatePart | Negate | ToFloat, value: Value) -> Value:
    """An operator of one operand; NULL if it is."""
    if value is None:
        return None
    match expr:
        case Like():
            return values.like(cast("str", value), expr.pattern)
        case DatePart():
            return date_part(expr.part, cast("int", value), expr.zone)
        case ToFloat():
            return float(cast("int", value))
        case Negate():
            return _signed(-cast("float", value))


def _signed(value: float) -> Value:
    """int64 where the value is an int, and then NULL where it does not fit."""
    return values.int64(value) if isinstance(value, int) else value


def apply(expr: Call, args: list[Value]) -> Value:
    """A function on evaluated arguments."""
    match expr.function:
        case "coalesce":
            return next((value for value in args if value is not None), None)
        case "least":
            return min(_present(args), default=None)
        case "greatest":
            return max(_present(args), default=None)
        case "contains":
            return _contains(args[0], args[1])
        case _:
            return _apply_strict(expr, args)


def _present(args: list[Value]) -> list[float]:
    return [cast("float", value) for value in args if value is not None]


def _contains(items: Value, value: Value) -> bool | None:
    return None if items is None else values.member(value, cast("tuple[Scalar, ...]", items))


def _apply_strict(expr: Call, args: list[Value]) -> Value:
    """A function that is NULL if any argument is."""
    if any(value is None for value in args):
        return None
    match expr.function:
        case "abs":
            return _signed(abs(cast("float", args[0])))
        case "bucket":
            return values.bucket(cast("str", args[0]), cast("str", args[1]), cast("int", args[2]))
        case "round":
            return _integral(cast("float", args[0]), values.round_half_away)
        case _:
            return _integral(cast("float", args[0]), values.floor)


def _integral(value: float, function: Callable[[float], float]) -> float:
    return value if isinstance(value, int) else function(value)


def prepare(expr: Expr) -> Prepared:  # noqa: C901 - one case per node is the clearest form
    """Nested closures that compute what `evaluate` computes, built once and called per row."""
    match expr:
        case Literal():
            return _constant(expr.value)
        case Ref():
            return _reader(expr.name, expr.dtype)
        case Now():
            return _now
        case Not():
            return _after(prepare(expr.operand), negation)
        case And():
            return _conjunction(tuple(map(prepare, expr.operands)))
        case Or():
            return _disjunction(tuple(map(prepare, expr.operands)))
        case IsNull():
            return _after(prepare(expr.operand), _is_null)
        case Case():
            return _prepared_case(expr)
        case In():
            return _prepared_in(expr)
        case Call():
            return _prepared_call(expr)
        case Compare():
            return _prepared_compare(expr)
        case Arithmetic():
            return _prepared_binary(expr)
        case Like() | DatePart() | Negate() | ToFloat():
            return _after(prepare(expr.operand), partial(unary, expr))


def _is_null(value: Value) -> bool:
    return value is None


def _now(_row: Row, now_us: int) -> Value:
    return now_us


def _constant(value: Value) -> Prepared:
    return lambda _row, _now_us: value


def _reader(name: str, dtype: DType) -> Prepared:
    if dtype is DType.FLOAT64:
        return lambda row, _now_us: read(row.get(name), dtype)
    return lambda row, _now_us: row.get(name)


def _after(operand: Prepared, function: Callable[[Value], Value]) -> Prepared:
    return lambda row, now_us: function(operand(row, now_us))


def _conjunction(operands: tuple[Prepared, ...]) -> Prepared:
    def run(row: Row, now_us: int) -> Value:
        unknown = False
        for operand in operands:
            value = operand(row, now_us)
            if value is None:
                unknown = True
            elif not value:
                return False
        return None if unknown else True

    return run


def _disjunction(operands: tuple[Prepared, ...]) -> Prepared:
    def run(row: Row, now_us: int) -> Value:
        unknown = False
        for operand in operands:
            value = operand(row, now_us)
            if value is None:
                unknown = True
            elif value:
                return True
        return None if unknown else False

    return run


def _prepared_case(expr: Case) -> Prepared:
    branches = tuple((prepare(condition), prepare(value)) for condition, value in expr.branches)
    default = prepare(expr.default)

    def run(row: Row, now_us: int) -> Value:
        for condition, value in branches:
            if condition(row, now_us) is True:
                return value(row, now_us)
        return default(row, now_us)

    return run


def _prepared_in(expr: In) -> Prepared:
    operand = prepare(expr.operand)
    constants = [item.value for item in expr.items if isinstance(item, Literal)]
    if len(constants) == len(expr.items) and None not in constants:
        return _constant_in(operand, frozenset(constants))
    items = tuple(map(prepare, expr.items))
    return lambda row, now_us: values.member(operand(row, now_us), [item(row, now_us) for item in items])


def _constant_in(operand: Prepared, items: frozenset[Value]) -> Prepared:
    def run(row: Row, now_us: int) -> Value:
        value = operand(row, now_us)
        return None if value is None else value in items

    return run


def _prepared_call(expr: Call) -> Prepared:
    args = tuple(map(prepare, expr.args))
    return lambda row, now_us: apply(expr, [arg(row, now_us) for arg in args])


COMPARISONS: Final[dict[str, Callable[[Scalar, Scalar], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _prepared_compare(expr: Compare) -> Prepared:
    left, right, holds = prepare(expr.left), prepare(expr.right), COMPARISONS[expr.op]

    def run(row: Row, now_us: int) -> Value:
        a, b = left(row, now_us), right(row, now_us)
        return None if a is None or b is None else holds(cast("Scalar", a), cast("Scalar", b))

    return run


def _prepared_binary(expr: Arithmetic) -> Prepared:
    left, right = prepare(expr.left), prepare(expr.right)
    return lambda row, now_us: binary(expr, left(row, now_us), right(row, now_us))
