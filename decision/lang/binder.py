"""Untyped trees to typed ones: names are resolved, types checked, number conversions written out.

Every mistake is reported and yields None, and an operator over a None stays silent, so one mistake is one finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

from decision.lang.findings import Code, nearest
from decision.lang.functions import FUNCTIONS, Binding
from decision.lang.names import Scope, labelled
from decision.lang.report import Place, Report
from decision.lang.syntax import (
    And,
    Arithmetic,
    ArithmeticOp,
    Case,
    Compare,
    CompareOp,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Negate,
    Not,
    Or,
    Ref,
    Span,
)
from decision.lang.tree import Choice, Constant, Duration, Invoke, Node, Operation, Path
from decision.lang.types import NUMBERS, ORDERED, SCALARS, coerce, is_null, type_name, unify
from decision.lang.values import INT64_MAX
from decision.schema import DType, Scalar

CONSTANT_TYPES: Final[dict[type, DType]] = {
    bool: DType.BOOL,
    int: DType.INT64,
    float: DType.FLOAT64,
    str: DType.STRING,
}


def constant_type(value: Scalar | None) -> DType:
    """The type of a literal; NULL by itself is a bool."""
    return DType.BOOL if value is None else CONSTANT_TYPES[type(value)]


class Binder:
    """Binds the conditions of one declaration."""

    def __init__(self, scope: Scope, place: Place, report: Report) -> None:
        self.scope = scope
        self.place = place
        self.report = report

    def condition(self, node: Node) -> Expr | None:
        """Bind a tree that must be true or false."""
        return self._typed(self.bind(node), DType.BOOL, "a condition")

    def bind(self, node: Node) -> Expr | None:
        """Bind a tree of any type."""
        match node:
            case Constant():
                return self._constant(node)
            case Duration():
                return Literal(value=node.value_us, dtype=DType.INTERVAL, span=self.place.span(node.at))
            case Path():
                return self.scope.resolve(node.parts, self.place.span(node.at), self.report)
            case Invoke():
                return self._invoke(node)
            case Choice():
                return self._choice(node)
            case Operation():
                return self._operation(node)

    def _constant(self, node: Constant) -> Expr | None:
        span = self.place.span(node.at)
        if isinstance(node.value, int) and node.value > INT64_MAX:
            hint = "write it with a decimal point"
            return self._fail(Code.TYPE_MISMATCH, "this number is out of int64's range", span, hint)
        return Literal(value=node.value, dtype=constant_type(node.value), span=span)

    def _invoke(self, node: Invoke) -> Expr | None:
        name = node.name.text.lower()
        function = FUNCTIONS.get(name)
        if function is None:
            span = self.place.span(node.name.at)
            hint = nearest(name, FUNCTIONS)
            return self._fail(Code.UNKNOWN_FUNCTION, f"there is no function `{node.name.text}`", span, hint)
        return function(Binding(self, name, node.args, self.place.span(node.at)))

    def _choice(self, node: Choice) -> Expr | None:
        span = self.place.span(node.at)
        conditions = [self.condition(condition) for condition, _ in node.branches]
        bound = [self.bind(value) for _, value in node.branches]
        missing = Literal(value=None, dtype=DType.BOOL, span=span)
        bound.append(missing if node.default is None else self.bind(node.default))
        values = self.common(bound, "the values of CASE")
        if values is None or None in conditions:
            return None
        branches = tuple(zip(cast("list[Expr]", conditions), values[:-1], strict=True))
        return Case(branches=branches, default=values[-1], dtype=values[0].dtype, span=span)

    def _operation(self, node: Operation) -> Expr | None:
        span = self.place.span(node.at)
        if node.op in ("AND", "OR", "NOT"):
            return self._logical(node, span)
        bound = self.all(node.operands)
        return None if bound is None else OPERATIONS[node.op](self, node.op, bound, span)

    def _logical(self, node: Operation, span: Span) -> Expr | None:
        bound = [self._typed(self.bind(operand), DType.BOOL, node.op) for operand in node.operands]
        if None in bound:
            return None
        operands = cast("list[Expr]", bound)
        if node.op == "NOT":
            return Not(operand=operands[0], span=span)
        return (
            And(operands=tuple(operands), span=span)
            if node.op == "AND"
            else Or(operands=tuple(operands), span=span)
        )

    def compare(self, op: str, bound: list[Expr], span: Span) -> Expr | None:
        pair = self.common(bound, "a comparison")
        if pair is None or not self._comparable(op, pair[0].dtype, span):
            return None
        self._check_labels(pair)
        return Compare(op=cast("CompareOp", op), left=pair[0], right=pair[1], span=span)

    def _comparable(self, op: str, dtype: DType, span: Span) -> bool:
        allowed = SCALARS if op in ("=", "<>", "IN") else ORDERED
        if dtype in allowed:
            return True
        hint = "use contains(list, value)" if dtype not in SCALARS else "only = and <> compare these"
        self._fail(Code.TYPE_MISMATCH, f"{op} does not compare {type_name(dtype)} values", span, hint)
        return False

    def between(self, _op: str, bound: list[Expr], span: Span) -> Expr | None:
        trio = self.common(bound, "BETWEEN")
        if trio is None or not self._comparable("BETWEEN", trio[0].dtype, span):
            return None
        value, low, high = trio
        above = Compare(op=">=", left=value, right=low, span=span)
        return And(operands=(above, Compare(op="<=", left=value, right=high, span=span)), span=span)

    def member(self, _op: str, bound: list[Expr], span: Span) -> Expr | None:
        parts = self.common(bound, "IN")
        if parts is None or not self._comparable("IN", parts[0].dtype, span):
            return None
        self._check_labels(parts)
        return In(operand=parts[0], items=tuple(parts[1:]), span=span)

    def _check_labels(self, compared: Sequence[Expr]) -> None:
        """Report texts that a model's label is compared with and that it never tells."""
        models = {labelled(expr.name) for expr in compared if isinstance(expr, Ref)} - {None}
        for model in sorted(cast("set[str]", models)):
            labels = (self.scope.labels or {}).get(model, ())
            for expr in compared:
                if isinstance(expr, Literal) and isinstance(expr.value, str) and expr.value not in labels:
                    hint = nearest(expr.value, labels) or f"it tells {', '.join(map(repr, labels))}"
                    message = f'the model `{model}` tells no label "{expr.value}"'
                    self._fail(Code.UNKNOWN_LABEL, message, expr.span, hint)

    def like(self, _op: str, bound: list[Expr], span: Span) -> Expr | None:
        operand, pattern = bound
        if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            hint = 'write it in quotes, as in LIKE "MILK%"'
            return self._fail(Code.TYPE_MISMATCH, "the pattern of LIKE is a constant", pattern.span, hint)
        text = self._typed(operand, DType.STRING, "LIKE")
        return None if text is None else Like(operand=text, pattern=pattern.value, span=span)

    def is_null(self, _op: str, bound: list[Expr], span: Span) -> Expr | None:
        return IsNull(operand=bound[0], span=span)

    def negate(self, _op: str, bound: list[Expr], span: Span) -> Expr | None:
        if bound[0].dtype in (*NUMBERS, DType.INTERVAL):
            return Negate(operand=bound[0], span=span)
        return self._fail(Code.TYPE_MISMATCH, f"{type_name(bound[0].dtype)} values have no sign", span)

    def arithmetic(self, op: str, bound: list[Expr], span: Span) -> Expr | None:
        left, right = bound
        times = {DType.TIMESTAMP, DType.INTERVAL}
        if left.dtype in times or right.dtype in times:
            return self._time_arithmetic(op, left, right, span)
        pair = self.common(bound, op)
        if pair is None:
            return None
        left, right = pair
        if left.dtype not in NUMBERS and not is_null(left):
            return self._fail(Code.TYPE_MISMATCH, f"{op} does not take {type_name(left.dtype)} values", span)
        dtype = DType.FLOAT64 if op == "/" or left.dtype is DType.FLOAT64 else DType.INT64
        left, right = coerce(left, dtype), coerce(right, dtype)
        return Arithmetic(op=cast("ArithmeticOp", op), left=left, right=right, dtype=dtype, span=span)

    def _time_arithmetic(self, op: str, left: Expr, right: Expr, span: Span) -> Expr | None:
        dtype = TIME_RESULTS.get((left.dtype, op, right.dtype))
        if dtype is None:
            message = f"{type_name(left.dtype)} {op} {type_name(right.dtype)} has no meaning"
            return self._fail(Code.TYPE_MISMATCH, message, span, _unit_hint(left, right))
        return Arithmetic(op=cast("ArithmeticOp", op), left=left, right=right, dtype=dtype, span=span)

    def all(self, nodes: Sequence[Node]) -> list[Expr] | None:
        """Bind every one, so that every mistake is found; None if any failed."""
        bound = [self.bind(node) for node in nodes]
        return None if None in bound else cast("list[Expr]", bound)

    def common(self, bound: Sequence[Expr | None], what: str) -> list[Expr] | None:
        """Bring values to one type: numbers to float64 where they mix, NULL to whatever the others are."""
        if None in bound:
            return None
        exprs = cast("Sequence[Expr]", bound)
        dtype = unify(exprs)
        if dtype is not None:
            return [coerce(expr, dtype) for expr in exprs]
        first = next(expr for expr in exprs if not is_null(expr))
        other = next(expr for expr in exprs if not is_null(expr) and unify((first, expr)) is None)
        message = f"{what} mixes {type_name(first.dtype)} and {type_name(other.dtype)}"
        self._fail(Code.TYPE_MISMATCH, message, other.span, _unit_hint(first, other))
        return None

    def _typed(self, expr: Expr | None, dtype: DType, what: str) -> Expr | None:
        if expr is None or expr.dtype is dtype:
            return expr
        if is_null(expr):
            return coerce(expr, dtype)
        message = f"{what} takes {type_name(dtype)}, this is {type_name(expr.dtype)}"
        return self._fail(Code.TYPE_MISMATCH, message, expr.span, _condition_hint(expr, dtype))

    def typed(self, node: Node, dtype: DType, what: str) -> Expr | None:
        """Bind a tree that must have a type."""
        return self._typed(self.bind(node), dtype, what)

    def _fail(self, code: Code, message: str, span: Span, suggestion: str = "") -> Expr | None:
        """Report a mistake; the None is what the mistaken tree is bound to."""
        self.report.add(code, message, span, suggestion)
        return None


