"""What a run of random conditions has exercised: operators, types and NULL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from decision.lang.syntax import (
    Arithmetic,
    Call,
    Case,
    Compare,
    DatePart,
    Expr,
    In,
    IsNull,
    Literal,
    Negate,
    walk,
)
from decision.schema import Value


def operator_of(node: Expr) -> str:
    """An operator and the type that it works on, in the language's words."""
    match node:
        case Arithmetic():
            return f"{node.op} {node.dtype}"
        case Compare():
            return f"{node.op} {node.left.dtype}"
        case Call():
            return f"{node.function} {node.args[-1].dtype if node.function == 'contains' else node.dtype}"
        case DatePart():
            return node.part
        case In() | IsNull():
            return f"{type(node).__name__} {node.operand.dtype}"
        case Negate() | Case() | Literal():
            return f"{type(node).__name__} {node.dtype}"
        case _:
            return type(node).__name__


class Counts:
    """Cases by the operators within their conditions, and values by the operator and type on top."""

    def __init__(self) -> None:
        self.within: Counter[str] = Counter()
        self.values: Counter[str] = Counter()
        self.nulls: Counter[str] = Counter()
        self.cases = 0

    def add(self, expr: Expr, values: Iterable[Value]) -> None:
        """Count the cases of one condition."""
        answers = list(values)
        self.cases += len(answers)
        for operator in {operator_of(node) for node in walk(expr)}:
            self.within[operator] += len(answers)
        nulls = sum(value is None for value in answers)
        for key in (operator_of(expr), f"of type {expr.dtype}"):
            self.nulls[key] += nulls
            self.values[key] += len(answers) - nulls

    def lines(self) -> list[str]:
        """A table in words."""
        head = f"{self.cases} cases: operator and type, cases with it, on top with a value, on top with NULL"
        keys = sorted({*self.within, *self.values})
        return [
            head,
            *(f"  {key:24} {self.within[key]:8} {self.values[key]:8} {self.nulls[key]:8}" for key in keys),
        ]
