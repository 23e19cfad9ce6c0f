"""A typed condition as one DuckDB expression with the meaning of `docs/rules.md`.

Where DuckDB means something else by the same words, the text spells our meaning out:

- A NaN is NULL. Float arithmetic carries NaN along and it becomes NULL where the value is looked at.
- int64 arithmetic is done in HUGEINT, which no two int64 can overflow, and is NULL where int64 cannot hold the result.
- Division and remainder by zero are NULL whatever the session's settings.
- Strings compare by content, whatever the collation of their column.
- Timestamps and intervals are BIGINT microseconds; date parts come from the transitions within the condition.

No part of the text can raise, for any row of the declared types, so it does not matter what DuckDB evaluates first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
from decision.schema import DType
from decision.sql.calendar import date_part
from decision.sql.errors import SqlError
from decision.sql.text import SHORT_CHARS, cast_to, constant, named, quoted

SETTINGS: Final = (
    "SET default_collation = ''",  # constants too compare by content
    "SET max_expression_depth = 4000",  # a condition nests 64 deep, each level is several of SQL's
)
"""Statements to execute on the connection before generated text."""

NOW: Final = "$now_us"
"""`now()` as a parameter of the query."""

NAN: Final = "CAST('NaN' AS DOUBLE)"


def to_sql(expr: Expr, columns: Mapping[str, str], now_us: int | str = NOW) -> str:
    """The SQL expression of a condition or value.

    Args:
        expr: A typed tree.
        columns: SQL text for every canonical name that the expression reads: a quoted identifier, or an expression
            without side effects. Integers and floats may be of any width; timestamps are int64 microseconds, so a
            TIMESTAMP column is given as `epoch_us(column)`; lists are LIST columns; a name that history does not
            have is given as NULL. Segments are read like features, by the name of their stored membership.
        now_us: The value of `now()`: microseconds since the epoch, or SQL for them, such as the column of the event
            time. By default the named parameter `$now_us`.

    Returns:
        Closed text of type BOOLEAN, BIGINT, DOUBLE or VARCHAR, or a list of these; timestamps and intervals are
        BIGINT microseconds. It gives NULL where the interpreter gives NULL and never a NaN.

    Raises:
        SqlError: A name has no column, or a string is no Unicode text.
    """
    return _Writer(columns, cast_to(DType.TIMESTAMP, str(now_us))).value(expr)


@dataclass(frozen=True, slots=True)
class _Writer:
    columns: Mapping[str, str]
    now: str

    def value(self, expr: Expr) -> str:
        """Text of the value as the language sees it, NaN being NULL."""
        text = self.text(expr)
        return named(text, _without_nan) if _may_be_nan(expr) else text

    def text(self, expr: Expr) -> str:  # noqa: C901 - one case per node is the clearest form
        """Text of the value, in which a float may be NaN for NULL."""
        match expr:
            case Literal():
                return constant(expr.value, expr.dtype)
            case Ref():
                return self._ref(expr)
            case Now():
                return self.now
            case Not():
                return f"(NOT {self.text(expr.operand)})"
            case And():
                return f"({' AND '.join(map(self.text, expr.operands))})"
            case Or():
                return f"({' OR '.join(map(self.text, expr.operands))})"
            case IsNull():
                return f"({self.value(expr.operand)} IS NULL)"
            case Compare():
                return f"({self.value(expr.left)} {expr.op} {self.value(expr.right)})"
            case In():
                return f"({self.value(expr.operand)} IN ({self._list(expr.items)}))"
            case Like():
                return f"({self.text(expr.operand)} LIKE {quoted(expr.pattern)})"
            case Case():
                return self._case(expr)
            case ToFloat():
                return cast_to(DType.FLOAT64, self.text(expr.operand))
            case Arithmetic():
                return self._arithmetic(expr)
            case Negate():
                return self._negation(expr)
            case DatePart():
                return date_part(expr.part, self.text(expr.operand), expr.zone)
            case Call():
                return self._call(expr)

    def _ref(self, expr: Ref) -> str:
        column = self.columns.get(expr.name)
        if column is None:
            raise SqlError(
                f"no column is given for {expr.name}: map it to one, or to NULL if history lacks it"
            )
        text = cast_to(expr.dtype, column)
        if expr.dtype is DType.FLOAT64:
            return named(text, _without_nan)
        if expr.dtype is DType.STRING:
            return f'({text} COLLATE "binary")'
        if expr.dtype is DType.FLOAT64_LIST:
            return f"list_transform({text}, lambda v: {_without_nan('v')})"
        return text

    def _list(self, items: tuple[Expr, ...]) -> str:
        return ", ".join(map(self.value, items))

    def _case(self, expr: Case) -> str:
        branches = " ".join(
            f"WHEN {self.text(condition)} THEN {self.text(value)}" for condition, value in expr.branches
        )
        return f"(CASE {branches} ELSE {self.text(expr.default)} END)"

    def _arithmetic(self, expr: Arithmetic) -> str:
        left, right = self.text(expr.left), self.text(expr.right)
        if expr.op in "/%":
            right = named(right, lambda v: f"nullif({v}, 0)")
        return f"({left} {expr.op} {right})" if expr.dtype is DType.FLOAT64 else _int64(left, expr.op, right)

    def _negation(self, expr: Negate) -> str:
        operand = self.text(expr.operand)
        return f"(-{operand})" if expr.dtype is DType.FLOAT64 else _int64("0", "-", operand)

    def _call(self, expr: Call) -> str:
        match expr.function:
            case "contains":
                return _contains(self.value(expr.args[0]), self.value(expr.args[1]))
            case "coalesce" | "least" | "greatest":
                return f"{expr.function}({self._list(expr.args)})"
            case "bucket":
                return self._bucket(expr)
            case _:
                return _whole_or_size(expr.function, self.text(expr.args[0]), expr.dtype)

    def _bucket(self, expr: Call) -> str:
        unit, salt, count = expr.args
        text = f"{self.text(salt)} || chr(0) || {cast_to(DType.STRING, self.text(unit))}"
        number = f"CAST('0x' || left(sha256({text}), 16) AS UBIGINT)"
        return cast_to(DType.INT64, f"{number} % CAST({self.text(count)} AS UBIGINT)")


def _may_be_nan(expr: Expr) -> bool:
    if expr.dtype is not DType.FLOAT64:
        return False
    match expr:
        case Arithmetic():
            return True
        case Negate():
            return _may_be_nan(expr.operand)
        case Case():
            return any(_may_be_nan(value) for value in (*(value for _, value in expr.branches), expr.default))
        case Call():
            return expr.function in ("abs", "round", "floor") and _may_be_nan(expr.args[0])
        case _:
            return False


def _without_nan(text: str) -> str:
    """NaN becomes NULL; DuckDB holds NaN equal to itself."""
    return f"nullif({text}, {NAN})"


def _int64(left: str, op: str, right: str) -> str:
    """Exact arithmetic on int64, NULL where int64 cannot hold the result."""
    return f"TRY_CAST(CAST({left} AS HUGEINT) {op} CAST({right} AS HUGEINT) AS BIGINT)"


def _whole_or_size(function: str, text: str, dtype: DType) -> str:
    """abs, round and floor; the latter two leave int64 as it is."""
    if dtype is DType.FLOAT64:
        return f"{function}({text})"
    return f"TRY_CAST(abs(CAST({text} AS HUGEINT)) AS BIGINT)" if function == "abs" else text


def _contains(items: str, value: str) -> str:
    if len(items) + len(value) <= SHORT_CHARS:
        return _contained(items, value)
    both = f"{{'items': {items}, 'value': {value}}}"
    return named(both, lambda v: _contained(f"struct_extract({v}, 'items')", f"struct_extract({v}, 'value')"))


def _contained(items: str, value: str) -> str:
    """Whether a list holds a value, three-valued: an empty list holds not even NULL."""
    return (
        f"(CASE WHEN {items} IS NULL THEN NULL WHEN len({items}) = 0 THEN FALSE WHEN {value} IS NULL THEN NULL"
        f" WHEN list_contains({items}, {value}) THEN TRUE WHEN list_count({items}) < len({items}) THEN NULL"
        " ELSE FALSE END)"
    )