def _condition_hint(expr: Expr, dtype: DType) -> str:
    return "compare it with something" if dtype is DType.BOOL and expr.dtype is not DType.BOOL else ""


def _unit_hint(left: Expr, right: Expr) -> str:
    """What was probably meant where two types do not fit."""
    pair = {left.dtype, right.dtype}
    if DType.STRING in pair and pair & set(NUMBERS):
        return "a number is written without quotes"
    if DType.TIMESTAMP in pair and DType.STRING in pair:
        return 'write timestamp("2026-11-23T00:00:00Z")'
    if pair & {DType.TIMESTAMP, DType.INTERVAL} and pair & set(NUMBERS):
        return "give the number a unit, as in 30 minutes"
    if pair == {DType.TIMESTAMP, DType.INTERVAL}:
        return "compare with now() minus the interval"
    return ""


TIME_RESULTS: Final[dict[tuple[DType, str, DType], DType]] = {
    (DType.TIMESTAMP, "+", DType.INTERVAL): DType.TIMESTAMP,
    (DType.INTERVAL, "+", DType.TIMESTAMP): DType.TIMESTAMP,
    (DType.TIMESTAMP, "-", DType.INTERVAL): DType.TIMESTAMP,
    (DType.TIMESTAMP, "-", DType.TIMESTAMP): DType.INTERVAL,
    (DType.INTERVAL, "+", DType.INTERVAL): DType.INTERVAL,
    (DType.INTERVAL, "-", DType.INTERVAL): DType.INTERVAL,
    (DType.INTERVAL, "*", DType.INT64): DType.INTERVAL,
    (DType.INT64, "*", DType.INTERVAL): DType.INTERVAL,
}

OPERATIONS: Final[dict[str, Callable[[Binder, str, list[Expr], Span], Expr | None]]] = {
    **dict.fromkeys(("=", "<>", "<", "<=", ">", ">="), Binder.compare),
    **dict.fromkeys(("+", "-", "*", "/", "%"), Binder.arithmetic),
    "BETWEEN": Binder.between,
    "IN": Binder.member,
    "LIKE": Binder.like,
    "IS NULL": Binder.is_null,
    "NEG": Binder.negate,
}
