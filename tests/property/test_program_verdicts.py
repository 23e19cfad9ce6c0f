"""The bits that are kept of every condition and comparison."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from decision.errors import VerdictError
from decision.lang.interpreter import conjunction, disjunction, evaluate, negation
from decision.lang.syntax import And, Expr, Literal, Not, Or
from decision.program import Bits, Program, Truth
from decision.schema import DType, Value
from tests.support.lang_exprs import NOWS, expressions, rows
from tests.unit.test_program import compile_texts

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


def joined(expr: Expr, truths: dict[Expr, Truth]) -> Truth:
    """A condition's truth out of those of its comparisons."""
    match expr:
        case Literal(value=bool() | None as value):
            return value
        case Not():
            return negation(joined(expr.operand, truths))
        case And():
            return conjunction(joined(operand, truths) for operand in expr.operands)
        case Or():
            return disjunction(joined(operand, truths) for operand in expr.operands)
        case _:
            return truths[expr]


@settings(
    max_examples=200, deadline=None, suppress_health_check=SLOW, phases=[Phase.explicit, Phase.generate]
)
@given(
    exprs=st.lists(expressions(DType.BOOL), min_size=1, max_size=6),
    many=st.lists(rows(), max_size=5),
    now_us=NOWS,
)
def test_verdicts_are_what_the_interpreter_says(
    exprs: list[Expr], many: list[dict[str, Value]], now_us: int
) -> None:
    """Kept bits read back as every condition's and comparison's truth, and the latter make up the former."""
    program = Program.compile(exprs)
    bits = program.verdicts(program.run(many, now_us).truths)
    assert program.listing[: len(exprs)] == tuple(exprs)
    for index, row in enumerate(many):
        kept = bits.row(index)
        assert kept == tuple(evaluate(part, row, now_us) for part in program.listing)
        truths = dict(zip(program.listing[len(exprs) :], kept[len(exprs) :], strict=True))
        assert [joined(expr, truths) for expr in exprs] == list(kept[: len(exprs)])


def test_verdicts_keep_their_meaning_in_another_program() -> None:
    """Bits follow from the conditions, not from what else was compiled before them or how."""
    texts = ("v.i < 5 AND NOT (v.b OR v.x > 1.0)", "v.s LIKE 'a%'")
    row: dict[str, Value] = {"v.i": 3, "v.s": "abc", "v.b": False}
    first, second = compile_texts(*texts), compile_texts(*texts)
    assert first.verdicts(first.run(row, 0).truths) == second.verdicts(second.run(row, 0).truths)
    assert first.listing == second.listing


def test_verdicts_are_small() -> None:
    """A thousand conditions of three comparisons take a kilobyte where nothing is NULL."""
    texts = [f"v.i > {n} AND (v.i < {2 * n + 5_000} OR v.x > {n}.5)" for n in range(1_000)]
    program = compile_texts(*texts)
    bits = program.verdicts(program.run({"v.i": 1, "v.x": 0.0}, 0).truths)
    assert (bits.count, len(bits.is_true), len(bits.is_null)) == (4_000, 500, 0)


@pytest.mark.parametrize(
    "bits",
    [
        Bits(count=9, is_true=b"\x01"),
        Bits(count=1, is_true=b"\x01", is_null=b"\x01"),
        Bits(count=1, is_true=b"\x01\x01", is_null=b"\x01\x01"),
        Bits(count=12, is_true=b"\x01\x01", is_null=b"\x01"),
    ],
)
def test_damaged_verdicts_are_refused(bits: Bits) -> None:
    """Bits that are cut short or contradict each other are an error, not another truth."""
    with pytest.raises(VerdictError):
        bits.row(0)
