"""Reading `expression ; row ; value` lines."""

from __future__ import annotations

import json
import math
import re

from decision.lang.instants import parse_instant
from decision.lang.interpreter import evaluate, prepare
from decision.lang.syntax import Expr
from decision.schema import DTYPES, DType, Value
from tests.support.lang_world import CATALOG, expression

NOW = "2026-11-23T12:00:00Z"
TYPES = {
    f"{view.name}.{feature.name}": DTYPES[feature.value_type]
    for view in CATALOG.views
    for feature in view.features
    if feature.value_type in DTYPES
}


def split_case(line: str) -> tuple[str, str, str]:
    """Expression, row and value of a line."""
    text, row, value = (part.strip() for part in re.split(r" ;(?= )", line))
    return text, row, value


def check_case(text: str, row: str, value: str) -> None:
    """The expression has the value on the row, walked or prepared."""
    expr = expression(text)
    values, now_us = read_row(row)
    expected = read_value(value, expr)
    assert same(evaluate(expr, values, now_us), expected), evaluate(expr, values, now_us)
    assert same(prepare(expr)(values, now_us), expected)


def read_row(text: str) -> tuple[dict[str, Value], int]:
    """A row of `name=JSON` pairs, and the instant of now()."""
    pairs = json.loads("{" + re.sub(r"(^|, )([a-z_.]+)=", r'\1"\2":', text) + "}")
    now_us = parse_instant(pairs.pop("now", NOW))
    assert now_us is not None
    names = {name if "." in name else f"v.{name}": value for name, value in pairs.items()}
    return {name: typed(value, TYPES.get(name, DType.STRING)) for name, value in names.items()}, now_us


def typed(value: object, dtype: DType) -> Value:
    """JSON as the value of a type: instants are strings, lists become tuples."""
    if isinstance(value, list):
        return tuple(typed(item, DType(dtype.value.removesuffix("_list"))) for item in value)  # type: ignore[misc]
    if dtype is DType.TIMESTAMP and isinstance(value, str):
        return parse_instant(value)
    return value  # type: ignore[return-value]


def read_value(text: str, expr: Expr) -> Value:
    """The expected value, written as the expression's type is written."""
    if expr.dtype is DType.INTERVAL:
        return evaluate(expression(text), {}, 0)
    words = {"NULL": "null", "TRUE": "true", "FALSE": "false"}
    return typed(json.loads(words.get(text, text)), expr.dtype)


def same(got: Value, expected: Value) -> bool:
    """Equal in value and type, and in the sign of zero."""
    if isinstance(got, float) and isinstance(expected, float):
        return got == expected and math.copysign(1, got) == math.copysign(1, expected)
    return type(got) is type(expected) and got == expected
