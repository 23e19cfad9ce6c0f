"""The program's arithmetic, calendar, rounding and patterns against the interpreter's leaves, over their edges."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.lang import values
from decision.lang.calendar import date_part
from decision.lang.interpreter import evaluate
from decision.lang.syntax import (
    Arithmetic,
    ArithmeticOp,
    Call,
    Compare,
    CompareOp,
    DatePart,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Now,
    Ref,
)
from decision.program import Program
from decision.program.opcodes import PARTS
from decision.schema import DType, Value
from tests.support.lang_exprs import INT_EDGES, NOWS, ZONES, texts

INTS = sorted({*INT_EDGES, -7, 10, 3_037_000_499, 3_037_000_500, -3_037_000_500, 2**31 - 1, 2**31, 2**32})
FLOATS = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    -7.25,
    1e-300,
    5e-324,
    1e300,
    1.7e308,
    math.inf,
    -math.inf,
]
FLOATS += [2.0**52 + 0.5, 2.0**53, 0.49999999999999994, -0.49999999999999994]


def ref(name: str, dtype: DType) -> Ref:
    return Ref(name=name, dtype=dtype)


def check_values(expr: Expr, rows: list[dict[str, Value]], expected: list[Value]) -> None:
    """The expression is NULL where None is expected, and equals the expected value elsewhere."""
    wanted = ref("wanted", expr.dtype)
    program = Program.compile([IsNull(operand=expr), Compare(op="=", left=expr, right=wanted)])
    rows = [{**row, "wanted": value} for row, value in zip(rows, expected, strict=True)]
    found = program.run(rows, 0).truth.tolist()
    assert found == [[1, -1] if value is None else [0, 1] for value in expected]


@pytest.mark.parametrize("op", list("+-*%"))
def test_int_arithmetic_agrees_at_every_edge(op: str) -> None:
    """Overflow, zero and the least int64 included, over all pairs."""
    pairs = list(itertools.product(INTS, INTS))
    expr = Arithmetic(op=op, left=ref("a", DType.INT64), right=ref("b", DType.INT64), dtype=DType.INT64)  # type: ignore[arg-type]
    expected: list[Value] = [values.arithmetic_int(op, a, b) for a, b in pairs]  # type: ignore[arg-type]
    check_values(expr, [{"a": a, "b": b} for a, b in pairs], expected)


@pytest.mark.parametrize("op", list("+-*/%"))
def test_float_arithmetic_agrees_at_every_edge(op: str) -> None:
    """Zeros, infinities and overflow included, over all pairs."""
    pairs = list(itertools.product(FLOATS, FLOATS))
    left, right = ref("a", DType.FLOAT64), ref("b", DType.FLOAT64)
    expr = Arithmetic(op=op, left=left, right=right, dtype=DType.FLOAT64)  # type: ignore[arg-type]
    expected: list[Value] = [values.arithmetic_float(op, a, b) for a, b in pairs]  # type: ignore[arg-type]
    check_values(expr, [{"a": a, "b": b} for a, b in pairs], expected)


@given(st.lists(st.sampled_from(FLOATS) | st.floats(allow_nan=False), min_size=20, max_size=20))
def test_rounding_agrees(numbers: list[float]) -> None:
    """Halves go away from zero, floor goes down, infinities stay."""
    rows: list[dict[str, Value]] = [{"a": number} for number in numbers]
    for name, leaf in (("round", values.round_half_away), ("floor", values.floor)):
        expr = Call(function=name, args=(ref("a", DType.FLOAT64),), dtype=DType.FLOAT64)  # type: ignore[arg-type]
        check_values(expr, rows, [leaf(number) for number in numbers])


@given(
    st.lists(NOWS | st.sampled_from(INTS) | st.integers(-(2**63), 2**63 - 1), min_size=20, max_size=20),
    st.sampled_from(ZONES),
)
def test_date_parts_agree(instants: list[int], zone: object) -> None:
    """Every part of any int64, around changes of the clock and at the ends of the range."""
    rows: list[dict[str, Value]] = [{"a": instant} for instant in instants]
    for part in PARTS:
        expr = DatePart(part=part, operand=ref("a", DType.TIMESTAMP), zone=zone)  # type: ignore[arg-type]
        check_values(expr, rows, [date_part(part, instant, zone) for instant in instants])  # type: ignore[arg-type]


@given(st.lists(texts(), min_size=1, max_size=20), st.lists(texts(), min_size=1, max_size=70, unique=True))
def test_patterns_agree(subjects: list[str], patterns: list[str]) -> None:
    """More patterns than a word has bits, each on every text."""
    subject = ref("s", DType.STRING)
    program = Program.compile([Like(operand=subject, pattern=pattern) for pattern in patterns])
    found = program.run([{"s": text} for text in subjects], 0).truth == 1
    assert found.tolist() == [[values.like(text, pattern) for pattern in patterns] for text in subjects]


@given(st.floats(allow_nan=False), st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_thresholds_split_where_the_comparison_does(limit: float, numbers: list[float]) -> None:
    """A strict bound excludes itself and nothing else, at zeros, subnormals and infinities too."""
    rows: list[dict[str, Value]] = [
        {"a": near} for x in [limit, *numbers] for near in (x, math.nextafter(x, math.inf), -x)
    ]
    ops = ("=", "<>", "<", "<=", ">", ">=")
    left, right = ref("a", DType.FLOAT64), Literal(value=limit, dtype=DType.FLOAT64)
    program = Program.compile([Compare(op=op, left=left, right=right) for op in ops])  # type: ignore[arg-type]
    found = program.run(rows, 0).truth == 1
    assert found.tolist() == [[values.compare(op, row["a"], limit) for op in ops] for row in rows]  # type: ignore[arg-type]


INSTANTS = st.sampled_from(INTS) | st.integers(-(2**63), 2**63 - 1) | st.integers(-100, 100)
SHIFTS: tuple[ArithmeticOp, ...] = ("-", "+")
ORDERS: tuple[CompareOp, ...] = ("=", "<>", "<", "<=", ">", ">=")


def check_truths(conditions: list[Expr], rows: list[dict[str, Value]], now_us: int = 0) -> None:
    """One row at a time and all at once, every condition is what the interpreter says."""
    program = Program.compile(conditions)
    truths: dict[Value, int] = {True: 1, False: 0, None: -1}
    expected = [[truths[evaluate(condition, row, now_us)] for condition in conditions] for row in rows]
    assert program.run(rows, now_us).truth.tolist() == expected
    assert [program.run(row, now_us).truth[0].tolist() for row in rows] == expected


@given(
    st.lists(INSTANTS, min_size=1, max_size=40),
    st.lists(st.none() | INSTANTS, min_size=1, max_size=10),
)
def test_many_int_constants_agree(limits: list[int], numbers: list[Value]) -> None:
    """Each number lands in its place among constants by order, equality and IN; NULL is NULL against all."""
    value = ref("a", DType.INT64)
    constants = tuple(Literal(value=limit, dtype=DType.INT64) for limit in limits)
    conditions: list[Expr] = [
        Compare(op=op, left=value, right=constant) for op in ORDERS for constant in constants
    ]
    conditions += [In(operand=value, items=constants[: i + 1]) for i in range(len(constants))]
    check_truths(conditions, [{"a": number} for number in [*numbers, *limits[:5]]])


@given(
    st.lists(st.sampled_from(FLOATS) | st.floats(allow_nan=False), min_size=1, max_size=40),
    st.lists(st.none() | st.sampled_from(FLOATS) | st.floats(), min_size=1, max_size=10),
)
def test_many_float_constants_agree(limits: list[float], numbers: list[Value]) -> None:
    """As for int64, with infinities, both zeros and NaN."""
    value = ref("a", DType.FLOAT64)
    constants = tuple(Literal(value=limit, dtype=DType.FLOAT64) for limit in limits)
    conditions: list[Expr] = [
        Compare(op=op, left=value, right=constant) for op in ORDERS for constant in constants
    ]
    conditions += [In(operand=value, items=constants[: i + 1]) for i in range(len(constants))]
    check_truths(conditions, [{"a": number} for number in [*numbers, *limits[:5]]])


@given(
    st.lists(INSTANTS, min_size=1, max_size=20),
    st.lists(st.none() | INSTANTS, min_size=1, max_size=10),
    INSTANTS,
)
def test_instants_against_now_agree(intervals: list[int], instants: list[Value], now_us: int) -> None:
    """now() with an interval added or taken away, on either side, and where that overflows."""
    value = ref("a", DType.TIMESTAMP)
    moved: list[Expr] = [Now()]
    moved += [
        Arithmetic(op=op, left=Now(), right=Literal(value=us, dtype=DType.INTERVAL), dtype=DType.TIMESTAMP)
        for op in SHIFTS
        for us in intervals
    ]
    conditions: list[Expr] = []
    for op in ORDERS:
        conditions += [Compare(op=op, left=value, right=other) for other in moved]
        conditions += [Compare(op=op, left=other, right=value) for other in moved]
    check_truths(conditions, [{"a": instant} for instant in instants], now_us)
