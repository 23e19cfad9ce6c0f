"""The interpreter against DuckDB, where the same words mean the same."""

from __future__ import annotations

import random

import duckdb

from decision.lang.interpreter import evaluate
from decision.schema import Value
from tests.support.lang_world import expression

POOLS: dict[str, list[Value]] = {
    "i": [None, *range(-9, 10)],
    "j": [None, *range(-3, 4)],
    "x": [None, 0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e300, float("inf"), float("-inf")],
    "y": [None, 0.25, -0.5, 0.5, 1.5, 2.5, -2.5, 3.0, -3.75],
    "s": [None, "", "a", "ab", "a%b", "aab", "é", "🥛", "xa_b", "b", "A", "acb", "aXXb"],
    "z": [None, "", "a", "ab"],
    "b": [None, True, False],
    "c": [None, True, False],
}
ROW_COUNT = 2_000
TYPES = {"i": "BIGINT", "j": "BIGINT", "x": "DOUBLE", "y": "DOUBLE", "s": "VARCHAR", "z": "VARCHAR"}
SHARED = (
    "b AND c",
    "b OR NOT c",
    "NOT (b AND (c OR i > 3))",
    "b = c",
    "b IS NULL OR c IS NOT NULL",
    "i < j",
    "i >= x",
    "x <> y",
    "s = z",
    "s IN ('a', 'ab', NULL)",
    "i NOT IN (1, 2, j)",
    "i BETWEEN j AND 5",
    "i NOT BETWEEN -2 AND j",
    "s LIKE '%a_%b'",
    "s LIKE '_'",
    "s NOT LIKE 'a%'",
    "i + j * 2 - -3",
    "i % j",
    "CASE WHEN i > j THEN 1 WHEN b THEN i END",
    "coalesce(i, j, 7)",
    "least(i, j, 2)",
    "greatest(x, y)",
    "abs(i - j)",
    "round(y)",
    "floor(y)",
)
EXPRESSIONS = {text: expression(text) for text in SHARED}


def literal(name: str, value: Value) -> str:
    """A typed SQL constant."""
    if value is None:
        return f"NULL::{TYPES.get(name, 'BOOLEAN')}"
    return f"'{value!s}'::{TYPES.get(name, 'BOOLEAN')}"


def test_interpreter_agrees_with_duckdb() -> None:
    """Logic, comparison, lists, patterns and exact arithmetic are SQL's."""
    draw = random.Random(20261123)
    rows = [{name: draw.choice(pool) for name, pool in POOLS.items()} for _ in range(ROW_COUNT)]
    values = ", ".join("(" + ", ".join(literal(name, row[name]) for name in row) + ")" for row in rows)
    with duckdb.connect() as connection:
        connection.execute("SET error_on_division_by_zero = false")
        query = f"SELECT {', '.join(SHARED)} FROM (VALUES {values}) AS v({', '.join(POOLS)})"  # noqa: S608
        answer = connection.execute(query).fetchall()
    for row, results in zip(rows, answer, strict=True):
        named = {f"v.{name}": value for name, value in row.items()}
        for (text, expr), expected in zip(EXPRESSIONS.items(), results, strict=True):
            assert evaluate(expr, named, 0) == expected, (text, row)
