"""The type rules that operators share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from decision.lang.syntax import Expr, Literal, ToFloat
from decision.schema import DType

NUMBERS: Final = (DType.INT64, DType.FLOAT64)
ORDERED: Final = frozenset({*NUMBERS, DType.TIMESTAMP, DType.INTERVAL})
SCALARS: Final = frozenset({*ORDERED, DType.BOOL, DType.STRING})

ELEMENTS: Final = {
    DType.BOOL_LIST: DType.BOOL,
    DType.INT64_LIST: DType.INT64,
    DType.FLOAT64_LIST: DType.FLOAT64,
    DType.STRING_LIST: DType.STRING,
    DType.TIMESTAMP_LIST: DType.TIMESTAMP,
}
"""What a list holds."""


def is_null(expr: Expr) -> bool:
    """Whether it is the literal NULL, which fits any type."""
    return isinstance(expr, Literal) and expr.value is None


def type_name(dtype: DType) -> str:
    """A type in words."""
    return {"bool": "true or false"}.get(dtype.value, dtype.value.replace("_", " "))


def unify(exprs: Iterable[Expr]) -> DType | None:
    """The one type that all of them can take, or None."""
    dtypes = {expr.dtype for expr in exprs if not is_null(expr)}
    if not dtypes:
        return DType.BOOL
    if dtypes == set(NUMBERS):
        return DType.FLOAT64
    return dtypes.pop() if len(dtypes) == 1 else None


def coerce(expr: Expr, dtype: DType) -> Expr:
    """Write out the conversion to a type that `unify` allowed; constants are converted here and now."""
    if expr.dtype is dtype:
        return expr
    if is_null(expr):
        return Literal(value=None, dtype=dtype, span=expr.span)
    if isinstance(expr, Literal):
        return replace(expr, value=float(expr.value), dtype=dtype)  # type: ignore[arg-type]
    return ToFloat(operand=expr, span=expr.span)
