"""What all rows have in common is computed once, and everything comes out as if it were not."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.frame import Block, Layout
from decision.lang.interpreter import evaluate
from decision.lang.syntax import Expr
from decision.program import Program
from decision.program.gather import Input
from decision.program.opcodes import FALSE, NULL, TRUE
from decision.schema import DType, Status, Value
from tests.support.lang_exprs import NAMES, NOWS, expressions, rows
from tests.support.lang_world import expression

TRUTHS: dict[Value, int] = {True: TRUE, False: FALSE, None: NULL}
COLUMNS: dict[str, DType] = {name: dtype for dtype, names in NAMES.items() for name in names}
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


def block(names: list[str], given_rows: list[dict[str, Value]]) -> Block:
    """Rows as the server reads them."""
    values = [[row.get(name) for row in given_rows] for name in names]
    shape = [[int(Status.PRESENT)] * len(given_rows) for _ in names]
    times = [[0] * len(given_rows) for _ in names]
    layout = Layout.of((name, COLUMNS[name]) for name in names)
    return Block.of(layout, [str(row) for row in range(len(given_rows))], values, shape, times)


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(
    exprs=st.lists(expressions(DType.BOOL), min_size=1, max_size=8),
    many=st.lists(rows(), min_size=1, max_size=9),
    shared=rows(),
    common=st.sets(st.sampled_from(sorted(COLUMNS))),
    now_us=NOWS,
)
def test_common_parts_are_what_the_interpreter_says_of_each_row(
    exprs: list[Expr], many: list[dict[str, Value]], shared: dict[str, Value], common: set[str], now_us: int
) -> None:
    """Whichever names are common: the truths of conditions, and of all comparisons that a record keeps."""
    whole = [{**row, **{name: shared.get(name) for name in common}} for row in many]
    once, each = sorted(common), sorted(COLUMNS.keys() - common)
    customer, candidates = block(once, [shared]), block(each, many)
    program = Program.compile(exprs, frozenset(common))
    binding = program.bind((customer.layout, candidates.layout))
    inputs = (Input(customer, np.zeros(len(many), np.int64)), Input(candidates, np.arange(len(many))))
    for _ in range(2):  # the second time in the first one's registers
        truths = binding.run(inputs, len(many), now_us)
        bits = program.verdicts(truths)
        for place, row in enumerate(whole):
            expected = [evaluate(expr, row, now_us) for expr in exprs]
            assert truths[: len(exprs), place].tolist() == [TRUTHS[truth] for truth in expected]
            assert bits.row(place) == tuple(evaluate(part, row, now_us) for part in program.listing)
    apart = program.run(many, now_us).truth.tolist()  # rows of their own have nothing in common
    assert [[{1: True, 0: False, -1: None}[truth] for truth in row] for row in apart] == [
        [evaluate(expr, row, now_us) for expr in exprs] for row in many
    ]


def test_common_parts_are_looked_at_once() -> None:
    """Which shows where rows break the promise: the first one's truth is everybody's, of what is common alone."""
    exprs = [expression("v.i > 3"), expression("v.x > 1.0"), expression("v.i > 3 AND v.x > 1.0")]
    program = Program.compile(exprs, {"v.i"})
    customers, candidates = (
        block(["v.i"], [{"v.i": 5}, {"v.i": 1}]),
        block(["v.x"], [{"v.x": 2.0}, {"v.x": 3.0}]),
    )
    binding = program.bind((customers.layout, candidates.layout))
    inputs = (Input(customers, np.arange(2)), Input(candidates, np.arange(2)))
    assert binding.run(inputs, 2, 0)[:3].tolist() == [[TRUE, TRUE]] * 3
