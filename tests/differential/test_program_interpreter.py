"""The compiled program against the reference interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from decision.lang.format import format_expr
from decision.lang.interpreter import evaluate
from decision.lang.syntax import Arithmetic, Call, Compare, DatePart, Expr, IsNull, Literal, walk
from decision.program import Program
from decision.schema import DType, Value
from tests.support.lang_exprs import NOWS, SCALAR_TYPES, expressions, rows

CASES = 50_000
SOAK_CASES = 200_000
CONDITIONS, ROWS = 10, 20
TRUTHS: dict[Value, int] = {True: 1, False: 0, None: -1}
Rows = list[dict[str, Value]]
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

conditions = st.lists(
    expressions(DType.BOOL, 2) | expressions(DType.BOOL), min_size=CONDITIONS, max_size=CONDITIONS
)
some_rows = st.lists(rows(), min_size=ROWS, max_size=ROWS)
values = st.sampled_from(SCALAR_TYPES).flatmap(expressions)


class Tally:
    """What the cases covered: operators and types of nodes, and truths that came out."""

    def __init__(self) -> None:
        self.cases = 0
        self.operators: Counter[str] = Counter()
        self.dtypes: Counter[str] = Counter()
        self.truths: Counter[str] = Counter()

    def take(self, expressions: Sequence[Expr], expected: Sequence[Sequence[int]]) -> None:
        self.cases += len(expected) * len(expressions)
        for node in (node for expr in expressions for node in walk(expr)):
            self.operators[operator_of(node)] += len(expected)
            self.dtypes[node.dtype.value] += len(expected)
        for truth in (truth for row in expected for truth in row):
            self.truths[{1: "true", 0: "false", -1: "null"}[truth]] += 1

    def __str__(self) -> str:
        parts = {"operators": self.operators, "types": self.dtypes, "truths": self.truths}
        lines = (f"  {name}: {dict(sorted(counts.items()))}" for name, counts in parts.items())
        return "\n".join([f"{self.cases} cases", *lines])


def operator_of(node: Expr) -> str:
    match node:
        case Compare() | Arithmetic():
            return node.op
        case Call():
            return node.function
        case DatePart():
            return node.part
        case _:
            return type(node).__name__.lower()


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts of the whole module, printed at its end."""
    counts = Tally()
    yield counts
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(f"\nprogram against interpreter: {counts}")  # noqa: T201 - counts are what the reader came for


def check(tally: Tally, exprs: Sequence[Expr], many: Rows, now_us: int) -> None:
    """One row at a time, all rows at once, and as columns: all as the interpreter says."""
    program = Program.compile(exprs)
    expected = [[TRUTHS[evaluate(expr, row, now_us)] for expr in exprs] for row in many]
    together = program.run(many, now_us)
    singles = [program.run(row, now_us) for row in many]
    columns = {name: [row.get(name) for row in many] for name in program.names}
    compare("rows", together.truth.tolist(), expected, exprs, many)
    compare("one row", [truth for one in singles for truth in one.truth.tolist()], expected, exprs, many)
    compare("columns", program.run_columns(columns, len(many), now_us).truth.tolist(), expected, exprs, many)
    np.testing.assert_array_equal(bits_of(together.mask, len(exprs)), np.array(expected) == 1)
    for single, truths in zip(singles, expected, strict=True):
        np.testing.assert_array_equal(bits_of(single.mask, len(exprs)), np.array([truths]) == 1)
    tally.take(exprs, expected)


def compare(
    way: str, found: list[list[int]], expected: list[list[int]], exprs: Sequence[Expr], many: Rows
) -> None:
    """Name the first case in which they differ."""
    for row, got, wanted in zip(many, found, expected, strict=False):
        for expr, one, other in zip(exprs, got, wanted, strict=True):
            assert one == other, f"{way}: {one} for {other}: {format_expr(expr)} on {row}"
    assert len(found) == len(expected)


def bits_of(mask: np.ndarray[tuple[int, int], np.dtype[np.uint64]], count: int) -> object:
    words = np.ascontiguousarray(mask).view(np.uint8)
    return np.unpackbits(words, axis=1, bitorder="little")[:, :count].astype(bool)


@settings(
    max_examples=CASES // 200,
    deadline=None,
    suppress_health_check=SLOW,
    phases=[Phase.explicit, Phase.generate],
)
@given(exprs=conditions, many=some_rows, now_us=NOWS)
def test_program_agrees_with_the_interpreter(
    tally: Tally, exprs: list[Expr], many: Rows, now_us: int
) -> None:
    """Every condition over every row has the truth that the interpreter gives it."""
    check(tally, exprs, many, now_us)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=SOAK_CASES // 200, deadline=None, suppress_health_check=SLOW, phases=[Phase.generate])
@given(exprs=conditions, many=some_rows, now_us=NOWS)
def test_program_agrees_with_the_interpreter_for_long(
    tally: Tally, exprs: list[Expr], many: Rows, now_us: int
) -> None:
    """The same over many more cases."""
    check(tally, exprs, many, now_us)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(expr=values, many=st.lists(rows(), min_size=1, max_size=5), now_us=NOWS)
def test_values_agree_exactly_with_the_interpreter(tally: Tally, expr: Expr, many: Rows, now_us: int) -> None:
    """An expression of any type equals the constant that the interpreter computes, or is NULL where that is."""
    found = [evaluate(expr, row, now_us) for row in many]
    constants = [Literal(value=value, dtype=expr.dtype) for value in found]
    equal: list[Expr] = [Compare(op="=", left=expr, right=constant) for constant in constants]
    check(tally, [IsNull(operand=expr), *equal], many, now_us)
