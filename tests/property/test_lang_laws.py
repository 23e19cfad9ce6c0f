"""Laws of the rule language over random conditions and rows."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from decision.lang.compiler import compile_expression
from decision.lang.fold import simplify
from decision.lang.format import format_expr
from decision.lang.interpreter import evaluate, prepare
from decision.lang.logic import can_fail, can_hold, implies
from decision.lang.syntax import Expr
from decision.lang.timing import next_flip_us
from decision.schema import DType, Value
from tests.oracle.lang_oracle import Beyond, oracle
from tests.support.lang_exprs import NOWS, expressions, rows, trees
from tests.support.lang_world import CATALOG

CONDITIONS = expressions(DType.BOOL)
VALUES = st.sampled_from(
    [DType.BOOL, DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP, DType.INTERVAL]
)
ANY = VALUES.flatmap(expressions)


def same(left: Value, right: Value) -> bool:
    """Equal, of one type, and never NaN; zeros are equal whatever their sign."""
    if isinstance(left, float) and math.isnan(left):
        return False
    return type(left) is type(right) and left == right


@given(ANY, rows(), NOWS)
def test_prepared_closures_agree_with_the_interpreter(expr: Expr, row: dict[str, Value], now_us: int) -> None:
    """`prepare` computes what `evaluate` computes."""
    assert same(prepare(expr)(row, now_us), evaluate(expr, row, now_us))


@given(ANY, rows(), NOWS)
def test_interpreter_agrees_with_the_oracle(expr: Expr, row: dict[str, Value], now_us: int) -> None:
    """The interpreter computes what Python's own numbers, dates and expressions say."""
    try:
        expected = oracle(expr, row, now_us)
    except Beyond:
        assume(False)
    assert same(evaluate(expr, row, now_us), expected)


@given(VALUES.flatmap(trees), rows(), NOWS)
def test_simplifying_changes_no_value(expr: Expr, row: dict[str, Value], now_us: int) -> None:
    """It keeps the value, and a second run finds nothing more to do."""
    simple = simplify(expr)
    assert simplify(simple) is simple
    assert same(evaluate(simple, row, now_us), evaluate(expr, row, now_us))


@given(ANY)
def test_formatted_conditions_compile_to_themselves(expr: Expr) -> None:
    """Formatting what was compiled loses nothing but the places.

    A random tree is compiled from its text first: it may convert where no text would, as int64 compared as float64.
    """
    first, _ = compile_expression(format_expr(expr), CATALOG)
    assume(first is not None)
    assert first is not None
    text = format_expr(first)
    again, findings = compile_expression(text, CATALOG)
    assert findings == (), text
    assert again == first, text


@given(CONDITIONS, rows(), NOWS, st.lists(st.floats(0, 1), max_size=5))
def test_conditions_stay_until_their_flip(
    expr: Expr, row: dict[str, Value], now_us: int, fractions: list[float]
) -> None:
    """Between now and the instant that `next_flip_us` names, time changes nothing."""
    flip_us = next_flip_us(expr, row, now_us)
    assert flip_us is None or flip_us > now_us
    last_us = flip_us - 1 if flip_us is not None else now_us + 10**16
    value = evaluate(expr, row, now_us)
    between = (now_us + int((last_us - now_us) * fraction) for fraction in fractions)
    for at_us in [last_us, *(min(at_us, last_us) for at_us in between)]:  # a float may have been rounded up
        assert same(evaluate(expr, row, at_us), value), at_us


@given(CONDITIONS, rows(), NOWS)
def test_what_never_holds_never_does(expr: Expr, row: dict[str, Value], now_us: int) -> None:
    """No row contradicts the analysis behind always-true and always-false."""
    value = evaluate(expr, row, now_us)
    assert can_hold(expr) or value is not True
    assert can_fail(expr) or value is True


@given(expressions(DType.BOOL, 2), expressions(DType.BOOL, 2), rows(), NOWS)
def test_implication_holds_on_every_row(left: Expr, right: Expr, row: dict[str, Value], now_us: int) -> None:
    """No row contradicts the analysis behind shadowed and contradictory."""
    both = evaluate(left, row, now_us) is True, evaluate(right, row, now_us) is True
    assert can_hold(left, right) or both != (True, True)
    assert not implies(left, right) or both != (True, False)


@given(st.text(max_size=200) | st.text("()[]{}\"'`-#:,.ANDORifthenshow 123=<>%*\n", max_size=200))
def test_garbage_is_answered_with_findings(text: str) -> None:
    """Any text at all compiles or is refused with findings; nothing raises."""
    expr, findings = compile_expression(text, CATALOG)
    assert (expr is None) == bool(findings)
