"""Sets of values that one expression may have, NULL included, and what comparisons leave of them."""

from __future__ import annotations

import functools
import math
from typing import Final, NamedTuple, cast

from decision.lang.syntax import Call, CompareOp, DatePart, Expr, Literal, Now, Ref
from decision.schema import DType, Scalar

WHOLE: Final = frozenset({DType.INT64, DType.TIMESTAMP, DType.INTERVAL})


class Domain(NamedTuple):
    """A set of values: those allowed (None is any) within the range, without the excluded, and perhaps NULL.

    Ends of the range belong to it. A range of whole numbers has whole ends; float64's open ends are the neighbours.
    """

    null: bool = True
    allowed: frozenset[Scalar] | None = None
    excluded: frozenset[Scalar] = frozenset()
    low: float = -math.inf
    high: float = math.inf

    def meet(self, other: Domain) -> Domain:
        """What both contain."""
        if self.allowed is None or other.allowed is None:
            allowed = other.allowed if self.allowed is None else self.allowed
        else:
            allowed = self.allowed & other.allowed
        return Domain(
            null=self.null and other.null,
            allowed=allowed,
            excluded=self.excluded | other.excluded,
            low=max(self.low, other.low),
            high=min(self.high, other.high),
        )

    @property
    def empty(self) -> bool:
        return not self.null and not self._has_value()

    def _has_value(self) -> bool:
        if self.allowed is not None:
            return any(value not in self.excluded and self._in_range(value) for value in self.allowed)
        if self.low > self.high:
            return False
        return self.low != self.high or self.low not in self.excluded

    def _in_range(self, value: Scalar) -> bool:
        if isinstance(value, str | bytes):
            return True
        return self.low <= value <= self.high


ANY: Final = Domain()
NULL: Final = Domain(allowed=frozenset())
BOOLS: Final = Domain(allowed=frozenset({True, False}))
NOT_NULL: Final = Domain(null=False)

OPPOSITE: Final[dict[CompareOp, CompareOp]] = {
    "=": "<>",
    "<>": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}
MIRRORED: Final[dict[CompareOp, CompareOp]] = {
    "=": "=",
    "<>": "<>",
    "<": ">",
    ">": "<",
    "<=": ">=",
    ">=": "<=",
}


def among(values: frozenset[Scalar]) -> Domain:
    """These values."""
    return Domain(null=False, allowed=values)


def outside(values: frozenset[Scalar]) -> Domain:
    """All values but these."""
    return Domain(null=False, excluded=values)


def satisfying(op: CompareOp, value: Scalar, dtype: DType) -> Domain:
    """The values x of a type for which `x op value` is TRUE."""
    if op == "=":
        return among(frozenset({value}))
    if op == "<>":
        return outside(frozenset({value}))
    number = cast("float", value)
    match op:
        case "<":
            return Domain(null=False, high=_below(number, dtype))
        case "<=":
            return Domain(null=False, high=number)
        case ">":
            return Domain(null=False, low=_above(number, dtype))
        case _:
            return Domain(null=False, low=number)


def _below(value: float, dtype: DType) -> float:
    return value - 1 if dtype in WHOLE else math.nextafter(value, -math.inf)


def _above(value: float, dtype: DType) -> float:
    return value + 1 if dtype in WHOLE else math.nextafter(value, math.inf)


PART_RANGES: Final = {
    "month": (1, 12),
    "day": (1, 31),
    "weekday": (1, 7),
    "day_of_year": (1, 366),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}


INT64: Final = (-(2**63), 2**63 - 1)


@functools.lru_cache(maxsize=32_768)
def natural(expr: Expr) -> Domain:
    """What an expression can be by its form alone. Kept by tree, since few are compared with many constants."""
    null = not _never_null(expr)
    if isinstance(expr, DatePart) and expr.part in PART_RANGES:
        low, high = PART_RANGES[expr.part]
        return Domain(null=null, low=low, high=high)
    if isinstance(expr, Call) and expr.function == "bucket":
        count = cast("Literal", expr.args[2]).value
        return Domain(null=null, low=0, high=cast("int", count) - 1)
    if expr.dtype is DType.BOOL:
        return BOOLS
    return Domain(null=null, low=INT64[0], high=INT64[1]) if expr.dtype in WHOLE else Domain(null=null)


ALWAYS_GIVEN: Final = frozenset({"context.customer", "offer.tags"})


def _never_null(expr: Expr) -> bool:
    """Whether it has a value on every row."""
    match expr:
        case Now():
            return True
        case Literal():
            return expr.value is not None
        case Ref():
            return expr.name in ALWAYS_GIVEN
        case DatePart():
            return _never_null(expr.operand)
        case Call(function="coalesce"):
            return any(map(_never_null, expr.args))
        case Call(function="bucket"):
            return _never_null(expr.args[0])
        case _:
            return False
